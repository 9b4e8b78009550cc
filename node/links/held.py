"""The packets of one link that are held back, and how late they were let through. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from heapq import heappop, heappush
from typing import Final

from node.contract.links import Lateness
from node.links.delays import LEAST_TOLERANCE_MS, LOSE, NS_PER_MS, PASS

EDGES_MS: Final = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0)

Packet = tuple[
    int, int, int, bytes | None
]  # when it is due, its number, its fate, its bytes if they are needed


class Line:
    """What is held of one link, in two parts.

    `_line` holds those that are due no sooner than the one before: one verdict lets many of them through.
    `_loose` holds the overtakers. When the line is released up to some number, all overtakers below that
    number are due as well: each of them was due sooner than the line's end at its arrival.
    """

    def __init__(self) -> None:
        self._line: deque[Packet] = deque()
        self._loose: list[Packet] = []
        self._end_ns = 0

    def __len__(self) -> int:
        return len(self._line) + len(self._loose)

    def put(self, packet: Packet) -> None:
        if packet[0] >= self._end_ns or not self._line:
            self._end_ns = packet[0]
            self._line.append(packet)
        else:
            heappush(self._loose, packet)

    def first_due_ns(self) -> int | None:
        """When something is to be let through next."""
        if self._loose and self._loose[0][0] < self._line[0][0]:
            return self._loose[0][0]
        return self._line[0][0] if self._line else None

    def take(self, now_ns: int) -> tuple[list[Packet], list[Packet]]:
        """Those that are due: the overtakers, of which each needs a verdict, and those in line."""
        loose = []
        while self._loose and self._loose[0][0] <= now_ns:
            loose.append(heappop(self._loose))
        line, taken = self._line, []
        while line and line[0][0] <= now_ns:
            taken.append(line.popleft())
        return loose, taken


class LatenessCount:
    """A histogram of how late packets were let through."""

    def __init__(self) -> None:
        self._edges_ns = [round(edge * NS_PER_MS) for edge in EDGES_MS]
        self._counts = [0] * (len(EDGES_MS) + 1)
        self._beyond = 0

    def note(self, packets: Sequence[Packet], now_ns: int, tolerance_ns: int) -> int:
        """Count those that were let through by now; returns how many. What was lost is not late."""
        counts, edges_ns, count = self._counts, self._edges_ns, 0
        for due_ns, _, fate, _ in packets:
            if fate == PASS or not fate & LOSE:
                late_ns = now_ns - due_ns
                counts[bisect_left(edges_ns, late_ns)] += 1
                count += 1
                if late_ns > tolerance_ns:
                    self._beyond += 1
        return count

    def read(self) -> Lateness:
        """The tolerance that is named is the least; each packet is judged by its own link's."""
        return Lateness(EDGES_MS, tuple(self._counts), LEAST_TOLERANCE_MS, self._beyond, sum(self._counts))
