"""The queue of a class: a short pfifo, or netem where the kernel has it. Pure.

A queue is 100 ms of its rate, or one round trip of the link where that is longer, so that TCP fills the link
and nothing waits for seconds. netem counts what is merely under way into the same limit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from node.contract.links import DelayEngine, LinkTable, PeerLinks, Shape
from node.links import jitter

FRAME_BYTES: Final = 1514
UNLIMITED_BIT_S: Final = 100_000_000_000
QUEUE_S: Final = 0.1
FEWEST_PACKETS: Final = 20  # two initial windows of TCP
MOST_PACKETS: Final = 20_000
UNLIMITED_PACKETS: Final = 1000
FEWEST_DELAYED: Final = 100
MOST_DELAYED: Final = 1_000_000
IN_ORDER_RATE: Final = "100gbit"  # netem with a rate counts from the packet before, so it never reorders
SHORTEST_DELAY_MS: Final = 0.001  # netem does not show a jitter around nothing


@dataclass(frozen=True)
class Leaf:
    """The queue of a class; the figures are what is read back."""

    kind: str  # pfifo, netem
    limit: int
    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    distribution: str = ""
    in_order: bool = True
    reorder: float = 0.0
    loss: float = 0.0
    loss_burst: float = 1.0
    corrupt: float = 0.0

    @property
    def is_bursty(self) -> bool:
        return self.loss_burst > 1.0 and 0.0 < self.loss < 1.0

    @property
    def good_to_bad(self) -> float:
        """Of the Gilbert-Elliott chain whose long-run share is `loss`."""
        return min(self.loss / (self.loss_burst * (1.0 - self.loss)), 1.0)

    def words(self) -> list[str]:
        """All of it, also what is nothing: netem keeps what a change does not name."""
        words = [self.kind, "limit", str(self.limit)]
        if self.kind != "netem":
            return words
        words += ["delay", f"{self.delay_ms:.3f}ms"]
        if self.jitter_ms:
            words += [f"{self.jitter_ms:.3f}ms", "distribution", self.distribution]
        # Without jitter too: a latency may change while packets are under way.
        words += ["rate", IN_ORDER_RATE if self.in_order else "0bit"]
        words += ["reorder", _percent(self.reorder), "corrupt", _percent(self.corrupt), "loss"]
        if self.is_bursty:
            return [*words, "gemodel", _percent(self.good_to_bad), _percent(1.0 / self.loss_burst)]
        return [*words, "random", _percent(self.loss)]


def delays(shape: Shape) -> bool:
    """Whether packets are ever kept back or overtaken on this link."""
    traced = any(point.latency_ms for point in shape.trace)
    return bool(shape.latency_ms or shape.jitter_ms or shape.reorder or traced)


def receiver_leaf(shape: Shape, queue: int) -> Leaf:
    """What a packet meets as it arrives, with netem."""
    return Leaf(
        "netem",
        queue,
        in_order=False,  # nothing is delayed here
        loss=shape.loss,
        loss_burst=shape.loss_burst,
        corrupt=shape.corrupt,
    )


def spoils(shape: Shape) -> bool:
    """Whether packets are ever lost, doubled or damaged on this link."""
    return bool(shape.loss or shape.duplicate or shape.corrupt or any(point.loss for point in shape.trace))


def queue_packets(rate_bit_s: int | None, round_trip_ms: float) -> int:
    """How many full frames may wait at a rate."""
    if rate_bit_s is None or rate_bit_s >= UNLIMITED_BIT_S:
        return UNLIMITED_PACKETS
    wait_s = max(QUEUE_S, round_trip_ms / 1000)
    return min(max(math.ceil(rate_bit_s / 8 * wait_s / FRAME_BYTES), FEWEST_PACKETS), MOST_PACKETS)


def delayed_packets(rate_bit_s: int, latency_ms: float, jitter_ms: float) -> int:
    """How many packets are merely under way and netem must hold, be they half as large as a full frame."""
    under_way = rate_bit_s / 8 * (latency_ms + 3 * jitter_ms) / 1000 / FRAME_BYTES
    return min(max(math.ceil(3.0 * under_way), FEWEST_DELAYED), MOST_DELAYED)


def distributions(table: LinkTable) -> Iterator[jitter.Distribution]:
    """Those that netem is to draw from and tc does not bring."""
    for links in table.peers:
        if (distribution := jitter.distribution(links.out)) is not None:
            yield distribution


def sender_leaf(links: PeerLinks, rate_bit_s: int, engine: DelayEngine) -> Leaf:
    shape = links.out
    queue = queue_packets(rate_bit_s, round_trip_ms(links))
    if engine != "netem" or not delays(shape):
        return Leaf("pfifo", queue)
    own = jitter.distribution(shape)
    longest_ms = max(shape.latency_ms, *(point.latency_ms or 0.0 for point in shape.trace), 0.0)
    return Leaf(
        "netem",
        queue + delayed_packets(rate_bit_s, longest_ms, shape.jitter_ms),
        delay_ms=max(shape.latency_ms, SHORTEST_DELAY_MS),
        jitter_ms=shape.jitter_ms * (own.stretch if own else 1.0),
        distribution=own.words if own else "normal",
        in_order=shape.in_order,
        reorder=shape.reorder,
    )


def round_trip_ms(links: PeerLinks) -> float:
    return links.out.latency_ms + links.into.latency_ms


def _percent(share: float) -> str:
    return f"{share * 100:.6f}%"
