"""Probes between two real nodes, over links that the test itself shapes: what they measure is what is there."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from node.contract.probes import TCP_SEGMENT_SHARE, UDP_HEADERS_BYTES
from node.links.probes import Probes
from node.namespace import enter
from orchestrator.boxes.box import Box, Node

NONCE = "ab" * 8
BRIDGE = "probes"
WAIT_S = 60.0


class Port:
    """A listener, which speaks to those who have connected when it is told to."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self.number: int = listener.getsockname()[1]

    def speak(self) -> None:
        """To the one who gave up, and to the next."""
        for _ in range(2):
            link, _ = self._listener.accept()
            with link, suppress(ConnectionError):
                link.sendall(b"here")


class Side:
    """A node and its probes, made by threads that are in it."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.address = node.address(BRIDGE)
        self._probes = Probes(self.address, BRIDGE)
        self._threads = ThreadPoolExecutor(4, initializer=enter, initargs=(node.name,))

    def ask(self, do: str, **fields: Any) -> dict[str, Any]:
        made = self._threads.submit(self._probes.make, {"do": do, **fields}).result(WAIT_S)
        return vars(made)

    @contextmanager
    def listening(self) -> Iterator[Port]:
        opened = self._threads.submit(socket.create_server, (self.address, 0)).result(WAIT_S)
        with opened:
            yield Port(opened)

    def run(self, *commands: str) -> None:
        self.node.run(["sh", "-e"], input_text="\n".join(commands), timeout_s=WAIT_S)


@pytest.fixture(scope="module")
def sides() -> tuple[Side, Side]:
    box = Box.current()
    box.add_bridge(BRIDGE)
    nodes = [box.add_node(f"probe{n}", {BRIDGE: f"10.79.0.{n}/24"}) for n in (1, 2)]
    for node in nodes:
        node.run(["ip", "link", "set", "dev", BRIDGE, "gso_max_segs", "1"], timeout_s=WAIT_S)
    return Side(nodes[0]), Side(nodes[1])


def sent(a: Side, b: Side, packets: int, per_s: float, payload: int = 20, **sink: float) -> dict[str, Any]:
    opened = b.ask("open", carrier="udp", nonce=NONCE, **sink)
    pace = {"packets": packets, "packets_per_s": per_s, "payload_bytes": payload}
    a.ask("send", carrier="udp", nonce=NONCE, peer_address=b.address, port=opened["port"], **pace)
    return b.ask("close", sink=opened["sink"], expected=packets, wait_ms=500)


@contextmanager
def dropping(side: Side, *match: str) -> Iterator[None]:
    rule = f"INPUT -i {BRIDGE} {' '.join(match)} -j DROP"
    side.run(f"iptables -w -A {rule}")
    try:
        yield
    finally:
        side.run(f"iptables -w -D {rule}")


@contextmanager
def limited(side: Side, rate: str) -> Iterator[None]:
    side.run(
        f"tc qdisc add dev {BRIDGE} root handle 1: htb default 1",
        f"tc class add dev {BRIDGE} parent 1: classid 1:1 htb rate {rate} burst 3028 cburst 3028 quantum 1514",
        f"tc qdisc add dev {BRIDGE} parent 1:1 pfifo limit 60",
    )
    try:
        yield
    finally:
        side.run(f"tc qdisc del dev {BRIDGE} root")


def test_echoes_over_an_open_link(sides: tuple[Side, Side]) -> None:
    a, b = sides
    told = a.ask("echo", peer_address=b.address, count=10, interval_ms=1)
    assert told["sent"] == len(told["rtt_ms"]) == 10
    assert min(told["rtt_ms"]) < 5


def test_an_echo_needs_both_directions_and_a_packet_only_one(sides: tuple[Side, Side]) -> None:
    a, b = sides
    with dropping(b):  # b no longer hears a
        assert a.ask("echo", peer_address=b.address, count=3, interval_ms=1, timeout_ms=100)["rtt_ms"] == ()
        assert sent(a, b, 5, 100)["packets"] == 0
        assert sent(b, a, 5, 100)["packets"] == 5


def test_losses_are_counted(sides: tuple[Side, Side]) -> None:
    a, b = sides
    with dropping(b, "-p udp -m statistic --mode nth --every 10 --packet 0"):
        told = sent(a, b, 2000, 4000)
    assert (told["packets"], told["overflowed"]) == (1800, 0)


def test_no_packet_is_lost_on_a_slow_link_when_paced(sides: tuple[Side, Side]) -> None:
    a, b = sides
    with limited(a, "1mbit"):
        assert sent(a, b, 1000, 1500)["packets"] == 1000  # 0.74 of the rate


def test_packets_at_the_rate_of_a_link(sides: tuple[Side, Side]) -> None:
    a, b = sides
    with limited(a, "10mbit"):
        told = sent(a, b, 1200, 1000, payload=1472, warm_up_s=0.2, window_s=0.7)
    bit_s = told["rate_bytes"] / 1472 * (1472 + UDP_HEADERS_BYTES) * 8 / told["rate_s"]
    assert bit_s == pytest.approx(10e6, rel=0.03)


def test_a_stream_at_the_rate_of_a_link(sides: tuple[Side, Side]) -> None:
    a, b = sides
    with limited(a, "10mbit"):
        opened = b.ask("open", carrier="tcp", nonce=NONCE, warm_up_s=0.5, window_s=1.0)
        a.ask("send", carrier="tcp", nonce=NONCE, peer_address=b.address, port=opened["port"], lasts_s=20)
        told = b.ask("close", sink=opened["sink"], wait_ms=5000)
    assert told["rate_bytes"] * 8 / told["rate_s"] == pytest.approx(10e6 * TCP_SEGMENT_SHARE, rel=0.03)


def test_a_knock_tells_who_speaks_who_only_listens_and_who_is_not_there(sides: tuple[Side, Side]) -> None:
    asking, there = sides
    asked = {"peer_address": there.address, "timeout_ms": 500.0}
    with there.listening() as port, ThreadPoolExecutor(1) as one:
        # As of a process that is stopped: the kernel takes the connection.
        assert asking.ask("knock", port=port.number, **asked) == {"answer": "silent"}
        speaking = one.submit(port.speak)
        assert asking.ask("knock", port=port.number, **asked) == {"answer": "spoke"}
        speaking.result(WAIT_S)
    assert asking.ask("knock", port=port.number, **asked) == {"answer": "refused"}
    with dropping(there):
        assert asking.ask("knock", port=port.number, **asked) == {"answer": "silent"}
