"""Measure the holder, between two nodes of a box: python -m orchestrator.boxes.box run -- python -m tests.bench.hold

Exact round trips idle and with both processors busy, TCP through it, and what processor time that costs.
Writes runs/bench/hold.json.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import signal
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from node.contract.links import LinkTable, PeerLinks, Shape
from node.fork import fork
from node.links.hold import Holder
from node.namespace import NodeThread
from node.process import ProcessId
from orchestrator.boxes.box import Box, Node
from tests.bench.figures import Figure, show

RESULT = Path("runs/bench/hold.json")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PIECE = 1 << 17
PORT = 5201
WARM_UP_S = 1.5
ECHO_BYTES = 64


class End:
    """A node with a holder for what comes from the other."""

    def __init__(self, node: Node, other: Node) -> None:
        self.node, self.other = node, other
        self.address = node.address("data")
        self.thread = NodeThread(node.name)
        self.holder = Holder()
        self.thread.call(self.holder.start)
        node.run(["ip", "link", "set", "data", "gso_max_segs", "1"], timeout_s=10)

    def hold(self, shape: Shape) -> None:
        address = self.other.address("data")
        links = PeerLinks(self.other.name, address, Shape(), shape)
        table = LinkTable(self.node.name, self.address, "10.77.0.0/24", None, None, (links,))
        self.holder.apply(table, {self.other.name: 1})
        rule = ["INPUT", "-i", "data", "-s", address, "-j", "NFQUEUE", "--queue-num", "1"]
        if self.node.run(["iptables", "-t", "mangle", "-C", *rule], timeout_s=10, check=False).status:
            self.node.run(["iptables", "-t", "mangle", "-A", *rule], timeout_s=10)

    def processor_s(self) -> float:
        """What the holder has used, its share of the kernel's work on the packets it let through included."""
        assert self.holder.pid is not None
        text = Path(f"/proc/{self.holder.pid}/stat").read_text()
        fields = text[text.rindex(")") + 2 :].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_S

    def private_mib(self) -> float:
        text = Path(f"/proc/{self.holder.pid}/smaps_rollup").read_text()
        return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Private_")) / 1024

    def in_child(self, job: object) -> ProcessId:
        assert callable(job)
        return self.thread.call(fork, job)


def two_ends() -> tuple[End, End]:
    box = Box.current()
    box.add_bridge("data")
    one = box.add_node("one", {"data": "10.77.0.1/24"})
    two = box.add_node("two", {"data": "10.77.0.2/24"})
    return End(one, two), End(two, one)


@contextlib.contextmanager
def busy_processors(count: int) -> Iterator[None]:
    """As many processes that compute without end."""

    def work() -> int:
        total = 0
        for number in itertools.count():
            total += number * number % 7
        return 0

    # From this thread: a child ends with the thread that forked it.
    children = [fork(work) for _ in range(count)]
    try:
        yield
    finally:
        for child in children:
            child.signal(signal.SIGKILL)
            os.waitpid(child.pid, 0)


class Echo:
    """UDP that comes back: timed by the sender's own clock, since `ping` takes the stamp before the holder."""

    def __init__(self, server: End, client: End) -> None:
        def answer() -> int:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
                link.bind((server.address, PORT))
                while True:
                    data, where = link.recvfrom(2048)
                    link.sendto(data, where)

        self.child = server.in_child(answer)
        self.server, self.client = server, client

    def round_trips_ms(self, count: int, interval_s: float) -> list[float]:
        def measure() -> list[float]:
            found = []
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
                link.settimeout(2.0)
                link.connect((self.server.address, PORT))
                for number in range(count):
                    began = time.perf_counter()
                    link.send(number.to_bytes(4, "big").ljust(ECHO_BYTES))
                    with contextlib.suppress(TimeoutError, ConnectionRefusedError):
                        while int.from_bytes(link.recv(2048)[:4], "big") != number:
                            pass
                        found.append((time.perf_counter() - began) * 1000)
                    time.sleep(interval_s)
            return found

        return self.client.thread.call(measure)

    def end(self) -> None:
        self.child.signal(signal.SIGKILL)
        os.waitpid(self.child.pid, 0)


