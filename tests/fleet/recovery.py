"""Measuring how a swarm comes back: after a cut in the middle of a fetch, and after a peer's death.

The cut is made at both receivers, as a loss far away: a drop in the sender's own output would be a local error
to its TCP, which then heals far better than any real link.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from pathlib import Path

from node.ipfs.client import Client
from node.ipfs.engine import Engine
from tests.fleet.lab import DATA, Member, cut, heal, shape, swarm

MIB = 1 << 20
OBJECT_BYTES = 20 * MIB
CUT_AFTER_S = 3.0
MOVING_BYTES = 100_000
REPEATED_BYTES_PER_S = 4 * 1514


class Wire:
    """What a node has received on `data`, noted every few milliseconds.

    Not what a reader of the fetch sees: blocks of 1 MiB come whole and several at once.
    """

    def __init__(self, member: Member) -> None:
        self._ended = threading.Event()
        self.notes: list[tuple[float, int]] = []
        self._watch = member.in_node(self._run)

    def _run(self) -> None:
        while not self._ended.wait(0.01):
            # Of this thread: /sys and /proc/net would show the namespace of the process.
            lines = Path("/proc/thread-self/net/dev").read_text().splitlines()
            received = next(
                line.split(":")[1].split()[0] for line in lines if f" {DATA}:" in f" {line.strip()}"
            )
            self.notes.append((time.monotonic(), int(received)))

    def end(self) -> None:
        self._ended.set()
        self._watch.result()

    def received(self, begin: float, end: float) -> int:
        inside = [count for at, count in self.notes if begin <= at <= end]
        return inside[-1] - inside[0]

    def wait_moved(self, size_bytes: int, timeout_s: float = 30.0) -> None:
        """Until so much has come since the beginning."""
        until_s = time.monotonic() + timeout_s
        while not self.notes or self.notes[-1][1] - self.notes[0][1] < size_bytes:
            assert time.monotonic() < until_s, f"less than {size_bytes} bytes came"
            time.sleep(0.01)

    def moves_after(self, instant: float) -> float:
        """Seconds until so much has come that it can be nothing but blocks."""
        before = next(count for at, count in self.notes if at >= instant)
        return (
            next(at for at, count in self.notes if at >= instant and count - before > MOVING_BYTES) - instant
        )


def cut_in_mid_fetch(engine: Engine, transport: str, cut_s: float) -> float:
    """Fetch 20 MiB over 20 Mbit, cut at 3 s; the seconds from the heal until bytes come again."""
    with swarm(engine, 2, transport=transport) as (provider, fetcher):
        shape(provider, "20mbit")
        shape(fetcher, "20mbit")
        data = os.urandom(OBJECT_BYTES)
        cid = provider.call(lambda client: client.add(data))
        wire = Wire(fetcher)
        # Its stall rule is off: here the daemon alone has to come back.
        fetch = fetcher.begin(
            lambda client: client.fetch(cid, max_bytes=OBJECT_BYTES, stall_s=1000, timeout_s=cut_s + 120)
        )
        begin = time.monotonic()
        wait_until(begin + CUT_AFTER_S)
        cut(provider, fetcher)
        dark = time.monotonic()
        wait_until(dark + cut_s)
        heal(provider, fetcher)
        light = time.monotonic()
        content = fetch.result()
        wire.end()
        assert content == data
        assert MOVING_BYTES < wire.received(begin, dark) < OBJECT_BYTES, "the cut was not in mid-fetch"
        # What the sender repeats arrives at the interface, is dropped behind it, and is little.
        repeated = REPEATED_BYTES_PER_S * cut_s
        assert wire.received(dark + 1, light) < MOVING_BYTES + repeated, "the link was not cut"
        seconds = wire.moves_after(light)
        print(f"{engine.name}, {transport}, cut for {cut_s:g} s: moves again {seconds:.2f} s after the heal")
        return seconds


def wait_until(instant: float) -> None:
    """The scenario's own timetable, not a wait for a condition."""
    time.sleep(max(0.0, instant - time.monotonic()))


def wait_gone(one: Member, other: Member, timeout_s: float = 10.0) -> None:
    async def poll(client: Client) -> bool:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if other.peer.peer_id not in await client.peers():
                return True
            await asyncio.sleep(0.02)
        return False

    assert one.call(poll), f"{one.name} still lists {other.name}"


def restart_after_kill(engine: Engine, transport: str = "prompt") -> float:
    """Kill -9 a peer and start it again; the seconds from its readiness until the other lists it."""
    with swarm(engine, 2, transport=transport) as (one, other):
        other.kill()
        wait_gone(one, other)
        other.start()
        return one.wait_connected(other)
