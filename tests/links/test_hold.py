"""The holder between two nodes: what it does to real packets, and what becomes of them in trouble."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from node.contract import ShoalError
from node.contract.links import LinkTable, PeerLinks, Shape
from node.contract.probes import Echo
from node.fork import fork
from node.links import hold, nfqueue
from node.links.hold import HeldState, Holder, HolderGoneError
from node.links.icmp import echo, opened
from node.links.priority import HOLDER_NAME
from node.links.raiser import raise_until_ended
from node.namespace import NodeThread, enter
from orchestrator.boxes.box import Box, Node

BRIDGE = "data"
SUBNET = "10.77.46.0/24"
PORT = 4000
SOON_S = 20.0
QUIET_S = 2.0  # so long nothing came: nothing comes any more
IS_SLOW = os.environ.get("SHOAL_SLOW_GUEST") == "1"  # an emulated processor
SLACK_MS = 40.0 if IS_SLOW else 4.0
TRIES = 3
QUEUE = 3
SO_RCVBUFFORCE = 33
ROOM_BYTES = 64 << 20


class End:
    """A node with a holder, and threads in it."""

    def __init__(self, node: Node, log: Path) -> None:
        self.name, self.node, self.address = node.name, node, node.address(BRIDGE)
        self.keeper = NodeThread(node.name)
        self.threads = ThreadPoolExecutor(4, initializer=enter, initargs=(node.name,))
        self.log = log
        self.holder = Holder(log)

    def iptables(self, what: str, address: str) -> None:
        rule = ["INPUT", "-i", BRIDGE, "-s", address, "-j", "NFQUEUE", "--queue-num", str(QUEUE)]
        self.node.run(["iptables", "-w", "-t", "mangle", what, *rule], timeout_s=SOON_S)

    def close(self) -> None:
        self.holder.stop()
        self.threads.shutdown()
        self.keeper.close()


class Pair:
    """Two nodes; what comes to `far` from `near` is held as it says, nothing else."""

    def __init__(self, near: End, far: End) -> None:
        self.near, self.far = near, far

    def hold(self, shape: Shape, seed: int = 1) -> HeldState:
        links = (PeerLinks(self.near.name, self.near.address, Shape(), shape),)
        table = LinkTable(self.far.name, self.far.address, SUBNET, None, None, links, seed=seed)
        return self.far.holder.apply(table, {self.near.name: QUEUE}).links[0]

    def state(self) -> HeldState:
        return self.far.holder.state().links[0]

    def round_trips_ms(self, count: int, timeout_ms: float = 2000.0) -> list[float]:
        """By the sender's own clock: the kernel's stamp, which `ping` takes, is older than the holder's work."""

        def measure() -> list[float]:
            with opened(self.near.address, BRIDGE) as link:
                return list(echo(link, Echo(self.far.address, count, 5.0, timeout_ms)).rtt_ms)

        return self.near.threads.submit(measure).result(SOON_S)

    def send(self, numbers: range, per_s: float | None = None) -> None:
        """At once, or at a rate: an unprivileged receiver's buffer is small."""

        def run() -> None:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
                link.connect((self.far.address, PORT))
                began = time.monotonic()
                for number in numbers:
                    if per_s:
                        time.sleep(max(0.0, began + number / per_s - time.monotonic()))
                    link.send(number.to_bytes(4, "big"))

        self.near.threads.submit(run).result(SOON_S)

    @contextlib.contextmanager
    def received(self) -> Iterator[Future[list[int]]]:
        """The numbers that arrive at the far node, until none has come for a while after this block."""
        link = self.far.keeper.call(socket.socket, socket.AF_INET, socket.SOCK_DGRAM)
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ROOM_BYTES)
        with contextlib.suppress(PermissionError):
            link.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, ROOM_BYTES)
        link.bind((self.far.address, PORT))
        all_sent = threading.Event()

        def run() -> list[int]:
            numbers = []
            while select.select([link], [], [], QUIET_S)[0] or not all_sent.is_set():
                with contextlib.suppress(BlockingIOError):
                    while True:
                        numbers.append(int.from_bytes(link.recv(64, socket.MSG_DONTWAIT), "big"))
            return numbers

        with link:
            future = self.far.threads.submit(run)
            try:
                yield future
            finally:
                all_sent.set()
                future.exception(SOON_S)


@pytest.fixture(scope="module")
def nodes() -> tuple[Node, Node]:
    box = Box.current()
    if box.run(["ip", "link", "show", BRIDGE], timeout_s=SOON_S, check=False).status != 0:
        box.add_bridge(BRIDGE)  # no other module of this run has made it
    near = box.add_node("hold1", {BRIDGE: "10.77.46.1/24"})
    far = box.add_node("hold2", {BRIDGE: "10.77.46.2/24"})
    for node in (near, far):
        node.run(["ip", "link", "set", BRIDGE, "gso_max_segs", "1"], timeout_s=SOON_S)
    return near, far


