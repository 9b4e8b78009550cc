"""Why the network of a run may not have been what its plan says; with any reason the run is unknown. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from node.contract.plan import FaultPlan, Plan
from orchestrator.faults.schedule import WATCHING
from orchestrator.measuring.measurements import Network
from orchestrator.verdict.evidence import Event, Evidence, wall

LATE_SHARE: Final = 0.05  # of held packets may come later than tolerated
OUTSIDE_SHARE: Final = 0.05  # of the probes during the run may be outside
AROUND_FAULT_S: Final = 15.0  # a probe takes some seconds, and a flapping link is cut again meanwhile
MOST_TOLD: Final = 3  # of one kind; the history has all


def network_doubts(
    plan: Plan,
    history: Sequence[Event],
    calibration: Mapping[str, Any] | None,
    lateness: Mapping[str, Any] | None,
) -> list[str]:
    """Empty: all that was asked of the network was verified, or nothing was asked."""
    evidence = Evidence(plan, history, {})
    found = fault_doubts(evidence)
    found += [f"round {e['round']} was opened before it was released" for e in evidence.of("release_missing")]
    found += link_doubts(evidence)
    blind = unwatched_at_the_end(evidence)
    found += few(
        [
            f"the links of {e['of']} could not be read at the end"
            for e in evidence.of("links_unread")
            if e["of"] not in blind
        ]
    )
    if Network(plan).is_shaped():
        found += calibration_doubts(calibration)
        found += [f"{name} never told that its links are in force" for name in untold(evidence)]
    if lateness is not None and lateness["beyond_tolerance"] > LATE_SHARE * lateness["packets"]:
        late, packets = lateness["beyond_tolerance"], lateness["packets"]
        found.append(f"{late} of {packets} held packets were late beyond the tolerance")
    return found


def fault_doubts(evidence: Evidence) -> list[str]:
    found = [f"{e['fault']}: {e['phase']}: {e['message']}" for e in evidence.of("fault_failed")]
    for fault in evidence.plan.faults:
        phases = {"start": "fault_started", "heal": "fault_healed"}
        for phase, kind in phases.items():
            if phase == "heal" and fault.heal is None:
                continue
            if not evidence.of(kind, fault=fault.id):
                found.append(
                    f"{fault.id} never began" if phase == "start" else f"{fault.id} was never healed"
                )
                break
            if not evidence.is_verified(fault.id, phase):
                said = [e["said"] for e in evidence.of("fault_verified", fault=fault.id, phase=phase)]
                found.append(
                    f"{fault.id}: its {phase} was not verified" + "".join(f": {s}" for s in said[-1:])
                )
    return found


def link_doubts(evidence: Evidence) -> list[str]:
    """A difference is forgiven only where a fault was at work and it was mended."""
    bad = [e for e in evidence.of("link_mismatch") if not (e["repaired"] and e["in_fault"])]
    found = [f"the links of {e['node']} were not as asked: {e['said']}" for e in bad]
    found += [
        f"the links of {e['node']} were not as asked from the beginning: {e['mismatches']}"
        for e in evidence.of("links_applied")
        if e["mismatches"]
    ]
    found = few(found)
    probes = probes_told(evidence.history)
    # One alone may be the scheduler's fault, not the link's.
    if probes["outside"] > max(1, OUTSIDE_SHARE * probes["count"]):
        who = Counter(f"{e['node']}-{e['peer']}" for e in evidence.of("link_probed", outside=True))
        links = ", ".join(link for link, _ in who.most_common(MOST_TOLD))
        found.append(f"{probes['outside']} of {probes['count']} probes during the run were outside: {links}")
    silent = unanswered(evidence)
    if len(silent) > max(1, OUTSIDE_SHARE * probes["count"]):
        links = ", ".join(sorted({f"{e['node']}-{e['peer']}" for e in silent})[:MOST_TOLD])
        found.append(
            f"{len(silent)} of {probes['count']} probes had no answer, without a fault there: {links}"
        )
    return found


def unanswered(evidence: Evidence) -> list[Event]:
    """Probes that got nothing back though no fault was between the two: a link gone dark by itself."""
    found = []
    for probe in evidence.of("link_probed", rtt_ms=None):
        pair = {probe["node"], probe["peer"]}
        if not any(
            begun - AROUND_FAULT_S <= probe["wall"] <= ended + AROUND_FAULT_S
            for fault in evidence.plan.faults
            if is_between(fault, pair)
            for begun, ended in evidence.cuts(fault)
        ):
            found.append(probe)
    return found


def is_between(fault: FaultPlan, pair: set[str]) -> bool:
    """Whether the fault cuts or changes a link between these two, in either direction."""
    deaf = any({node, peer} == pair for node, peers in fault.deaf.items() for peer in peers)
    without_agent = any(is_unwatched(fault, node) for node in pair)
    return deaf or without_agent or any(set(link) == pair for link in fault.change.get("links", ()))


def is_unwatched(fault: FaultPlan, node: str) -> bool:
    """Whether the fault leaves the node's links to themselves: its agent is down."""
    return bool(WATCHING & set(fault.parts.get(node, ())))


def unwatched_at_the_end(evidence: Evidence) -> set[str]:
    """Nodes whose agents a fault has taken, and not given back: that is no doubt, but told in the results."""
    return {
        node
        for fault in evidence.plan.faults
        if evidence.of("fault_started", fault=fault.id) and not evidence.of("fault_healed", fault=fault.id)
        for node in fault.parts
        if is_unwatched(fault, node)
    }


def unwatched_seconds(plan: Plan, history: Sequence[Event]) -> dict[str, float]:
    """By node: how long its agent was down by a fault, until it was verified to be back, or the end."""
    evidence = Evidence(plan, history, {})
    found: dict[str, float] = {}
    for fault in plan.faults:
        begun = evidence.of("fault_started", fault=fault.id)
        if not begun:
            continue
        since = wall(begun[0], begun[0]["requested_ns"])
        back = evidence.of("fault_verified", fault=fault.id, phase="heal")
        until = float(back[-1]["wall"]) if back else max(float(e["wall"]) for e in history)
        for node in fault.parts:
            if is_unwatched(fault, node):
                found[node] = found.get(node, 0.0) + until - since
    return found


def calibration_doubts(calibration: Mapping[str, Any] | None) -> list[str]:
    if calibration is None:
        return ["the links were not measured before the run"]
    if not calibration["figures"]:
        return ["no link was measured before the run"]
    return few([str(said) for said in calibration["outside"]])


def untold(evidence: Evidence) -> list[str]:
    """Nodes with links whose agents said nothing of them."""
    have = {name for link in evidence.plan.links for name in (link.from_, link.to)}
    return sorted(have - {e["node"] for e in evidence.of("links_applied")})


def probes_told(history: Iterable[Event]) -> dict[str, int]:
    """How many round trips were probed during the run, and how many of them were outside."""
    probes = [e for e in history if e["kind"] == "link_probed"]
    return {"count": len(probes), "outside": sum(bool(e["outside"]) for e in probes)}


def few(said: list[str]) -> list[str]:
    more = len(said) - MOST_TOLD
    return [*said[:MOST_TOLD], f"and {more} more like that"] if more > 0 else said
