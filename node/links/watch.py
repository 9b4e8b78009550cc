"""Looks again and again whether a node's links are as they were asked to be, tells where not, and repairs it.

Beside the comparison there is a round trip of real packets: an engine does not vouch for itself.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Mapping
from typing import Any, Final

from node.contract import ShoalError
from node.contract.links import LinkTable, PeerLinks
from node.events import Events
from node.links.leaf import FRAME_BYTES, UNLIMITED_BIT_S, queue_packets, round_trip_ms
from node.links.owner import Links
from node.links.probes import Probes
from node.links.states import Seen

HOLDER_S: Final = 0.25  # its links are dark until it is back
LOOK_S: Final = 5.0
PROBE_S: Final = 10.0
ECHOES: Final = 5
PATIENCE_MS: Final = 1000.0  # beyond the latest that may be: then there is no answer
LEAST_TOO_SOON_MS: Final = 1.0
LEAST_TOO_LATE_MS: Final = 10.0  # whoever asks is a process that waits for a core like others
SHARE_TOO_SOON: Final = 0.02
SHARE_TOO_LATE: Final = 0.05
JITTERS: Final = 4.0
SOONEST_TURN_S: Final = 0.01


class Watch:
    """The watch over one node; without a table it costs nothing."""

    def __init__(self, links: Links, probes: Probes, events: Events) -> None:
        self._links, self._probes, self._events = links, probes, events
        self._changed = asyncio.Event()
        self._turns = itertools.count()
        self.seen: Seen | None = None  # the newest look, for the metrics
        self.mismatches = 0

    def changed(self) -> None:
        """The links were told something new."""
        self._changed.set()

    async def run(self) -> None:
        while self._links.table is None:
            await self._changed.wait()
            self._changed.clear()
        await asyncio.gather(self._watch(), self._probe(), self._follow_traces())

    async def _watch(self) -> None:
        looked_s = time.monotonic()
        is_right = self._look()
        while True:
            await asyncio.sleep(HOLDER_S)
            is_dark = is_right and self._links.holder_ended() is not None  # what does not help is not hurried
            if is_dark or time.monotonic() - looked_s >= LOOK_S:
                is_right = self._look()
                looked_s = time.monotonic()

    def _look(self) -> bool:
        """Compare, and repair what differs; whether all is as asked then."""
        table = self._links.table
        if table is None or not (has_any_shape(table) or self._links.is_cut):
            return True
        try:
            self.seen = self._links.see()
            if said := self._links.differences(self.seen):
                self.mismatches += len(said)
                self._links.repair(self.seen)
                self.seen = self._links.see()
                is_repaired = not self._links.differences(self.seen)
                self._tell("; ".join(said), repaired=is_repaired)
                return is_repaired
        except ShoalError as error:  # what cannot be read is not known to be right
            self._tell(f"the links cannot be read or repaired: {error.message}", repaired=False)
            return False
        return True

    def _tell(self, said: str, *, repaired: bool) -> None:
        self._events.write("link_mismatch", said=said, repaired=repaired, in_fault=self._links.is_cut)

    async def _probe(self) -> None:
        while True:
            await asyncio.sleep(PROBE_S)
            table = self._links.table
            peers = [links for links in table.peers if links.peer not in self._links.deaf_to] if table else []
            if table is None or not peers or not has_any_shape(table):
                continue
            links = peers[next(self._turns) % len(peers)]
            asked = {
                "do": "echo",
                "peer_address": links.address,
                "count": ECHOES,
                "interval_ms": 20,
                "timeout_ms": PATIENCE_MS + expected_ms(table, links)[1],
            }
            answer = await self._probes.answer(asked)
            if self._links.table is table and links.peer not in self._links.deaf_to:
                self._tell_round_trip(table, links, answer)

    def _tell_round_trip(self, table: LinkTable, links: PeerLinks, answer: Mapping[str, Any]) -> None:
        times_ms = answer.get("rtt_ms", ())
        least_ms = min(times_ms) if times_ms else None
        earliest_ms, latest_ms = expected_ms(table, links)
        outside = least_ms is not None and not earliest_ms <= least_ms <= latest_ms
        self._events.write(
            "link_probed",
            peer=links.peer,
            rtt_ms=least_ms,
            intended_ms=round_trip_ms(links),
            outside=outside and not links.out.trace and not links.into.trace,
        )

    async def _follow_traces(self) -> None:
        while True:
            self._changed.clear()
            try:
                left_s = self._links.follow_traces()
            except ShoalError as error:
                self._tell(f"a trace cannot be followed: {error.message}", repaired=False)
                left_s = LOOK_S
            timeout_s = None if left_s == float("inf") else max(left_s, SOONEST_TURN_S)
            try:
                await asyncio.wait_for(self._changed.wait(), timeout_s)
            except TimeoutError:
                continue


def expected_ms(table: LinkTable, links: PeerLinks) -> tuple[float, float]:
    """Between what the least of some round trips must be; full queues are none of the engine's fault."""
    intended_ms = round_trip_ms(links)
    spread_ms = JITTERS * (links.out.jitter_ms + links.into.jitter_ms)
    too_soon_ms = max(LEAST_TOO_SOON_MS, SHARE_TOO_SOON * intended_ms) + spread_ms
    too_late_ms = max(LEAST_TOO_LATE_MS, SHARE_TOO_LATE * intended_ms) + spread_ms
    queues_ms = sum(
        _queue_ms(rate_bit_s, intended_ms)
        for rate_bit_s in (links.out.rate_bit_s, links.into.rate_bit_s, table.up_bit_s, table.down_bit_s)
    )
    soonest_ms = 0.0 if links.out.reorder or links.into.reorder else intended_ms - too_soon_ms
    return soonest_ms, intended_ms + too_late_ms + queues_ms + links.shared_queues_ms


def has_any_shape(table: LinkTable) -> bool:
    """Whether there is anything to be wrong about."""
    shapes = [shape for links in table.peers for shape in (links.out, links.into)]
    asked = (table.up_bit_s, table.down_bit_s, *(links.via for links in table.peers))
    return any(asked) or any(shape != type(shape)() for shape in shapes)


def _queue_ms(rate_bit_s: int | None, intended_ms: float) -> float:
    """What a full queue of that rate takes."""
    if rate_bit_s is None or rate_bit_s >= UNLIMITED_BIT_S:
        return 0.0
    return queue_packets(rate_bit_s, intended_ms) * FRAME_BYTES * 8 / rate_bit_s * 1000