def stream(sender: End, receiver: End, seconds: float, streams: int) -> tuple[float, float]:
    """TCP for so long: Mbit/s of payload, and the seconds of processor time of both holders in each second."""
    listener = receiver.thread.call(lambda: socket.create_server((receiver.address, PORT + 1), backlog=64))
    stop = threading.Event()

    def send() -> int:
        links = [socket.create_connection((receiver.address, PORT + 1), 10) for _ in range(streams)]
        piece = bytes(PIECE)

        def push(link: socket.socket) -> None:
            with contextlib.suppress(OSError):
                while True:
                    link.sendall(piece)

        threads = [threading.Thread(target=push, args=(link,)) for link in links]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return 0

    child = sender.in_child(send)
    received = [0] * streams

    def take(number: int, link: socket.socket) -> None:
        room = bytearray(PIECE)
        while not stop.is_set():
            received[number] += link.recv_into(room)

    accepted = [listener.accept()[0] for _ in range(streams)]
    takers = [threading.Thread(target=take, args=pair) for pair in enumerate(accepted)]
    for taker in takers:
        taker.start()
    time.sleep(WARM_UP_S)
    begin, bytes_before = time.perf_counter(), sum(received)
    used_before = sender.processor_s() + receiver.processor_s()
    time.sleep(seconds)
    took, got = time.perf_counter() - begin, sum(received) - bytes_before
    used = sender.processor_s() + receiver.processor_s() - used_before
    stop.set()
    for taker in takers:
        taker.join()
    child.signal(signal.SIGKILL)
    os.waitpid(child.pid, 0)
    for link in (*accepted, listener):
        link.close()
    return got * 8 / took / 1e6, used / took


def late_share(ends: tuple[End, End], before: tuple[int, int]) -> float:
    beyond, packets = lateness(ends)
    return 100 * (beyond - before[0]) / max(1, packets - before[1])


def lateness(ends: tuple[End, End]) -> tuple[int, int]:
    states = [end.holder.state().lateness for end in ends]
    return sum(state.beyond_tolerance for state in states), sum(state.packets for state in states)


def echoes(ends: tuple[End, End], quick: bool) -> Iterator[Figure]:
    """Exact round trips, idle and busy."""
    one, two = ends
    count = 40 if quick else 200
    echo = Echo(two, one)
    for busy in (0, 2):
        for latency in (1, 5, 20, 50, 200):
            for end in ends:
                end.hold(Shape(latency_ms=latency))
            with busy_processors(busy):
                before = lateness(ends)
                asked = count // 4 if latency > 50 else count
                got = sorted(echo.round_trips_ms(asked, 0.003))
                share = late_share(ends, before)
            name = f"round trip, {latency} ms each way, {'busy' if busy else 'idle'}"
            how = f"{asked} UDP echoes, median less the {2 * latency} ms asked; {busy} busy processes"
            yield Figure(f"{name}: too long by", statistics.median(got) - 2 * latency, "ms", None, how)
            yield Figure(f"{name}: p99", got[int(len(got) * 0.99)] - 2 * latency, "ms", None, how)
            yield Figure(f"{name}: beyond tolerance", share, "%", 5.0 if not busy else None, "by the holders")
    echo.end()


def streams(ends: tuple[End, End], quick: bool) -> Iterator[Figure]:
    """TCP through the holders, and what that costs."""
    one, two = ends
    for rate in ("20mbit", "100mbit", None):
        for end in ends:
            end.node.run(["sh", "-c", "tc qdisc del dev data root 2>/dev/null; true"], timeout_s=10)
            if rate:
                text = f"tc qdisc add dev data root handle 1: htb default 1 && tc class add dev data parent 1: classid 1:1 htb rate {rate} quantum 1514"
                end.node.run(["sh", "-c", text], timeout_s=10)
        for latency in (5, 50, 100):
            for end in ends:
                end.hold(Shape(latency_ms=latency))
            before = lateness(ends)
            rate_mbit_s, used = stream(one, two, 2.0 if quick else 5.0, 4)
            name = f"TCP at {rate or 'full speed'}, {latency} ms each way"
            how = "4 streams, payload; processor time of both holders, user and system"
            yield Figure(f"{name}", rate_mbit_s, "Mbit/s", None, how)
            yield Figure(f"{name}: cost", used * 1000 / rate_mbit_s, "ms/Mbit", None, how)
            yield Figure(f"{name}: of one processor", used * 100, "%", None, how)
            yield Figure(f"{name}: beyond tolerance", late_share(ends, before), "%", None, "by the holders")
            overflowed = sum(link.overflowed for end in ends for link in end.holder.state().links)
            yield Figure(
                f"{name}: overflowed so far", overflowed, "pkts", None, "the kernel's queue counters"
            )
    yield Figure("memory of one holder", one.private_mib(), "MiB", None, "smaps_rollup, private pages")


PARTS = {"echoes": echoes, "streams": streams}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer echoes, shorter streams")
    parser.add_argument("--only", choices=PARTS, help="one of the parts")
    options = parser.parse_args()
    figures = []
    ends = two_ends()
    for name in [options.only] if options.only else PARTS:
        for figure in PARTS[name](ends, options.quick):
            print(show(figure), flush=True)
            figures.append(figure)
    for end in ends:
        end.holder.stop()
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps([figure.as_json() for figure in figures], indent=1) + "\n")
    return 0 if all(figure.holds for figure in figures) else 1


if __name__ == "__main__":
    raise SystemExit(main())