@pytest.fixture
def pair(nodes: tuple[Node, Node], tmp_path: Path) -> Iterator[Pair]:
    near, far = (End(node, tmp_path / f"{node.name}.log") for node in nodes)
    made = Pair(near, far)
    try:
        far.keeper.call(far.holder.start)
        made.hold(Shape())
        far.iptables("-A", near.address)
        yield made
        far.iptables("-D", near.address)
    finally:
        near.close()
        far.close()
        print(far.log.read_text())


@pytest.mark.parametrize("latency_ms", [1.0, 20.0, 100.0])
def test_a_packet_takes_the_latency_that_was_asked(pair: Pair, latency_ms: float) -> None:
    pair.hold(Shape(latency_ms=latency_ms))
    for _ in range(TRIES):
        found = statistics.median(pair.round_trips_ms(20))
        if found <= latency_ms + SLACK_MS:
            break
    assert latency_ms <= found <= latency_ms + SLACK_MS
    late = pair.far.holder.state().lateness
    assert late.packets == sum(late.counts) >= 20


def test_what_is_lost_is_counted_and_the_rest_arrives_in_order(pair: Pair) -> None:
    pair.hold(Shape(latency_ms=20.0, jitter_ms=5.0, loss=0.3))
    with pair.received() as received:
        pair.send(range(2000), per_s=3000.0)
    numbers = received.result()
    state = pair.state()
    assert state.packets == 2000
    assert len(numbers) == 2000 - state.lost
    assert 450 < state.lost < 750
    assert numbers == sorted(numbers)


def test_the_same_seed_loses_the_same_packets(pair: Pair) -> None:
    survivors = []
    for seed in (1, 1, 2):
        pair.far.holder.stop()
        pair.far.holder = Holder(pair.far.log)
        pair.far.keeper.call(pair.far.holder.start)
        pair.hold(Shape(latency_ms=5.0, loss=0.5), seed)
        with pair.received() as received:
            pair.send(range(200))
        survivors.append(received.result())
    assert survivors[0] == survivors[1] != survivors[2]


def test_packets_overtake_when_they_may(pair: Pair) -> None:
    pair.hold(Shape(latency_ms=30.0, jitter_ms=10.0, in_order=False))
    with pair.received() as received:
        pair.send(range(500))
    numbers = received.result()
    assert sorted(numbers) == list(range(500))
    assert numbers != sorted(numbers)


def test_a_doubled_packet_comes_twice(pair: Pair) -> None:
    pair.hold(Shape(latency_ms=10.0, duplicate=0.5))
    with pair.received() as received:
        pair.send(range(400))
    numbers = received.result()
    doubled = pair.state().duplicated
    assert 120 < doubled < 280
    assert set(numbers) == set(range(400))
    assert len(numbers) == 400 + doubled


def failed_checksums() -> int:
    lines = Path("/proc/thread-self/net/snmp").read_text().splitlines()
    names, values = (line.split() for line in lines if line.startswith("Tcp:"))
    return int(values[names.index("InCsumErrors")])


def test_tcp_notices_corruption_and_repeats(pair: Pair) -> None:
    pair.hold(Shape(latency_ms=2.0, corrupt=0.05))
    data = os.urandom(500_000)
    before = pair.far.keeper.call(failed_checksums)
    with pair.far.keeper.call(socket.create_server, (pair.far.address, PORT)) as server:

        def send() -> None:
            with socket.create_connection((pair.far.address, PORT), SOON_S) as link:
                link.sendall(data)

        sent = pair.near.threads.submit(send)
        link, _ = server.accept()
        with link:
            link.settimeout(SOON_S)
            got = bytearray()
            while piece := link.recv(1 << 16):
                got += piece
        sent.result(SOON_S)
    assert got == data
    corrupted = pair.state().corrupted
    assert corrupted > 3
    assert pair.far.keeper.call(failed_checksums) - before == pytest.approx(corrupted, abs=2)


def test_a_killed_holder_leaves_the_link_dark_until_it_is_back(pair: Pair) -> None:
    pair.hold(Shape(latency_ms=10.0))
    assert len(pair.round_trips_ms(5)) == 5
    holder = pair.far.holder
    assert holder.pid is not None
    descriptor = os.pidfd_open(holder.pid)
    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    assert select.select([descriptor], [], [], SOON_S)[0]
    os.close(descriptor)
    assert holder.poll() == -signal.SIGKILL
    with pytest.raises(HolderGoneError):
        holder.state()
    assert pair.round_trips_ms(5, timeout_ms=300.0) == []
    pair.far.keeper.call(holder.start)
    assert pair.state().latency_ms == 10.0  # as it was told last
    back = pair.round_trips_ms(5)
    assert len(back) == 5
    assert min(back) >= 10.0


