"""Calibration: whether links, measured before a run counts, are as intended. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from node.contract.plan import LinkPlan, Plan
from node.contract.probes import TCP_SEGMENT_SHARE, UDP_HEADERS_BYTES
from orchestrator.measuring import tolerance
from orchestrator.measuring.measurements import FREE_BIT_S, Job, Network, What
from orchestrator.measuring.tolerance import Bounds

LEAST_REPLIES: Final = 5
CORRUPT_NOTICED: Final = 0.9  # netem may turn over a bit that no checksum covers


@dataclass(frozen=True)
class Figure:
    """One row of the table. A round trip is of the link and of the one back."""

    link: str
    what: What
    how: str
    intended: float
    low: float
    high: float
    measured: float | None  # None: it could not be
    ok: bool
    attempts: int
    said: str = ""  # why there is no figure


@dataclass(frozen=True)
class Calibration:
    """calibration.json."""

    links: int  # directed ones, in the plan
    measured_links: int
    seconds: float
    figures: tuple[Figure, ...]
    outside: tuple[str, ...]  # measured twice, and not as intended
    not_measured: tuple[str, ...]


def bounds(network: Network, job: Job, alpha: float) -> Bounds:
    """Between what the figure must lie."""
    link = network.links[job.source, job.target]
    if job.what == "round_trip_ms":
        return round_trip_bounds(network, link, job, alpha)
    if job.what == "duplicates":
        return tolerance.share(link.duplicate, job.packets, alpha)
    missing = tolerance.share(either(link.loss, link.corrupt), job.packets, alpha, link.loss_burst)
    if link.corrupt:
        least = tolerance.share(
            either(link.loss, CORRUPT_NOTICED * link.corrupt), job.packets, alpha, link.loss_burst
        )
        missing = replace(missing, low=min(least.low, missing.low))
    if job.what == "loss":
        return missing
    cap = network.cap_bit_s(link) or FREE_BIT_S
    passing = max(1, int(job.window_s * cap / 8 / (job.payload_bytes + UDP_HEADERS_BYTES)))
    lost = tolerance.share(either(link.loss, link.corrupt), passing, alpha, link.loss_burst)
    ideal = cap * TCP_SEGMENT_SHARE
    return Bounds(
        ideal * (1 - lost.intended),
        ideal * (1 - lost.high) * (1 - tolerance.GOODPUT_SHARE),
        ideal * (1 - lost.low) * (1 + tolerance.GOODPUT_SHARE),
    )


def round_trip_bounds(network: Network, link: LinkPlan, job: Job, alpha: float) -> Bounds:
    """Of a link that follows a trace: between the bounds of its extremes."""
    back = network.back(link)
    corners = [
        tolerance.round_trip(
            replace(link, latency_ms=there),
            replace(back, latency_ms=home),
            job.packets,
            1000 / job.per_s,
            alpha,
        )
        for there in extremes(network.plan, link)
        for home in extremes(network.plan, back)
    ]
    return Bounds(corners[0].intended, min(c.low for c in corners), max(c.high for c in corners))


def extremes(plan: Plan, link: LinkPlan) -> list[float]:
    """The latencies between which it moves; one without a trace has one."""
    if link.trace is None:
        return [link.latency_ms]
    points = plan.network.traces[link.trace].points
    found = {link.latency_ms if point.latency_ms is None else point.latency_ms for point in points}
    return sorted({min(found), max(found)})


def either(one: float, other: float) -> float:
    """The share that at least one of two independent accidents hits."""
    return 1.0 - (1.0 - one) * (1.0 - other)


def judged(
    network: Network, job: Job, measured: float | None, alpha: float, attempt: int, said: str
) -> Figure:
    """The row of one attempt."""
    limits = bounds(network, job, alpha)
    ok = measured is not None and limits.holds(measured)
    return Figure(
        job.link, job.what, job.how, limits.intended, limits.low, limits.high, measured, ok, attempt, said
    )


def told(figure: Figure) -> str:
    """A row that is not as intended, for people."""
    if figure.measured is None:
        return f"{figure.what} of {figure.link}: {figure.said}"
    return (
        f"{figure.what} of {figure.link} is {figure.measured:.6g}, "
        f"intended {figure.intended:.6g}, within {figure.low:.6g} to {figure.high:.6g}"
    )


def unmeasured(network: Network, done: Sequence[Job], left: Sequence[Job], everything: bool) -> list[str]:
    """What nobody looked at, and why."""
    found = [f"{job.what} of {job.link}: no time for it" for job in left]
    for link in network.links.values():
        name = f"{link.from_}>{link.to}"
        if link.trace is not None:
            found.append(f"loss and goodput of {name}: it follows a trace")
        if link.reorder:
            found.append(f"reordering of {name}: only its effect on the round trip is measured")
    names = {job.link for job in done}
    ends = {job.link for job in done if job.what == "round_trip_ms"}
    seen = names | {">".join(reversed(name.split(">"))) for name in ends}
    if not everything and (alike := len(network.links) - len(seen)) > 0:
        found.append(f"{alike} of {len(network.links)} links: others that are asked for alike were")
    return found


def table(
    network: Network, figures: Mapping[Job, Figure], left: Sequence[Job], everything: bool, seconds: float
) -> Calibration:
    """Everything together."""
    rows = tuple(figures.values())
    links = {row.link for row in rows}
    links |= {">".join(reversed(row.link.split(">"))) for row in rows if row.what == "round_trip_ms"}
    return Calibration(
        links=len(network.links),
        measured_links=len(links),
        seconds=round(seconds, 3),
        figures=rows,
        outside=tuple(told(row) for row in rows if not row.ok),
        not_measured=tuple(unmeasured(network, list(figures), left, everything)),
    )


def median(values: Sequence[float]) -> float | None:
    """Of the echoes that came back; too few say nothing."""
    return statistics.median(values) if len(values) >= LEAST_REPLIES else None
