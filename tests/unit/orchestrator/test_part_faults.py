"""Faults that kill, pause and restart: what is read of them, whom they hit, and what shows that it is so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from node.contract import ShoalError, UsageError
from node.contract.plan import FaultPlan, Plan, When
from orchestrator.faults import schedule, timeline
from orchestrator.faults.fault import Effect
from orchestrator.planning import plan, scenario
from tests.unit.orchestrator.test_schedule import after, done, event, plan_of, round_, verified
from tests.unit.orchestrator.test_timeline import Lab, Make, make, slowing, stopped

__all__ = ["make"]  # the fixture
SCENARIO = """\
summary: small
fleet: {{workers: [{{count: 6}}]}}
workload: {{dataset: digits, rounds: 6}}
checks: [rounds_completed == 6]
faults:
{faults}
"""
Load = Callable[..., Plan]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def write_and_plan(*faults: str) -> Plan:
        text = SCENARIO.format(faults="\n".join(f"  - {{{one}}}" for one in faults))
        (tmp_path / "mine.yaml").write_text(text)
        return plan.make_plan(scenario.load(tmp_path / "mine.yaml", "mine.yaml"), 3)

    return write_and_plan


# -- reading and resolving


@pytest.mark.parametrize(
    ("said", "parts"),
    [
        ("kill: w02, at: round 2", {"w02": ("trainer",)}),
        ("kill: [w01, w02], at: round 2, heal: round 3", {"w01": ("trainer",), "w02": ("trainer",)}),
        ("pause: {targets: w03, part: ipfs}, at: 3 s, for: 2 s", {"w03": ("ipfs",)}),
        ("kill: {targets: w03, part: node}, at: 3 s", {"w03": ("node",)}),
        ("kill: {targets: agg}, at: round 2, for: 2 s", {"agg": ("aggregator",)}),
        ("restart: {part: aggregator}, at: round 2 + 1 s", {"agg": ("aggregator",)}),
        ("restart: {targets: [agg, w01], part: agent}, at: 1 s", {"agg": ("agent",), "w01": ("agent",)}),
    ],
)
def test_which_parts_of_which_nodes(load: Load, said: str, parts: dict[str, tuple[str, ...]]) -> None:
    (fault,) = load(said).faults
    assert fault.parts == parts
    assert fault.targets == tuple(sorted(parts))
    assert (fault.deaf, fault.change) == ({}, {})


def test_a_third_is_drawn_by_the_seed_and_the_faults_name(load: Load) -> None:
    (one,) = load("kill: third, at: round 2, name: a").faults
    (other,) = load("kill: third, at: round 2, name: b").faults
    assert len(one.parts) == len(other.parts) == 2
    assert load("kill: third, at: round 2, name: a").faults[0] == one
    assert one.parts != other.parts


def test_a_restart_is_over_at_once_and_others_may_come_after_it(load: Load) -> None:
    first, second = load("restart: w01, at: round 2", "kill: w02, at: after restart-1 + 1 s").faults
    assert first.heal == When("lasting", 0.0)
    assert second.start == When("after", 1.0, fault="restart-1")


@pytest.mark.parametrize(
    ("faults", "said"),
    [
        (["kill: {part: trainer}, at: round 2"], "it does not say whom it hits"),
        (["kill: {targets: w01, part: brain}, at: round 2"], "'brain' is not known here"),
        (["kill: {targets: w01, limb: ipfs}, at: round 2"], "limb"),
        (["kill: {targets: w01, part: aggregator}, at: round 2"], "w01 has no aggregator"),
        (["kill: {targets: agg, part: trainer}, at: round 2, for: 1 s"], "agg has no trainer"),
        (["kill: w01, how: drop, at: round 2"], "nothing is cut by kill"),
        (["restart: w01, at: round 2, heal: round 3"], "a restart is over by itself"),
        (["restart: w01, at: round 2, for: 1 s"], "a restart is over by itself"),
        (["kill: agg, at: round 2"], "no round would end with the aggregator's node without aggregator"),
        (["kill: {targets: agg, part: agent}, at: round 2, heal: round 3"], "round 3 would never begin"),
        (["pause: agg, at: round 2, heal: round 2 + 3 s"], "round 2 would never begin"),
        (
            [
                "kill: agg, name: dead, at: round 2, heal: after other + 1 s",
                "pause: w01, name: other, at: round 2, heal: round 4",
            ],
            "faults[0].heal: round 4 would never begin",
        ),
        (["kill: w01, at: round 3 + 2 s, heal: round 3 + 1 s"], "it would be healed in round 3, before it"),
        (["kill: w01, at: round 3, heal: round 2 + 1 s"], "it would be healed in round 2, before it"),
        (["kill: w01, at: round 9 + 1 s"], "there is no round 9"),
        (["kill: w01, at: round 3 + soon"], "soon"),
    ],
)
def test_what_is_refused(load: Load, faults: list[str], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(*faults)
    assert said in str(caught.value)


KILLED = "kill: w01, name: dead, "
PAUSED = "pause: w01, name: still, "


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (KILLED + "at: 10 s, for: 10 s", PAUSED + "at: 15 s, for: 1 s"),
        (KILLED + "at: 15 s, for: 1 s", PAUSED + "at: 10 s, for: 10 s"),
        (KILLED + "at: 10 s, heal: 20 s", PAUSED + "at: 20 s, for: 1 s"),  # its heal would not be seen
        (KILLED + "at: 10 s", PAUSED + "at: 900 s, for: 1 s"),
        (KILLED + "at: 10 s, for: 10 s", PAUSED + "at: round 1 + 15 s, for: 1 s"),
        (KILLED + "at: round 1", PAUSED + "at: 15 s, for: 1 s"),
        (KILLED + "at: round 2, heal: round 4", PAUSED + "at: round 3, heal: round 5"),
        (KILLED + "at: round 2, heal: round 3", PAUSED + "at: round 3, heal: round 4"),
        (KILLED + "at: round 2, for: 5 s", PAUSED + "at: round 2, for: 7 s"),
        (KILLED + "at: round 2", PAUSED + "at: round 2 + 3 s, for: 1 s"),
        (KILLED + "at: round 2", PAUSED + "at: after other, for: 1 s"),
        (KILLED + "at: round 2 + 1 s, for: 5 s", PAUSED + "at: round 2 + 3 s, for: 1 s"),
        (KILLED + "at: 1 s, heal: after other + 1 s", PAUSED + "at: 11 s, for: 1 s"),
        (KILLED + "at: round 2", "restart: w01, name: anew, at: round 2"),
        ("restart: w01, name: dead, at: 5 s", "restart: w01, name: anew, at: 5 s"),
        (KILLED + "at: round 2", "pause: {targets: w01, part: node}, name: still, at: round 2, for: 1 s"),
    ],
)
def test_two_faults_that_meet_at_one_part_are_refused(load: Load, one: str, other: str) -> None:
    further = "kill: w02, name: other, at: round 2 + 1 s, for: 1 s"
    if "1 s, heal: after other" in one:
        further = "kill: w02, name: other, at: 5 s, for: 5 s"
    with pytest.raises(UsageError) as caught:
        load(further, one, other)
    assert "the trainer of w01 before" in caught.value.message
    assert "is seen to be over" in caught.value.message


def test_the_later_of_two_that_meet_is_told_with_line_key_and_cure(load: Load) -> None:
    with pytest.raises(UsageError) as caught:
        load(KILLED + "at: 15 s, for: 1 s", PAUSED + "at: 10 s, for: 10 s")
    assert caught.value.message == (
        "mine.yaml:6: faults[0].at: dead would kill the trainer of w01 before still, of line 7, is seen to be over"
    )
    assert 'or begin it later, as in at: "after still + 20 s"' in caught.value.hint
    with pytest.raises(UsageError) as caught:
        load(KILLED + "at: round 2", PAUSED + "at: round 3")
    assert caught.value.message.startswith("mine.yaml:7: faults[1].at: still would pause")
    assert "or say when dead heals" in caught.value.hint


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (KILLED + "at: 10 s, for: 10 s", PAUSED + "at: 21 s, for: 1 s"),
        (KILLED + "at: 10 s, for: 10 s", PAUSED + "at: 1 s, for: 8 s"),
        (KILLED + "at: round 2, heal: round 3", PAUSED + "at: round 4, heal: round 5"),
        (KILLED + "at: round 2, heal: round 3", PAUSED + "at: round 3 + 9 s, for: 1 s"),
        (KILLED + "at: round 2, heal: round 3", PAUSED + "at: after dead + 9 s, for: 1 s"),
        (KILLED + "at: round 2, heal: round 3", "pause: {targets: w01, part: ipfs}, at: round 2, for: 9 s"),
        (KILLED + "at: round 2, heal: round 3", "pause: w02, at: round 2, heal: round 3"),
        (KILLED + "at: round 2, heal: round 3", "partition: {isolate: w01}, at: round 2, heal: round 3"),
        # Which comes first only the run can tell.
        (KILLED + "at: 10 s, for: 10 s", PAUSED + "at: round 2, heal: round 3"),
        (KILLED + "at: round 2, for: 10 s", PAUSED + "at: round 2 + 5 s, for: 1 s"),
        (KILLED + "at: round 2, heal: round 4", PAUSED + "at: round 2 + 3 s, for: 1 s"),
        (KILLED + "at: round 2 + 9 s, for: 1 s", PAUSED + "at: round 3 + 5 s, for: 1 s"),
    ],
)
def test_faults_that_do_not_meet_or_may_not_are_let_through(load: Load, one: str, other: str) -> None:
    assert len(load(one, other).faults) == 2
    assert len(load(other, one).faults) == 2


def test_a_moment_within_a_round_that_fits(load: Load) -> None:
    (fault,) = load("pause: agg, at: round 2 + 1 s, heal: round 2 + 3 s").faults
    assert (fault.start, fault.heal) == (When("within", 1.0, 2), When("within", 3.0, 2))
    other = "pause: w01, name: other, at: round 1, heal: round 2"
    assert len(load(other, "kill: agg, at: round 2 + 1 s, heal: after other + 5 s").faults) == 2


# -- the timetable


def splitting(id_: str, start: When, heal: When) -> FaultPlan:
    """Both workers on one side, the aggregator on the other."""
    deaf = {"agg": {"w01": "drop", "w02": "drop"}, "w01": {"agg": "drop"}, "w02": {"agg": "drop"}}
    return FaultPlan(id_, "partition", "", ("w01", "w02"), start, heal, deaf)  # type: ignore[arg-type]


def hitting(part: str, id_: str, start: When, heal: When | None = None, kind: str = "kill") -> FaultPlan:
    """A fault of w01's."""
    return FaultPlan(id_, kind, f"{kind} {part}", ("w01",), start, heal, parts={"w01": (part,)})


