"""What happens to each packet of a link: when it is let through, and whether it is lost or damaged. Pure.

Random numbers are drawn per link, from a generator seeded with the plan's seed and both names, so that
neither another link's packets nor another node change them.
"""

from __future__ import annotations

import dataclasses
import math
from bisect import bisect_right
from collections.abc import Callable
from random import Random
from typing import Final

from node.contract.links import Shape, TracePoint

PASS: Final = 0
LOSE: Final = 1
CORRUPT: Final = 2
DOUBLE: Final = 4  # flags: a packet may be corrupted and doubled

NS_PER_MS: Final = 1_000_000
NS_PER_S: Final = 1_000_000_000
NEVER_NS: Final = 1 << 62
LEAST_TOLERANCE_MS: Final = 1.0
TOLERANCE_SHARE: Final = 0.02  # of the latency
PARETO_POWER: Final = 3.0  # as in iproute2's table; mean 3/2, variance 3/4
LONGEST_RUN: Final = 1e18  # packets; a share may be as small as numbers go
FAR_JITTER: Final = 4.0  # standard deviations; what is beyond is rare enough for what asks


def link_random(seed: int, node: str, peer: str) -> Random:
    """The generator of one incoming link of `node`."""
    return Random(f"{seed}/{node}/{peer}")


def is_held(shape: Shape) -> bool:
    """Whether anything of an incoming link needs the holder; a rate does not."""
    return any(
        (
            shape.latency_ms,
            shape.jitter_ms,
            shape.loss,
            shape.duplicate,
            shape.corrupt,
            *(point.latency_ms or point.loss for point in shape.trace),
        )
    )


def impossible(shape: Shape) -> str | None:
    """Why no packet stream can have this shape; None when it can."""
    losses = [shape.loss, *(point.loss for point in shape.trace if point.loss is not None)]
    if shape.loss_burst > 1.0:
        for loss in losses:
            if loss < 1.0 and loss / (1.0 - loss) > shape.loss_burst:
                least = loss / (1.0 - loss)
                burst = shape.loss_burst
                return f"a loss of {loss:.4g} comes in bursts of {least:.4g} at least, not {burst:.4g}"
    return None


def tolerance_ms(latency_ms: float) -> float:
    """How late a packet may be let through."""
    return max(LEAST_TOLERANCE_MS, TOLERANCE_SHARE * latency_ms)


def trace_period_s(trace: tuple[TracePoint, ...]) -> float:
    """What a repeating trace takes: its last step lasts as long as the one before it."""
    return 2 * trace[-1].at_s - trace[-2].at_s if len(trace) > 1 else math.inf


def shape_at(shape: Shape, elapsed_s: float) -> tuple[Shape, float]:
    """The shape without its trace, as it is so long after the trace began; and when it changes next."""
    if not shape.trace:
        return shape, math.inf
    period_s = trace_period_s(shape.trace) if shape.trace_repeats else math.inf
    turns = math.floor(elapsed_s / period_s) if elapsed_s > 0 and period_s < math.inf else 0
    began_s = turns * period_s if turns else 0.0
    after = bisect_right([point.at_s for point in shape.trace], elapsed_s - began_s)
    last_s = began_s + period_s if period_s < math.inf else math.inf
    until_s = began_s + shape.trace[after].at_s if after < len(shape.trace) else last_s
    point = shape.trace[max(0, after - 1)]
    now = dataclasses.replace(
        shape,
        trace=(),
        latency_ms=shape.latency_ms if point.latency_ms is None else point.latency_ms,
        rate_bit_s=shape.rate_bit_s if point.rate_bit_s is None else point.rate_bit_s,
        loss=shape.loss if point.loss is None else point.loss,
    )
    return now, until_s


class Runs:
    """Which packets are hit: a chain of two states, so that all runs have geometric lengths.

    The share is exact in the long run whatever the mean length; without one, packets are independent.
    """

    def __init__(self, random: Random, share: float, mean_length: float | None = None) -> None:
        self._random = random
        self._certain = share <= 0.0 or share >= 1.0
        self._hit = share >= 1.0
        if self._certain:
            return
        self._leave = 1.0 - share if mean_length is None else 1.0 / mean_length
        self._enter = min(1.0, share * self._leave / (1.0 - share))
        self._hit = random.random() < share
        self._left = self._length()

    def hit(self) -> bool:
        """Whether the next packet is hit."""
        if self._certain:
            return self._hit
        if self._left == 0:
            self._hit = not self._hit
            self._left = self._length()
        self._left -= 1
        return self._hit

    def _length(self) -> int:
        end = self._leave if self._hit else self._enter
        if end >= 1.0:
            return 1
        return 1 + int(min(LONGEST_RUN, math.log(1.0 - self._random.random()) / math.log1p(-end)))


