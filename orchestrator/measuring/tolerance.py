"""How far a measured figure of a link may lie from the intended one: pure statistics, nothing of a fleet.

Whatever is drawn by lot (loss, jitter) is given the room that chance needs at the asked confidence, exactly;
what is not is given the emulation's tolerance alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from node.contract.plan import LinkPlan

RTT_MS: Final = 1.0
RTT_SHARE: Final = 0.02
GOODPUT_SHARE: Final = 0.03
CONFIDENCE: Final = 0.999  # of the whole calibration
DRAWS: Final = 4000  # echoes that the distribution of a jittery round trip is taken from
BISECTIONS: Final = 40
PARETO_POWER: Final = 3.0  # as both engines have it: mean 3/2, variance 3/4


@dataclass(frozen=True)
class Bounds:
    """What is intended, and between what a measured figure must lie."""

    intended: float
    low: float
    high: float

    def holds(self, measured: float) -> bool:
        return self.low <= measured <= self.high


def doubt(figures: int) -> float:
    """The chance that one right figure of so many may lie outside."""
    return (1.0 - CONFIDENCE) / max(1, figures)


def round_trip(there: LinkPlan, back: LinkPlan, echoes: int, interval_ms: float, alpha: float) -> Bounds:
    """Of the median of so many echoes, in ms."""
    ways = (there, back)
    if not any(way.jitter_ms or way.reorder for way in ways):
        intended = there.latency_ms + back.latency_ms
        room = max(RTT_MS, RTT_SHARE * intended)
        return Bounds(intended, max(0.0, intended - room), intended + room)
    times = drawn_round_trips(there, back, interval_ms)
    share = median_share(echoes, alpha)
    low, intended, high = (quantile(times, q) for q in (share, 0.5, 1.0 - share))
    room = max(RTT_MS, RTT_SHARE * intended)
    return Bounds(intended, max(0.0, low - room), high + room)


def drawn_round_trips(there: LinkPlan, back: LinkPlan, interval_ms: float) -> list[float]:
    """Sorted times of many echoes, by the links' own law: none overtakes where they keep the order."""
    random = Random(0)
    sent = [number * interval_ms for number in range(DRAWS)]
    there_at = passed(there, sent, random)
    order = sorted(range(DRAWS), key=there_at.__getitem__)
    back_at = passed(back, [there_at[number] for number in order], random)
    return sorted(at - sent[number] for number, at in zip(order, back_at, strict=True))


def passed(link: LinkPlan, sent: Sequence[float], random: Random) -> list[float]:
    """When packets arrive that were sent at these times, in this order."""
    found: list[float] = []
    last = 0.0
    for at in sent:
        last = arrival(link, at, last, random)
        found.append(last)
    return found


def arrival(link: LinkPlan, sent: float, last: float, random: Random) -> float:
    if link.reorder and random.random() < link.reorder:
        return sent
    at = sent + max(0.0, link.latency_ms + link.jitter_ms * deviation(link, random))
    return max(at, last) if link.in_order else at


def deviation(link: LinkPlan, random: Random) -> float:
    """From the latency, in units of the jitter."""
    if link.jitter_kind == "normal":
        return random.gauss(0.0, 1.0)
    if link.jitter_kind == "pareto":
        return (random.paretovariate(PARETO_POWER) - 1.5) / math.sqrt(0.75)
    place = random.random() * (len(link.jitter_table) - 1)
    low = int(place)
    high = min(low + 1, len(link.jitter_table) - 1)
    return link.jitter_table[low] + (place - low) * (link.jitter_table[high] - link.jitter_table[low])


def quantile(values: Sequence[float], share: float) -> float:
    return values[min(len(values) - 1, max(0, int(share * len(values))))]


def median_share(count: int, alpha: float) -> float:
    """The largest share of a distribution below which the median of so many draws hardly ever falls."""
    low, high = 0.0, 0.5
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if tail(count, middle, (count + 1) // 2) <= alpha / 2:
            low = middle
        else:
            high = middle
    return low


def share(intended: float, count: int, alpha: float, burst: float = 1.0) -> Bounds:
    """Of a share that was counted over so many packets: what chance leaves room for, exactly binomial."""
    if not 0.0 < intended < 1.0:
        return Bounds(intended, intended, intended)
    size = effective(count, intended, burst)
    low, high = region(size, intended, alpha)
    return Bounds(intended, low / size, high / size)


def effective(count: int, loss: float, burst: float) -> int:
    """How many independent packets say as much as these, lost in runs of this mean length."""
    if burst <= 1.0:
        return count
    stays = 1.0 - 1.0 / burst - loss / (burst * (1.0 - loss))  # autocorrelation of the chain's next packet
    return max(1, min(count, int(count * (1.0 - stays) / (1.0 + stays))))


def region(count: int, chance: float, alpha: float) -> tuple[int, int]:
    """The smallest and the largest number of hits that are not too rare on their side."""
    low, beyond = 0, 0.0
    while low < count and (beyond := beyond + probability(count, chance, low)) <= alpha / 2:
        low += 1
    high, beyond = count, 0.0
    # From the middle upwards would be as good; from the end the first terms are nothing, and cheap to skip.
    high = min(count, math.ceil(count * chance + 12 * math.sqrt(count * chance * (1 - chance)) + 40))
    while high > low and (beyond := beyond + probability(count, chance, high)) <= alpha / 2:
        high -= 1
    return low, high


def tail(count: int, chance: float, least: int) -> float:
    """The probability of at least so many hits."""
    if chance <= 0.0:
        return 0.0 if least else 1.0
    return min(1.0, sum(probability(count, chance, hits) for hits in range(least, count + 1)))


def probability(count: int, chance: float, hits: int) -> float:
    """Of exactly so many hits."""
    log = (
        math.lgamma(count + 1)
        - math.lgamma(hits + 1)
        - math.lgamma(count - hits + 1)
        + hits * math.log(chance)
        + (count - hits) * math.log1p(-chance)
    )
    return math.exp(log)
