"""Nodes whose links are told and asked by their owner, and what passes between them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import pytest

from node.contract.links import Cut, CutDone, InForce, LinkTable, PeerLinks, Shape
from node.links.owner import Links
from node.links.probes import Probes
from node.namespace import enter
from orchestrator.boxes.box import Node

T = TypeVar("T")
SUBNET = "10.77.40.0/24"
WAIT_S = 120.0
NONCE = "cd" * 8
IS_SLOW = os.environ.get("SHOAL_SLOW_GUEST") == "1"  # an emulated processor: what it carries is little
RATE_TRIES = 3
FREE = Shape()


class Side:
    """A node, the owner of its links, and probes; all by threads that are in it."""

    def __init__(self, node: Node, folder: Path, delay_engine: Any) -> None:
        self.name, self.address, self.node = node.name, node.address("data"), node
        self.folder, self.engine = folder, delay_engine
        self._main = ThreadPoolExecutor(1, initializer=enter, initargs=(node.name,))
        self._others = ThreadPoolExecutor(4, initializer=enter, initargs=(node.name,))
        self._probes = Probes(self.address)
        self.links = Links(self.name, folder, delay_engine)

    def begin(self, function: Callable[..., T], *arguments: Any) -> Future[T]:
        return self._main.submit(function, *arguments)

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        return self.begin(function, *arguments).result(WAIT_S)

    def cut(self, cut: Cut, at_mono_ns: int = 0) -> CutDone:
        done: CutDone = self.call(asyncio.run, self.links.cut(cut, at_mono_ns))
        return done

    def heal(self, fault: str, at_mono_ns: int = 0) -> CutDone:
        done: CutDone = self.call(asyncio.run, self.links.heal(fault, at_mono_ns))
        return done

    def ask(self, do: str, **fields: Any) -> dict[str, Any]:
        return vars(self._others.submit(self._probes.make, {"do": do, **fields}).result(WAIT_S))

    def run(self, command: str) -> str:
        return self.node.run(["sh", "-ec", command], timeout_s=WAIT_S).stdout

    def rtt_ms(self, peer: Side, count: int = 10) -> tuple[float, ...]:
        times: tuple[float, ...] = self.ask("echo", peer_address=peer.address, count=count, interval_ms=5)[
            "rtt_ms"
        ]
        return times

    def hears(self, peer: Side) -> bool:
        """Whether a packet from the peer comes in; nothing is said of the other direction."""
        sink = self.ask("open", carrier="udp", nonce=NONCE)
        peer.ask(
            "send",
            carrier="udp",
            nonce=NONCE,
            peer_address=self.address,
            port=sink["port"],
            packets=5,
            packets_per_s=200,
        )
        return bool(self.ask("close", sink=sink["sink"], expected=5, wait_ms=400)["packets"])

    def restart(self) -> None:
        """As an agent that was killed, and another that comes after it."""
        self.call(self.links.close)
        self.links = Links(self.name, self.folder, self.engine)


def table(side: Side, peers: dict[Side, tuple[Shape, Shape]], **more: Any) -> LinkTable:
    return LinkTable(
        node=side.name,
        address=side.address,
        subnet=SUBNET,
        up_bit_s=more.pop("up_bit_s", None),
        down_bit_s=more.pop("down_bit_s", None),
        peers=tuple(PeerLinks(p.name, p.address, out, into) for p, (out, into) in peers.items()),
        **more,
    )


def put(sides: tuple[Side, Side, Side], out: Shape = FREE, into: Shape = FREE, **more: Any) -> InForce:
    """Shape the links between the first and the second node, as seen from the first; the third is left alone."""
    a, b, c = sides
    wanted = {
        a: table(a, {b: (out, into), c: (FREE, FREE)}, **more),
        b: table(b, {a: (into, out), c: (FREE, FREE)}),
    }
    left_alone = table(c, {a: (FREE, FREE), b: (FREE, FREE)})
    if c.links.table != left_alone:  # a table takes more than a second on an emulated processor
        wanted[c] = left_alone
    begun = []
    for side, asked in wanted.items():
        begun.append(side.begin(side.links.apply, asked))
        if side.engine == "hold":  # its holder is a fork, which must find no lock held by another thread
            begun[-1].result(WAIT_S)
    answer, *_ = [one.result(WAIT_S) for one in begun]
    return answer


def bit_s(a: Side, b: Side, window_s: float = 1.0) -> float:
    """One stream from a to b: payload per second, as it arrives."""
    sink = b.ask("open", carrier="tcp", nonce=NONCE, warm_up_s=0.5, window_s=window_s)
    a.ask("send", carrier="tcp", nonce=NONCE, peer_address=b.address, port=sink["port"], lasts_s=30)
    told = b.ask("close", sink=sink["sink"], wait_ms=20_000)
    assert isinstance(told["rate_bytes"], int)
    return told["rate_bytes"] * 8 / float(told["rate_s"])


def goodput(rate_bit_s: float) -> Any:
    """An emulated processor's timers are late by more than a packet's time, and what was not sent then is lost."""
    return pytest.approx(rate_bit_s * 1448 / 1514, rel=0.15 if IS_SLOW else 0.05)


def is_soon(condition: Callable[[], bool]) -> bool:
    """Whether it comes true within some tries; other users of the machine may spoil the first."""
    return any(condition() for _ in range(RATE_TRIES))
