"""How soon workers were back, from literal histories."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from node.contract.plan import FaultPlan, When
from orchestrator.verdict.recovery import recovery_seconds
from tests.unit.orchestrator.test_results import event, plan

DROP = {"w01": {"agg": "drop"}, "agg": {"w01": "drop"}}


def fault(name: str, deaf: dict[str, Any] = DROP) -> FaultPlan:
    return FaultPlan(name, "partition", name, ("w01",), When("time"), When("lasting", 5), deaf=deaf)


def done(kind: str, name: str, wall: float) -> dict[str, Any]:
    """Told a second after the last node did it."""
    effective_ns = {"agg": int((wall - 1.2) * 1e9), "w01": int((wall - 1) * 1e9)}
    return event(kind, "orchestrator", wall, fault=name, effective_ns=effective_ns, requested_ns=0)


def answered(wall: float, silent_s: float, node: str = "w01") -> dict[str, Any]:
    return event("control_answered", node, wall, path="/v1/work", silent_s=silent_s)


def accepted(wall: float, sender: str = "w01") -> dict[str, Any]:
    return event("update_accepted", "agg", wall, sender=sender)


def test_the_first_answer_and_update_after_the_heal_count() -> None:
    history = [
        done("fault_started", "split", 10.0),
        done("fault_healed", "split", 20.0),
        answered(18.5, 3.0),
        answered(19.1, 1.0, node="w02"),
        accepted(18.0),
        accepted(19.2, sender="w02"),
        answered(20.5, 11.0),
        accepted(22.0),
        accepted(23.0),
        answered(24.0, 12.0),
    ]
    known = replace(plan(), faults=(fault("split"),))
    assert recovery_seconds(known, history) == {"split": {"w01": {"answered": 1.5, "accepted": 3.0}}}


def test_a_silence_of_later_and_a_later_cut_are_another_matter() -> None:
    history = [
        done("fault_healed", "split", 20.0),
        answered(30.0, 4.0),
        done("fault_started", "again", 35.0),
        accepted(36.0),
    ]
    known = replace(plan(), faults=(fault("split"), fault("again")))
    assert recovery_seconds(known, history) == {"split": {"w01": {"answered": None, "accepted": None}}}


def test_who_was_not_cut_off_from_the_aggregator_has_nothing_to_recover_from() -> None:
    known = replace(plan(), faults=(fault("split", {"w01": {"w02": "drop"}}),))
    assert recovery_seconds(known, [done("fault_healed", "split", 20.0)]) == {}