def test_within_a_round_counts_from_its_first_opening_and_holds_no_round_back() -> None:
    planned = plan_of(hitting("ipfs", "a", When("within", 2.0, 3)))
    opened = event("round_opened", "agg", mono_ns=5_000_000_000, round=3)
    assert schedule.coming(planned, after(event("round_opened", "agg", round=2))) == []
    again = event(
        "round_opened", "agg", mono_ns=9_000_000_000, round=3
    )  # a restarted aggregator tells it twice
    (step,) = schedule.coming(planned, after(opened, again))
    assert step.at_ns == 7_000_000_000
    assert schedule.pauses(planned) == ()
    assert schedule.releasable(planned, after(event("round_due", "agg", round=3))) == 3


def test_nobody_watches_a_node_without_agent_until_it_is_seen_to_be_back() -> None:
    planned = plan_of(hitting("node", "a", round_(1)), hitting("ipfs", "b", round_(1)))
    both = after(done("fault_started", "a", 5), done("fault_started", "b", 5))
    assert schedule.down(planned, both) == {"w01": ("node", "ipfs")}
    assert schedule.unwatched(planned, both) == {"w01"}
    healed = [done("fault_started", "a", 5), done("fault_healed", "a", 9)]
    assert schedule.unwatched(planned, after(*healed)) == {"w01"}
    assert schedule.unwatched(planned, after(*healed, verified("a", "heal"))) == frozenset()
    assert schedule.unwatched(planned, after(done("fault_started", "b", 5))) == frozenset()


