"""What is measured of a plan's links: which of them, how, and what can be measured side by side. Pure.

One link of each kind is drawn by the seed: links that are asked for alike are made by the same code from the
same numbers. `shoal calibrate` measures all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple, dataclass, replace
from random import Random
from typing import Final, Literal

from node.contract.plan import LinkPlan, Plan
from node.contract.probes import LEAST_UDP_PAYLOAD_BYTES, MOST_UDP_PAYLOAD_BYTES, UDP_HEADERS_BYTES

What = Literal["round_trip_ms", "loss", "duplicates", "goodput_bit_s"]

ECHOES: Final = 20
JITTERY_ECHOES: Final = 60
ECHO_INTERVAL_MS: Final = 20.0
MOST_INTERVAL_MS: Final = 100.0
ECHO_BITS: Final = 8 * (14 + 20 + 8 + 12)
LOSS_PACKETS: Final = 10_000
LOSS_PER_S: Final = 5000.0
LOSS_S: Final = 10.0  # at most; on slow links fewer packets then
SLACK: Final = 0.5  # of the rate is what packets are paced at, so that none is lost in a queue
PRESS: Final = 1.3  # of the rate, so that the link is always full, and its queue before the window begins:
# then it has something to send while the sender waits for a processor.
SEGMENTS: Final = 50  # that pass in the window at least
SLOW_WINDOW_S: Final = 3.0
STREAM_LEAST_BIT_S: Final = 1_000_000
STREAM_MOST_RTT_MS: Final = 60.0  # a stream fills longer links only after many seconds
STREAM_BACK_SHARE: Final = 30  # acknowledgements take about a fortieth of what they acknowledge
STREAM_WARM_UP_S, STREAM_WINDOW_S = 1.0, 1.5
PACKETS_WARM_UP_S, PACKETS_WINDOW_S = 0.5, 0.8
JITTERS_IN_WINDOW: Final = 200
OVERHEAD_S: Final = 0.4  # of requests and of what is on its way
BUDGET_S: Final = 15.0
SIDE_BY_SIDE: Final = 8
MOST_LOAD_BIT_S: Final = 200_000_000
FREE_BIT_S: Final = 10**12  # stands for not limited, in comparisons


@dataclass(frozen=True)
class Job:
    """One figure of one link to be measured, and how."""

    what: What
    source: str
    target: str
    how: str  # for people
    carrier: Literal["icmp", "udp", "tcp"]
    packets: int
    per_s: float
    payload_bytes: int = LEAST_UDP_PAYLOAD_BYTES
    warm_up_s: float = 0.0
    window_s: float = 0.0
    seconds: float = 0.0  # that it takes, about
    load_bit_s: float = 0.0
    busy: frozenset[str] = frozenset()  # nodes and trunks that nothing else may use meanwhile

    @property
    def link(self) -> str:
        return f"{self.source}>{self.target}"


class Network:
    """What the plan intends, looked up by names."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.links = {(link.from_, link.to): link for link in plan.links}
        self._nodes = {node.name: node for node in plan.nodes}
        self._trunks = {trunk.name: trunk.rate_bit_s for trunk in plan.network.trunks}

    def cap_bit_s(self, link: LinkPlan) -> int | None:
        """The narrowest of the link, both ends' lines, and the trunk."""
        trunk = self._trunks[link.trunk] if link.trunk is not None else None
        source, target = self._nodes[link.from_], self._nodes[link.to]
        rates = (link.rate_bit_s, source.up_bit_s, target.down_bit_s, trunk)
        return min((rate for rate in rates if rate is not None), default=None)

    def back(self, link: LinkPlan) -> LinkPlan:
        return self.links[link.to, link.from_]

    def kind(self, link: LinkPlan) -> tuple[object, ...]:
        """All that is asked of the link, without names."""
        ends = (self._nodes[link.from_].up_bit_s, self._nodes[link.to].down_bit_s)
        return (*astuple(replace(link, from_="", to="", profile=None)), *ends)

    def kind_both_ways(self, link: LinkPlan) -> object:
        return self.kind(link), self.kind(self.back(link))

    def is_shaped(self) -> bool:
        return any(is_shaped(link) or self.cap_bit_s(link) is not None for link in self.links.values())

    def busy(self, *links: LinkPlan) -> frozenset[str]:
        return frozenset(
            name for link in links for name in (link.from_, link.to, link.trunk) if name is not None
        )