def jitter_sampler(shape: Shape, random: Random) -> Callable[[], float]:
    """Deviations from the latency, in units of `jitter_ms`."""
    if shape.jitter_kind == "normal":
        return lambda: random.gauss(0.0, 1.0)
    if shape.jitter_kind == "pareto":
        return lambda: (random.paretovariate(PARETO_POWER) - 1.5) / math.sqrt(0.75)
    table = shape.jitter_table

    def between() -> float:
        place = random.random() * (len(table) - 1)
        low = int(place)
        high = min(low + 1, len(table) - 1)
        return table[low] + (place - low) * (table[high] - table[low])

    return between


def floor_ns(shape: Shape) -> int:
    """The delay that hardly any packet of this link falls below."""
    if shape.reorder:
        return 0
    latencies = [point.latency_ms for point in shape.trace if point.latency_ms is not None]
    least_ms = min([shape.latency_ms, *latencies])
    if shape.jitter_ms:
        lowest = min(shape.jitter_table) if shape.jitter_kind == "table" else -FAR_JITTER
        least_ms += lowest * shape.jitter_ms
    return max(0, int(least_ms * NS_PER_MS))


class Law:
    """What becomes of the packets of one incoming link, in the order of their arrival."""

    def __init__(self, shape: Shape, random: Random, traces_began_ns: int = 0) -> None:
        self._whole = shape
        self._random = random
        self._began_ns = traces_began_ns
        self._last_due_ns = 0
        self._take(shape_at(shape, 0.0)[0], NEVER_NS if not shape.trace else -NEVER_NS)

    def follow(self, before: Law) -> None:
        """Never overtake what an earlier law of this link still holds."""
        self._last_due_ns = before._last_due_ns

    def _take(self, now: Shape, until_ns: int) -> None:
        self.now = now  # what is in force
        self._until_ns = until_ns
        self.tolerance_ns = int(tolerance_ms(now.latency_ms) * NS_PER_MS)
        self._latency_ns = round(now.latency_ms * NS_PER_MS)
        self._jitter_ns = now.jitter_ms * NS_PER_MS
        self._sample = jitter_sampler(now, self._random) if now.jitter_ms else None
        burst = now.loss_burst if now.loss_burst > 1.0 else None
        self._loss = Runs(self._random, now.loss, burst) if now.loss else None
        self._corrupt = Runs(self._random, now.corrupt) if now.corrupt else None
        self._double = Runs(self._random, now.duplicate) if now.duplicate else None
        self._reorder = Runs(self._random, now.reorder) if now.reorder else None
        self._is_plain = not (self._loss or self._corrupt or self._double or self._reorder or self._sample)

    def catch_up(self, now_ns: int) -> None:
        """Follow the trace to this moment."""
        if now_ns >= self._until_ns:
            now, until_s = shape_at(self._whole, (now_ns - self._began_ns) / NS_PER_S)
            until_ns = NEVER_NS if until_s == math.inf else self._began_ns + round(until_s * NS_PER_S)
            self._take(now, until_ns)

    def next(self, arrival_ns: int) -> tuple[int, int]:
        """The next packet's release time and its fate."""
        if arrival_ns >= self._until_ns:
            self.catch_up(arrival_ns)
        if self._is_plain:
            due_ns = arrival_ns + self._latency_ns
            if self._whole.in_order:
                if due_ns < self._last_due_ns:
                    return self._last_due_ns, PASS
                self._last_due_ns = due_ns
            return due_ns, PASS
        return self._next_of_many(arrival_ns)

    def _next_of_many(self, arrival_ns: int) -> tuple[int, int]:
        if self._loss is not None and self._loss.hit():
            # Nobody sees when; then it costs least, and it must not hold up those behind it.
            return max(arrival_ns, self._last_due_ns), LOSE
        fate = PASS
        if self._corrupt is not None and self._corrupt.hit():
            fate |= CORRUPT
        if self._double is not None and self._double.hit():
            fate |= DOUBLE
        if self._reorder is not None and self._reorder.hit():
            return arrival_ns, fate
        delay_ns = self._latency_ns
        if self._sample is not None:
            delay_ns = max(0, delay_ns + int(self._jitter_ns * self._sample()))
        due_ns = arrival_ns + delay_ns
        if self._whole.in_order:
            due_ns = self._last_due_ns = max(due_ns, self._last_due_ns)
        return due_ns, fate


def damaged(packet: bytes, random: Random) -> bytes:
    """The IPv4 packet with one bit behind its IP header turned over: any checksum there must fail."""
    header = (packet[0] & 0x0F) * 4
    if len(packet) <= header:
        return packet
    place = random.randrange(header, len(packet))
    spoilt = bytearray(packet)
    spoilt[place] ^= 1 << random.randrange(8)
    return bytes(spoilt)