def test_an_answer_that_came_too_late_is_not_taken_for_the_next(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder = pair.far.holder
    assert holder.pid is not None
    os.kill(holder.pid, signal.SIGSTOP)
    with monkeypatch.context() as impatient:
        impatient.setattr(hold, "ANSWER_TIMEOUT_S", 0.05)
        with pytest.raises(HolderGoneError, match="does not answer"):
            holder.state()
    os.kill(holder.pid, signal.SIGCONT)
    assert pair.hold(Shape(latency_ms=7.0)).latency_ms == 7.0


def test_a_change_loses_nothing_of_thousands_that_are_held(pair: Pair) -> None:
    pair.hold(Shape(latency_ms=1500.0))
    with pair.received() as received:
        pair.send(range(3000))
        assert pair.hold(Shape(latency_ms=5.0)).held == 3000
        pair.send(range(3000, 3100))
    assert received.result() == list(range(3100))


def test_a_peer_that_is_shaped_no_more_is_not_queued(pair: Pair) -> None:
    pair.hold(Shape(latency_ms=5000.0))
    with pair.received() as received:
        pair.send(range(100))
        pair.far.iptables("-D", pair.near.address)
        table = LinkTable(pair.far.name, pair.far.address, SUBNET, None, None, ())
        assert pair.far.holder.apply(table, {}).links == ()
        assert pair.far.keeper.call(nfqueue.counts) == {}
        pair.send(range(100, 200))
    assert sorted(received.result()) == list(range(200))  # those held went at once
    pair.far.iptables("-A", pair.near.address)


def test_holding_costs_next_to_nothing_while_nothing_is_due(pair: Pair) -> None:
    """Also beside a link without latency, whose packets must be seen as soon as they come."""
    links = tuple(
        PeerLinks(name, address, Shape(), shape)
        for name, address, shape in (
            (pair.near.name, pair.near.address, Shape(latency_ms=60_000.0)),
            ("other", "10.77.46.9", Shape(loss=0.1)),
        )
    )
    table = LinkTable(pair.far.name, pair.far.address, SUBNET, None, None, links)
    pair.far.holder.apply(table, {pair.near.name: QUEUE, "other": QUEUE + 1})
    pair.send(range(5))
    before, began = processor_s(pair.far.holder), time.monotonic()
    with pair.received() as received:
        pass
    assert received.result() == []
    assert pair.state().held == 5
    assert processor_s(pair.far.holder) - before < 0.1 * (time.monotonic() - began)


def test_a_holder_bears_its_name_and_says_how_it_wakes_now(pair: Pair) -> None:
    holder = pair.far.holder
    pair.hold(Shape(latency_ms=5.0))
    assert holder.pid is not None
    assert Path(f"/proc/{holder.pid}/comm").read_text() == f"{HOLDER_NAME}\n"
    may_come_first = os.sched_getscheduler(holder.pid) == os.SCHED_FIFO
    assert (holder.state().waking == "first") == may_come_first
    os.sched_setscheduler(holder.pid, os.SCHED_OTHER, os.sched_param(0))
    assert holder.state().waking != "first"
    raising = threading.Thread(target=raise_until_ended, args=(holder.pid,))
    raising.start()
    if may_come_first:  # else it is told by nobody that it does
        deadline = time.monotonic() + SOON_S
        while holder.state().waking != "first":
            assert time.monotonic() < deadline
    assert raising.is_alive()
    holder.stop()
    raising.join(SOON_S)
    assert not raising.is_alive()


def processor_s(holder: Holder) -> float:
    stat = Path(f"/proc/{holder.pid}/stat").read_text()
    fields = stat[stat.rindex(")") + 2 :].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a_queue_that_is_taken_is_refused_with_its_reason(pair: Pair) -> None:
    second = Holder(pair.far.log)
    pair.far.keeper.call(second.start)
    links = (PeerLinks(pair.near.name, pair.near.address, Shape(), Shape(latency_ms=5.0)),)
    table = LinkTable(pair.far.name, pair.far.address, SUBNET, None, None, links)
    try:
        with pytest.raises(ShoalError, match=f"packet queue {QUEUE}: (.|\n)*nobody else"):
            second.apply(table, {pair.near.name: QUEUE})
    finally:
        second.stop()


def test_what_does_not_fit_into_a_queue_is_counted(pair: Pair) -> None:
    pair.hold(Shape(latency_ms=60_000.0))
    count = 70_000
    pair.send(range(count))
    deadline = time.monotonic() + SOON_S
    while (state := pair.state()).held + state.overflowed < count and time.monotonic() < deadline:
        pass  # it takes in what the kernel has for it before it answers again
    assert state.overflowed > 0
    assert state.held + state.overflowed == count


def test_a_holder_ends_with_its_parent(nodes: tuple[Node, Node]) -> None:
    read, write = os.pipe()
    keeper = NodeThread(nodes[0].name)

    def parent() -> int:
        holder = Holder()
        holder.start()
        os.write(write, f"{holder.pid}\n".encode())
        signal.pause()
        return 0

    child = keeper.call(fork, parent)
    holder_pid = int(os.read(read, 100))
    descriptor = os.pidfd_open(holder_pid)
    assert child.signal(signal.SIGKILL)
    os.waitpid(child.pid, 0)
    assert select.select([descriptor], [], [], SOON_S)[0]
    for one in (descriptor, read, write):
        os.close(one)
    keeper.close()