def is_shaped(link: LinkPlan) -> bool:
    """Whether anything but a line or a trunk is asked of it."""
    shares = (link.loss, link.duplicate, link.corrupt, link.reorder)
    return bool(link.latency_ms or link.jitter_ms or any(shares) or link.rate_bit_s is not None or link.trace)


def jobs(plan: Plan, everything: bool) -> list[Job]:
    """What to measure: round trips first, which disturb nobody, and streams last."""
    network = Network(plan)
    if not network.is_shaped():
        return []
    random = Random(f"{plan.seed}/calibration")
    pairs = [link for link in network.links.values() if link.from_ < link.to]
    ways = list(network.links.values())
    if not everything:
        pairs, ways = (drawn(some, network.kind_both_ways, random) for some in (pairs, ways))
    steady = [link for link in ways if link.trace is None]
    made = [round_trip_job(network, link) for link in pairs]
    made += [job for link in steady for job in loss_jobs(network, link)]
    made += [job for link in steady if (job := goodput_job(network, link)) is not None]
    return made


def drawn(links: Sequence[LinkPlan], kind: Callable[[LinkPlan], object], random: Random) -> list[LinkPlan]:
    """One of each kind."""
    kinds: dict[object, list[LinkPlan]] = {}
    for link in links:
        kinds.setdefault(kind(link), []).append(link)
    return [random.choice(alike) for alike in kinds.values()]


def round_trip_job(network: Network, link: LinkPlan) -> Job:
    back = network.back(link)
    jitter_ms = link.jitter_ms + back.jitter_ms
    count = JITTERY_ECHOES if jitter_ms else ECHOES
    narrowest = min(network.cap_bit_s(way) or FREE_BIT_S for way in (link, back))
    # So far apart that one does not wait for the one before, in a slow line or behind a late one.
    interval_ms = max(
        min(MOST_INTERVAL_MS, max(ECHO_INTERVAL_MS, 4 * jitter_ms)), 2000 * ECHO_BITS / narrowest
    )
    return Job(
        "round_trip_ms",
        link.from_,
        link.to,
        f"median of {count} echoes",
        "icmp",
        count,
        1000 / interval_ms,
        seconds=(count * interval_ms + link.latency_ms + back.latency_ms) / 1000 + OVERHEAD_S,
        busy=network.busy(link, back),
    )


def loss_jobs(network: Network, link: LinkPlan) -> list[Job]:
    if not (link.loss or link.corrupt or link.duplicate):
        return []
    bits = 8 * (LEAST_UDP_PAYLOAD_BYTES + UDP_HEADERS_BYTES)
    per_s = min(LOSS_PER_S, SLACK * (network.cap_bit_s(link) or FREE_BIT_S) / bits)
    count = max(100, min(LOSS_PACKETS, int(LOSS_S * per_s)))
    how = f"{count} packets" + (f", for it is slow, instead of {LOSS_PACKETS}" * (count < LOSS_PACKETS))
    lost = Job(
        "loss",
        link.from_,
        link.to,
        how,
        "udp",
        count,
        per_s,
        seconds=count / per_s + link.latency_ms / 1000 + OVERHEAD_S,
        load_bit_s=per_s * bits,
        busy=network.busy(link),
    )
    return [lost] + [replace(lost, what="duplicates")] * bool(link.duplicate)


def goodput_job(network: Network, link: LinkPlan) -> Job | None:
    cap = network.cap_bit_s(link)
    if cap is None:
        return None
    return stream_job(network, link, cap) if can_stream(network, link, cap) else press_job(network, link, cap)