# -- what is done, and what is believed


def told(lab: Lab) -> list[tuple[str, str, bool]]:
    return [(e["fault"], e["phase"], e["verified"]) for e in lab.history.of("fault_verified")]


def ready(lab: Lab) -> Callable[[str, str], None]:
    def tell(node: str, part: str) -> None:
        if part in ("trainer", "node"):
            lab.tell("trainer_ready", node, shard_bytes=1, examples=1, seconds=0.1)

    return tell


@pytest.mark.parametrize("part", ["trainer", "ipfs", "agent", "node"])
def test_killed_and_started_again(make: Make, part: str) -> None:
    lab = make(hitting(part, "dead", round_(2), round_(3)))
    lab.fleet.on_start = ready(lab)
    lab.wait_released(2)
    assert lab.fleet.state("w01", part) == "ended"
    assert told(lab) == [("dead", "start", True)]
    (started,) = lab.history.of("fault_started")
    assert set(started["effective_ns"]) == {"w01"}
    lab.wait_released(3)
    assert lab.fleet.state("w01", part) == "running"
    assert told(lab)[1:] == [("dead", "heal", True)]
    with stopped(lab) as failed:
        assert failed == []


def test_paused_and_resumed_are_the_same_processes(make: Make) -> None:
    lab = make(hitting("trainer", "still", round_(2), round_(3), "pause"))
    lab.wait_released(2)
    assert lab.fleet.state("w01", "trainer") == "paused"
    lab.wait_released(3)  # without a word of the trainer's that it has begun anew
    assert told(lab) == [("still", "start", True), ("still", "heal", True)]
    assert lab.fleet.starts == {}


