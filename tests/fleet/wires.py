"""The links between some nodes, made and cut by the agent's own code: at the receivers, at an instant."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from node.contract.links import Cut, CutDone, LinkTable, PeerLinks, Shape
from node.links import engine
from node.links.owner import Links
from node.namespace import NodeThread
from tests.fleet.lab import Member

AHEAD_S: Final = 0.3  # an instant that all nodes can be told of before it comes
NS_PER_S: Final = 1_000_000_000

Order = Callable[[int], Awaitable[CutDone]]


class Wires:
    """All links alike, each way; whom a cut keeps from whom is told by names."""

    def __init__(self, folder: Path, members: Mapping[str, Member], shape: Shape) -> None:
        self._addresses = {name: member.address for name, member in members.items()}
        self._threads = {name: NodeThread(member.name) for name, member in members.items()}
        self._pool = ThreadPoolExecutor(len(members))
        self._links: dict[str, Links] = {}
        tables = {name: self._table(name, shape) for name in members}
        first = next(iter(self._threads.values()))
        chosen = engine.choose("auto", tables.values(), first.call(engine.probe))
        for name, table in tables.items():  # one after the other: holders are forked
            (folder / f"{name}-links").mkdir()
            self._links[name] = Links(name, folder / f"{name}-links", chosen)
            self._threads[name].call(self._links[name].resume, table)

    def _table(self, name: str, shape: Shape) -> LinkTable:
        own = self._addresses[name]
        peers = tuple(
            PeerLinks(other, address, shape, shape)
            for other, address in self._addresses.items()
            if other != name
        )
        return LinkTable(name, own, own.rsplit(".", 1)[0] + ".0/24", None, None, peers)

    def isolate(self, name: str, *others: str) -> float:
        """Neither hears the other; without others: nobody. The monotonic instant from which on all is cut."""
        others = others or tuple(other for other in self._links if other != name)
        deaf = {name: others, **dict.fromkeys(others, (name,))}
        return self._at_once(
            {one: partial(self._links[one].cut, _dropping(name, who)) for one, who in deaf.items()}
        )

    def heal(self, name: str) -> float:
        """The monotonic instant from which on all hear again what the cut of this name kept from them."""
        return self._at_once({one: partial(links.heal, name) for one, links in self._links.items()})

    def _at_once(self, orders: Mapping[str, Order]) -> float:
        at_ns = time.monotonic_ns() + int(AHEAD_S * NS_PER_S)

        async def follow(order: Order) -> CutDone:
            return await order(at_ns)

        def do(name: str) -> int:
            done = self._threads[name].call(lambda: asyncio.run(follow(orders[name])))
            return done.effective_mono_ns

        return max(self._pool.map(do, orders)) / NS_PER_S

    def close(self) -> None:
        for name, links in self._links.items():
            self._threads[name].call(links.close)
        for thread in self._threads.values():
            thread.close()
        self._pool.shutdown()


def _dropping(fault: str, peers: tuple[str, ...]) -> Cut:
    return Cut(fault, dict.fromkeys(peers, "drop"))


@contextmanager
def wired(folder: Path, members: Mapping[str, Member], shape: Shape | None = None) -> Iterator[Wires]:
    wires = Wires(folder, members, shape or Shape())
    try:
        yield wires
    finally:
        wires.close()