def stream_job(network: Network, link: LinkPlan, cap: int) -> Job:
    warm_up_s, window_s = STREAM_WARM_UP_S, STREAM_WINDOW_S
    return Job(
        "goodput_bit_s",
        link.from_,
        link.to,
        f"one stream, {window_s:g} s after {warm_up_s:g} s",
        "tcp",
        packets=0,
        per_s=0.0,
        payload_bytes=MOST_UDP_PAYLOAD_BYTES,
        warm_up_s=warm_up_s,
        window_s=window_s,
        seconds=warm_up_s + window_s + link.latency_ms / 1000 + OVERHEAD_S,
        load_bit_s=float(cap),
        busy=network.busy(link),
    )


def press_job(network: Network, link: LinkPlan, cap: int) -> Job:
    """Packets somewhat faster than the link; small ones where it is slow, so that enough of them pass."""
    room = cap * SLOW_WINDOW_S / 8 / SEGMENTS - UDP_HEADERS_BYTES
    payload = int(max(3 * LEAST_UDP_PAYLOAD_BYTES, min(MOST_UDP_PAYLOAD_BYTES, room)))
    packet_s = 8 * (payload + UDP_HEADERS_BYTES) / cap
    warm_up_s = max(PACKETS_WARM_UP_S, 12 * packet_s)
    # Jitter moves both ends of the window.
    window_s = max(PACKETS_WINDOW_S, SEGMENTS * packet_s, JITTERS_IN_WINDOW * link.jitter_ms / 1000)
    return Job(
        "goodput_bit_s",
        link.from_,
        link.to,
        f"packets of {payload} bytes, {window_s:.2g} s after {warm_up_s:.2g} s",
        "udp",
        packets=int((warm_up_s + 1.1 * window_s) * PRESS / packet_s),
        per_s=PRESS / packet_s,
        payload_bytes=payload,
        warm_up_s=warm_up_s,
        window_s=window_s,
        seconds=PRESS * (warm_up_s + 1.1 * window_s) + link.latency_ms / 1000 + OVERHEAD_S,
        load_bit_s=float(cap),
        busy=network.busy(link),
    )


def can_stream(network: Network, link: LinkPlan, cap: int) -> bool:
    """Whether one TCP stream fills the link soon and steadily."""
    back = network.back(link)
    ways = (link, back)
    return (
        cap >= STREAM_LEAST_BIT_S
        and not any(way.loss or way.corrupt or way.duplicate or way.reorder for way in ways)
        and all(way.in_order or not way.jitter_ms for way in ways)
        and back.trace is None
        and link.latency_ms + back.latency_ms <= STREAM_MOST_RTT_MS
        and (network.cap_bit_s(back) or FREE_BIT_S) * STREAM_BACK_SHARE >= cap
    )


def waves(wanted: Iterable[Job]) -> list[list[Job]]:
    """Jobs that can run side by side: no node or trunk is in two of a wave, and the host can carry them."""
    made: list[list[Job]] = []
    for job in wanted:
        for wave in made:
            if (
                wave[0].what == job.what
                and len(wave) < SIDE_BY_SIDE
                and not any(other.busy & job.busy for other in wave)
                and sum(other.load_bit_s for other in wave) + job.load_bit_s <= MOST_LOAD_BIT_S
            ):
                wave.append(job)
                break
        else:
            made.append([job])
    return made


def within(made: Sequence[list[Job]], budget_s: float) -> tuple[list[list[Job]], list[Job]]:
    """As many waves as there is time for, and the jobs of the others."""
    taken: list[list[Job]] = []
    left: list[Job] = []
    spent_s = 0.0
    for wave in made:
        wave_s = max(job.seconds for job in wave)
        if spent_s + wave_s <= budget_s:
            spent_s += wave_s
            taken.append(wave)
        else:
            left += wave
    return taken, left