def test_a_restart_is_another_process_and_over_when_it_works(make: Make) -> None:
    lab = make(hitting("trainer", "anew", round_(2), When("lasting"), "restart"))
    lab.fleet.on_start = ready(lab)
    lab.wait_released(2)
    lab.wait("fault_verified", 2)
    assert sorted(told(lab)) == [("anew", "heal", True), ("anew", "start", True)]
    assert lab.fleet.starts == {("w01", "trainer"): 1}


def test_a_part_that_answers_though_it_is_said_to_be_dead_is_told(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeline, "DOWN_S", 0.2)
    lab = make(hitting("ipfs", "dead", round_(1)), undying={("w01", "ipfs")})
    lab.wait_released(1)
    (said,) = lab.history.of("fault_verified")
    assert (said["verified"], said["said"]) == (False, "ipfs of w01 answers its node")


def test_a_probe_that_hears_nobody_shows_nothing(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline, "DOWN_S", 0.2)
    lab = make(hitting("trainer", "dead", round_(1)), ended={("w02", "trainer")})
    lab.wait_released(1)
    (said,) = lab.history.of("fault_verified")
    assert (said["verified"], said["said"]) == (False, "trainer of w02: refused")


def test_what_does_not_come_back_is_told_and_the_round_goes_on(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeline, "BACK_S", 0.2)
    lab = make(hitting("trainer", "dead", round_(1), round_(2)))
    lab.wait_released(1)
    lab.wait_released(2)  # it runs, and never says that it is ready
    said = lab.history.of("fault_verified")[-1]
    assert (said["phase"], said["verified"]) == ("heal", False)
    assert said["said"] == "trainer of w01 does not work yet"


