"""How soon workers that were cut off, or down, came back after the heal. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from node.contract.plan import Plan
from orchestrator.verdict.evidence import Event, Evidence, instants


def recovery_seconds(plan: Plan, history: Sequence[Event]) -> dict[str, dict[str, Any]]:
    """By fault and worker, from the instant at which the heal was in force on all nodes."""
    evidence = Evidence(plan, history, {})
    found: dict[str, dict[str, Any]] = {}
    for fault in plan.faults:
        healed = evidence.of("fault_healed", fault=fault.id)
        workers = evidence.kept_out(fault)
        if healed and workers:
            at = max(instants(healed[0]), default=float(healed[0]["wall"]))
            found[fault.id] = {worker: _row(evidence, worker, at) for worker in workers}
    return found


def _row(evidence: Evidence, worker: str, healed: float) -> dict[str, float | None]:
    """Until they are kept out again; what came later is no recovery from this one."""
    cut_again = min(
        (
            float(event["wall"])
            for other in evidence.plan.faults
            if worker in evidence.kept_out(other)
            for event in evidence.of("fault_started", fault=other.id)
            if event["wall"] > healed
        ),
        default=float("inf"),
    )
    answered = [
        event
        for event in evidence.of("control_answered", node=worker)
        # A silence that began after the heal has another reason.
        if healed <= event["wall"] < cut_again and event["wall"] - event["silent_s"] <= healed
    ]
    accepted = [
        event
        for event in evidence.of("update_accepted", sender=worker)
        if healed <= event["wall"] < cut_again
    ]
    return {
        "answered": answered[0]["wall"] - healed if answered else None,
        "accepted": accepted[0]["wall"] - healed if accepted else None,
    }
