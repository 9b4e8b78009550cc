"""What checks of faults and of the emulated network observe. Pure.

A network that was not, or was not seen to be, as asked makes them unknown, never violated: nothing was shown.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from node.contract.plan import FaultPlan
from orchestrator.verdict.doubts import fault_doubts, few
from orchestrator.verdict.evidence import Evidence, Observed, Round, UnobservedError


def emulation_accurate(evidence: Evidence) -> Observed:
    """Everything that was asked of the network was measured, and is inside."""
    doubts = evidence.results.get("network_doubts")
    if doubts is None:
        raise UnobservedError("nothing is said about the network")
    if doubts:
        raise UnobservedError("; ".join(few(list(doubts))))
    calibration = evidence.results.get("calibration")
    faults = len(evidence.plan.faults)
    if calibration is None and not faults:
        raise UnobservedError("no link is shaped and nothing breaks: there was nothing to be accurate")
    parts = [f"figures of links as intended: {calibration['figures']}"] if calibration else []
    parts += [f"faults verified: {faults}"] if faults else []
    return Observed(1, 1, ", ".join(parts))


def faults_verified(evidence: Evidence) -> Observed:
    """Every fault of the plan began and ended, and probes showed both."""
    if not evidence.plan.faults:
        raise UnobservedError("the plan has no faults")
    if doubts := fault_doubts(evidence):
        raise UnobservedError("; ".join(few(doubts)))
    return Observed(1, 1, f"verified at their start and at their end: {len(evidence.plan.faults)}")


def recovered_within(evidence: Evidence) -> Observed:
    """Rounds opened after a heal until the slowest of those that were kept out has an accepted update."""
    worst = Observed(0, 0, "")
    for fault in evidence.plan.faults:
        for worker in evidence.kept_out(fault):
            if fault.heal is not None:
                found = recovery(evidence, fault, worker)
                worst = max(worst, found, key=lambda observed: (observed.high, observed.low))
    if not worst.said:
        raise UnobservedError("no fault keeps a worker out and is healed")
    return worst


def recovery(evidence: Evidence, fault: FaultPlan, worker: str) -> Observed:
    if not evidence.is_verified(fault.id, "start"):
        raise UnobservedError(f"{fault.id} was not seen to be in force")
    healed = evidence.of("fault_healed", fault=fault.id)
    if not healed:
        raise UnobservedError(f"{fault.id} was never healed")
    later = [one for one in evidence.rounds() if one.opened >= float(healed[-1]["wall"])]
    for count, one in enumerate(later, start=1):
        if worker in one.accepted:
            return Observed(
                count, count, f"{worker} was back in round {one.number}, {nth(count)} after {fault.id}"
            )
    if not later:
        raise UnobservedError(f"no round was opened and closed after {fault.id} was healed")
    said = f"{worker} was not back in the {len(later)} rounds after {fault.id}"
    return Observed(len(later) + 1, math.inf, said)


def nth(count: int) -> str:
    return "the first" if count == 1 else f"number {count}"


def missing_while_cut(evidence: Evidence) -> Observed:
    """Whoever was cut off from the aggregator during a whole round had no accepted update in it."""
    return missing_while(evidence, evidence.cut_off, "cut off")


def missing_while_down(evidence: Evidence) -> Observed:
    """Whoever, or whose daemon, was killed or paused during a whole round had no accepted update in it."""
    return missing_while(evidence, evidence.down, "down")


def missing_while(evidence: Evidence, whom: Callable[[FaultPlan], list[str]], how: str) -> Observed:
    seen: list[tuple[Round, str]] = []
    for fault in evidence.plan.faults:
        for since, until in evidence.cuts(fault):
            whole = [one for one in evidence.rounds() if since <= one.opened and one.closed <= until]
            seen += [(one, worker) for one in whole for worker in whom(fault)]
    if not seen:
        raise UnobservedError(f"no worker was {how} during a whole round")
    heard = [f"{worker} in round {one.number}" for one, worker in seen if worker in one.accepted]
    if heard:
        return Observed(0, 0, f"{how} and yet accepted: {', '.join(few(heard))}")
    return Observed(1, 1, f"{len(seen)} updates of workers that were {how} are missing, as they must")


def interrupted_rounds(evidence: Evidence) -> Observed:
    """Rounds in whose middle the aggregator went down, and that were closed all the same."""
    ends = [
        (fault, span[0])
        for fault in evidence.plan.faults
        if evidence.is_headless(fault) and evidence.is_verified(fault.id, "start")
        for span in evidence.cuts(fault)
    ]
    found = {one.number for one in evidence.rounds() for _, at in ends if one.opened < at < one.closed}
    said = f"{len(found)} rounds were closed although the aggregator went down in them"
    return Observed(len(found), len(found) if evidence.is_whole() else math.inf, said)


def lost_packets(evidence: Evidence) -> Observed:
    """Packets that were lost on purpose on links from and to the nodes, while the rounds went on."""
    counts = [evidence.of("losses_counted", when=when)[-1:] for when in ("before", "after")]
    if not all(counts):
        raise UnobservedError("no losses were counted: no link is asked to lose any, or nodes did not answer")
    before, after = (found[0]["lost"] for found in counts)
    links = [link for link in after if evidence.nodes & set(link.split(">"))]
    if anew := [link for link in links if after[link] < before.get(link, 0)]:
        raise UnobservedError(f"{anew[0]} was counted anew while the rounds went on")
    lost = sum(after[link] - before.get(link, 0) for link in links)
    return Observed(lost, lost, f"{lost} packets were lost on purpose on {len(links)} links")
