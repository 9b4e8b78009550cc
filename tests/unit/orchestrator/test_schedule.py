"""The timetable: what is due, what should be in force, which round may open."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from node.contract.links import Cut
from node.contract.plan import (
    AggregationPlan,
    FaultPlan,
    LinkPlan,
    NetworkPlan,
    NodePlan,
    PartitionPlan,
    Plan,
    When,
    WorkloadPlan,
)
from orchestrator.faults import schedule
from orchestrator.faults.schedule import State

NAMES = ("agg", "w01", "w02")
MS = 1_000_000


def plan_of(*faults: FaultPlan) -> Plan:
    nodes = (
        NodePlan("agg", ("aggregator",), None, None, "10.77.0.2", ""),
        *(
            NodePlan(name, ("trainer",), None, None, f"10.77.0.{index}", "")
            for index, name in enumerate(NAMES[1:], start=3)
        ),
    )
    links = tuple(LinkPlan(a, b, 5.0, 0.0, 0.0, None) for a in NAMES for b in NAMES if a != b)
    workload = WorkloadPlan("digits", "cnn", PartitionPlan("iid"), 5, 1, 8, 0.1)
    aggregation = AggregationPlan("mean", "sync", 1.0, 60.0, {})
    network = NetworkPlan("10.77.0.0/22", "10.77.4.0/22", "prompt", ())
    return Plan(1, "mine", "", 1, nodes, network, workload, aggregation, (), links, faults)


def cut(id_: str, start: When, heal: When | None = None, peer: str = "w01", **change: float) -> FaultPlan:
    """The aggregator no longer hears a worker."""
    return FaultPlan(id_, "partition", id_, (peer,), start, heal, {"agg": {peer: "drop"}}, change)


def round_(number: int) -> When:
    return When("round", round=number)


def event(kind: str, node: str = "orchestrator", mono_ns: int = 0, **fields: Any) -> dict[str, Any]:
    return {"kind": kind, "node": node, "mono_ns": mono_ns, **fields}


def done(kind: str, fault: str, at_ns: int) -> dict[str, Any]:
    return event(kind, fault=fault, requested_ns=at_ns, effective_ns={"agg": at_ns - 1, "w01": at_ns})


def verified(fault: str, phase: str, verified: bool = True) -> dict[str, Any]:
    return event("fault_verified", fault=fault, phase=phase, verified=verified)


def after(*events: dict[str, Any], offset_ns: int = 0) -> State:
    state = State()
    for one in events:
        state = schedule.after(state, one, lambda _: offset_ns)
    return state


def verbs(plan: Plan, state: State, now_ns: int = 0) -> list[tuple[str, str]]:
    return [(step.verb, step.fault.id) for step in schedule.due(plan, state, now_ns)]


def test_nothing_is_due_before_its_round() -> None:
    plan = plan_of(cut("a", round_(2), round_(4)))
    assert verbs(plan, after(event("round_opened", "agg", round=1)), 10**18) == []


def test_the_life_of_a_fault_by_rounds() -> None:
    plan = plan_of(cut("a", round_(2), round_(4)))
    heard = [event("round_due", "agg", round=2)]
    assert verbs(plan, after(*heard)) == [("start", "a")]
    assert schedule.releasable(plan, after(*heard)) is None
    heard.append(done("fault_started", "a", 7))
    assert verbs(plan, after(*heard)) == []
    assert schedule.releasable(plan, after(*heard)) is None  # not verified yet
    heard.append(verified("a", "start"))
    assert schedule.releasable(plan, after(*heard)) == 2
    heard += [event("round_released", round=2), event("round_opened", "agg", round=2)]
    assert schedule.releasable(plan, after(*heard)) is None
    assert after(*heard).is_in_force("a")
    heard.append(event("round_due", "agg", round=4))
    assert verbs(plan, after(*heard)) == [("heal", "a")]
    heard += [done("fault_healed", "a", 9), verified("a", "heal", verified=False)]
    assert verbs(plan, after(*heard)) == []
    assert schedule.releasable(plan, after(*heard)) == 4  # whether it is true is for the verdict
    assert not after(*heard).is_in_force("a")


def test_a_round_waits_for_all_that_is_due_with_it() -> None:
    plan = plan_of(cut("a", round_(2), round_(3)), cut("b", round_(3)), cut("c", When("time", 1.0)))
    heard = [
        event("round_due", "agg", round=2),
        done("fault_started", "a", 7),
        verified("a", "start"),
        event("round_due", "agg", round=3),
    ]
    assert verbs(plan, after(*heard)) == [("heal", "a"), ("start", "b")]
    heard += [done("fault_healed", "a", 8), verified("a", "heal"), done("fault_started", "b", 8)]
    assert schedule.releasable(plan, after(*heard)) is None
    assert schedule.releasable(plan, after(*heard, verified("b", "start"))) == 3


def test_a_round_that_waits_for_nothing_goes_on() -> None:
    assert schedule.releasable(plan_of(), after(event("round_due", "agg", round=2))) == 2


def test_what_is_by_time_counts_from_the_opening_of_round_1_on_our_clock() -> None:
    plan = plan_of(cut("a", When("time", 0.5), When("time", 0.75)))
    opened = event("round_opened", "agg", 1000 * MS, round=1)
    later = event("round_opened", "agg", 5000 * MS, round=1)  # another attempt
    state = after(opened, later, offset_ns=100 * MS)
    assert verbs(plan, after(), 10**18) == []
    assert verbs(plan, state, 1400 * MS - 1) == []
    (step,) = schedule.due(plan, state, 1400 * MS)
    assert (step.verb, step.at_ns) == ("start", 1400 * MS)
    state = schedule.after(state, done("fault_started", "a", 1410 * MS), lambda _: 0)
    assert [step.at_ns for step in schedule.coming(plan, state)] == [1650 * MS]


def test_one_after_another_and_for_a_while() -> None:
    plan = plan_of(cut("a", round_(2), When("lasting", 0.5)), cut("b", When("after", 0.25, fault="a"), None))
    heard = [event("round_due", "agg", round=2), done("fault_started", "a", 1000 * MS)]
    assert [(s.verb, s.at_ns) for s in schedule.coming(plan, after(*heard))] == [("heal", 1500 * MS)]
    heard.append(done("fault_healed", "a", 1600 * MS))
    assert [(s.fault.id, s.at_ns) for s in schedule.coming(plan, after(*heard))] == [("b", 1850 * MS)]


def test_the_beat_of_flapping_does_not_drift() -> None:
    plan = plan_of(cut("a", round_(1), When("lasting", 9.0), period_s=4.0, down_s=1.0))
    heard = [event("round_due", "agg", round=1), done("fault_started", "a", 0)]
    found = []
    for _ in range(5):
        (step,) = schedule.coming(plan, after(*heard))
        found.append((step.verb, step.at_ns // MS, schedule.is_cutting(plan.faults[0], after(*heard))))
        heard.append(done("fault_flapped", "a", step.at_ns + 300 * MS))  # late each time
    assert found == [
        ("flap", 1000, True),
        ("flap", 4000, False),
        ("flap", 5000, True),
        ("flap", 8000, False),
        ("heal", 9000, True),
    ]


def test_what_failed_is_healed_all_the_same_and_waited_for_no_more() -> None:
    plan = plan_of(cut("a", round_(2), round_(3)))
    heard = [
        event("round_due", "agg", round=2),
        event("fault_failed", fault="a", phase="start", message="", mono_ns=5),
    ]
    assert schedule.releasable(plan, after(*heard)) == 2
    heard.append(event("round_due", "agg", round=3))
    assert verbs(plan, after(*heard)) == [("heal", "a")]
    heard.append(event("fault_failed", fault="a", phase="heal", message="", mono_ns=6))
    assert verbs(plan, after(*heard)) == []
    assert schedule.releasable(plan, after(*heard)) == 3


def test_what_should_be_in_force() -> None:
    flapping = cut("c", round_(2), period_s=4.0, down_s=1.0)
    plan = plan_of(cut("a", round_(2)), cut("b", round_(2), peer="w02"), flapping)
    heard = [event("round_due", "agg", round=2), *(done("fault_started", f, 7) for f in "abc")]
    assert schedule.cuts_at(plan, after(*heard), "agg") == [
        Cut("a", {"w01": "drop"}),
        Cut("b", {"w02": "drop"}),
        Cut("c", {"w01": "drop"}),
    ]
    assert schedule.cuts_at(plan, after(*heard), "w01") == []
    assert schedule.unsteady(plan, after(*heard)) == {("agg", "w01")}
    heard += [done("fault_flapped", "c", 8), done("fault_healed", "b", 9)]
    assert schedule.cuts_at(plan, after(*heard), "agg") == [Cut("a", {"w01": "drop"})]
    assert schedule.cut_now(plan, after(*heard)) == {"agg": frozenset({"w01"})}
    heard.append(done("fault_healed", "a", 9))
    assert schedule.cut_now(plan, after(*heard)) == {}


def test_links_change_and_change_back() -> None:
    change: dict[str, Any] = {"links": [["agg", "w01"]], "set": {"latency_ms": 90.0}}
    plan = plan_of(FaultPlan("a", "degrade", "a", ("w01",), round_(2), None, {}, change))
    heard = [event("round_due", "agg", round=2)]
    assert schedule.links_now(plan, after(*heard)) == plan.links
    heard.append(done("fault_started", "a", 7))
    now = {(link.from_, link.to): link.latency_ms for link in schedule.links_now(plan, after(*heard))}
    assert now.pop(("agg", "w01")) == 90.0
    assert set(now.values()) == {5.0}
    heard.append(done("fault_healed", "a", 9))
    assert schedule.links_now(plan, after(*heard)) == plan.links


def test_what_never_came() -> None:
    plan = plan_of(cut("a", round_(2)), cut("b", round_(2), round_(5)), cut("c", When("time", 99.0)))
    heard = [
        event("round_due", "agg", round=2),
        done("fault_started", "a", 7),
        done("fault_started", "b", 7),
        verified("a", "start"),
    ]
    assert [(fault.id, why) for fault, why in schedule.undone(plan, after(*heard))] == [
        ("b", "the run ended before it was healed"),
        ("b", "the run ended before its start was verified"),
        ("c", "the run ended before it began"),
    ]


@given(st.lists(st.sampled_from("abc"), max_size=12))
def test_whatever_overlaps_a_heal_removes_only_its_own(toggled: list[str]) -> None:
    faults = {
        name: cut(name, round_(1), round_(2), peer)
        for name, peer in zip("abc", ("w01", "w02", "w01"), strict=True)
    }
    plan, heard, standing, over = plan_of(*faults.values()), [], set[str](), set[str]()
    for name in toggled:
        if name in standing:
            heard.append(done("fault_healed", name, 1))
            standing.remove(name)
            over.add(name)
        elif name not in over:
            heard.append(done("fault_started", name, 1))
            standing.add(name)
        expected = {peer for one in standing for peer in faults[one].deaf["agg"]}
        assert schedule.cut_now(plan, after(*heard)).get("agg", frozenset()) == expected