def test_what_cannot_be_started_is_a_failed_heal(make: Make) -> None:
    lab = make(hitting("ipfs", "dead", round_(1), round_(2)), unstartable={("w01", "ipfs")})
    lab.wait_released(1)
    lab.wait_released(2)
    (failed,) = lab.history.of("fault_failed")
    assert (failed["phase"], failed["message"]) == ("heal", "w01: ipfs of w01 does not start")


def test_a_node_that_comes_back_within_a_partition_is_cut_again(make: Make) -> None:
    lab = make(hitting("node", "dead", round_(1), round_(3)), splitting("split", round_(2), round_(4)))
    lab.fleet.on_start = ready(lab)
    lab.wait_released(1)
    lab.wait_released(2)  # it is cut off while it cannot be told
    assert lab.cut_at("w01") == set()
    assert (lab.cut_at("agg"), lab.cut_at("w02")) == ({"w01", "w02"}, {"agg"})
    assert ("split", "start", True) in told(lab)
    lab.wait_released(3)
    assert lab.cut_at("w01") == {"agg"}
    assert ("dead", "heal", True) in told(lab)
    lab.wait_released(4)
    assert not any(lab.fleet.cuts.values())
    with stopped(lab) as failed:
        assert failed == []


def test_a_node_that_comes_back_after_a_partition_is_whole_again(make: Make) -> None:
    lab = make(
        hitting("agent", "dead", round_(2), round_(4)),
        splitting("split", round_(1), round_(3)),
        slowing("slow", 100.0, When("time", 1000.0)),
    )
    lab.wait_released(1)
    lab.wait_released(2)
    lab.wait_released(3)
    assert lab.cut_at("w01") == {"agg"}  # nobody was there to take it away
    lab.wait_released(4)
    assert lab.cut_at("w01") == set()
    assert ("put_links", "w01", "") in lab.fleet.calls
    assert ("dead", "heal", True) in told(lab)


@pytest.mark.parametrize(
    ("effective_ns", "said"),
    [
        ({}, "as soon as their agents are back"),
        ({"w01": 5}, "on one node"),
        ({"w01": 1_000_000, "w02": 3_500_000}, "on 2 nodes within 2.5 ms"),
    ],
)
def test_where_a_fault_took_effect(effective_ns: dict[str, int], said: str) -> None:
    assert timeline._where(Effect(0, effective_ns, {})) == said


def test_while_the_aggregators_agent_is_down_it_is_asked_for_nothing(make: Make) -> None:
    fault = FaultPlan(
        "dead", "kill", "", ("agg",), round_(1), When("lasting", 0.2), parts={"agg": ("agent",)}
    )
    lab = make(fault)
    refuse: Any = lab.fleet.release

    def release(round_: int) -> None:
        assert lab.fleet.state("agg", "agent") == "running"
        refuse(round_)

    lab.fleet.release = release  # type: ignore[method-assign]
    lab.wait_released(1)
    lab.wait("fault_healed")
    with stopped(lab) as failed:
        assert [e for e in failed if e["phase"] != "end"] == []


def test_a_timeline_of_a_fleet_whose_parts_nobody_can_reach_says_so(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = make(hitting("ipfs", "dead", When("time")))

    def refuse(*_: object) -> None:
        raise ShoalError("w01 takes no orders")

    monkeypatch.setattr(lab.fleet, "kill", refuse)
    lab.tell("round_opened", round=1)
    (failed,) = lab.wait("fault_failed")
    assert (failed["phase"], failed["message"]) == ("start", "w01: w01 takes no orders")
