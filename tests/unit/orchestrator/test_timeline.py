"""The timeline over a fleet of fakes: what is done, what is told, and what is never passed over in silence."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from node.contract import ShoalError
from node.contract.events import FAULT_EVENTS
from node.contract.plan import FaultPlan, Plan, When
from orchestrator.faults import fault as faults
from orchestrator.faults import partition, partitions, timeline
from orchestrator.faults.degrade import Degrade
from orchestrator.faults.fault import Scene, Verified
from orchestrator.faults.flapping import Flapping
from orchestrator.faults.timeline import Timeline
from orchestrator.history import History
from tests.unit.orchestrator.fake_fleet import FakeFleet
from tests.unit.orchestrator.test_schedule import NAMES, plan_of, round_

PATIENCE_S = 20.0
Make = Callable[..., "Lab"]


def isolating(name: str, id_: str, start: When, heal: When | None = None, **change: float) -> FaultPlan:
    deaf = {
        node: dict.fromkeys(sorted(peers), "drop")
        for node, peers in partitions.isolate(NAMES, [name]).items()
    }
    kind = "flapping" if change else "partition"
    return FaultPlan(id_, kind, f"isolate {name}", (name,), start, heal, deaf, change)  # type: ignore[arg-type]


def slowing(id_: str, latency_ms: float, start: When, heal: When | None = None) -> FaultPlan:
    change = {"links": [["agg", "w01"], ["w01", "agg"]], "set": {"latency_ms": latency_ms}}
    return FaultPlan(id_, "degrade", f"latency {latency_ms:g} ms", ("agg", "w01"), start, heal, {}, change)


class Lab:
    """A timeline that runs, its history, and an aggregator that is events."""

    def __init__(self, file: Path, plan: Plan, fleet: FakeFleet) -> None:
        self.fleet, self.history, self.said = fleet, History(file), list[str]()
        self.timeline = Timeline(plan, self.history, fleet, self.said.append)

    def tell(self, kind: str, node: str = "agg", **fields: Any) -> None:
        self.history.add({"kind": kind, "node": node, "wall": 0.0, "mono_ns": time.monotonic_ns(), **fields})

    def wait(self, kind: str, count: int = 1) -> list[Any]:
        assert self.history.wait(
            lambda events: sum(event["kind"] == kind for event in events) >= count, PATIENCE_S
        ), f"no {kind} among {[(e['kind'], e.get('message')) for e in self.history.events]}"
        return self.history.of(kind)

    def wait_released(self, number: int) -> None:
        """The aggregator comes to a round, and may open it at last."""
        self.tell("round_due", round=number)
        assert self.history.wait(
            lambda events: any(e["kind"] == "round_released" and e["round"] == number for e in events),
            PATIENCE_S,
        )
        assert self.fleet.released[-1] == number
        self.tell("round_opened", round=number)

    def wait_shown(self, told: list[dict[str, bool]]) -> None:
        """The metrics have been told this, one after the other."""
        deadline = time.monotonic() + PATIENCE_S
        while self.fleet.shown != told:
            assert time.monotonic() < deadline, self.fleet.shown
            time.sleep(0.005)

    def cut_at(self, node: str) -> set[str]:
        return {peer for cut in self.fleet.cuts[node].values() for peer in cut.deaf_to}


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    monkeypatch.setattr(faults, "LEAD_S", 0.0)
    monkeypatch.setattr(faults, "LEAD_PER_NODE_S", 0.0)
    monkeypatch.setattr(timeline, "LOOK_S", 0.02)
    monkeypatch.setattr(timeline, "RETRY_S", 0.01)
    labs: list[Lab] = []

    def made(*planned: FaultPlan, **how: Any) -> Lab:
        plan = plan_of(*planned)
        lab = Lab(tmp_path / f"{len(labs)}.jsonl", plan, FakeFleet(plan, **how))
        labs.append(lab)
        lab.timeline.start()
        return lab

    yield made
    for lab in labs:
        lab.timeline.stop()
        for event in lab.history.events:
            if event["node"] == "orchestrator":
                assert set(event) - {"kind", "node", "wall", "mono_ns"} == set(
                    FAULT_EVENTS[event["kind"]].split()
                )
        lab.history.close()


@contextmanager
def stopped(lab: Lab) -> Iterator[list[Any]]:
    lab.timeline.stop()
    yield lab.history.of("fault_failed")


def test_a_partition_from_round_to_round(make: Make) -> None:
    lab = make(isolating("w01", "split", round_(2), round_(3)))
    lab.tell("round_opened", round=1)
    lab.wait_released(2)
    assert (lab.cut_at("w01"), lab.cut_at("agg"), lab.cut_at("w02")) == ({"agg", "w02"}, {"w01"}, {"w01"})
    (started,) = lab.history.of("fault_started")
    assert (started["fault"], started["text"], started["nodes"]) == ("split", "isolate w01", ["w01"])
    assert set(started["effective_ns"]) == set(NAMES)
    assert started["skew_ms"] == 2.0  # the third node was two milliseconds behind the first
    assert min(started["effective_ns"].values()) == started["requested_ns"]
    (verified,) = lab.history.of("fault_verified")
    assert (verified["phase"], verified["verified"]) == ("start", True)
    assert verified["said"] == "probed: 4 directions silent, 2 open"
    lab.wait_released(3)
    assert not any(lab.fleet.cuts.values())
    (healed,) = lab.history.of("fault_healed")
    assert healed["fault"] == "split"
    assert [(event["phase"], event["verified"]) for event in lab.history.of("fault_verified")] == [
        ("start", True),
        ("heal", True),
    ]
    assert lab.history.of("fault_verified")[1]["said"] == "probed: 0 directions silent, 6 open"
    with stopped(lab) as failed:
        assert failed == []


def test_overlapping_partitions_and_the_heal_of_one(make: Make) -> None:
    lab = make(isolating("w01", "one", round_(1), round_(2)), isolating("w02", "two", round_(1)))
    lab.wait_released(1)
    assert lab.cut_at("agg") == {"w01", "w02"}
    lab.wait_released(2)
    assert (lab.cut_at("agg"), lab.cut_at("w01")) == ({"w02"}, {"w02"})
    # Of the healed fault's own directions those stay silent that the other one cuts.
    said = {(e["fault"], e["phase"]): e for e in lab.history.of("fault_verified")}
    assert said["one", "heal"]["verified"] is True
    assert said["one", "heal"]["said"] == "probed: 4 directions silent, 2 open"


def test_a_cut_that_leaks_is_told(make: Make) -> None:
    lab = make(isolating("w01", "split", round_(1)), leaky={("agg", "w01")})
    lab.wait_released(1)  # the run goes on, and is unknown
    (verified,) = lab.history.of("fault_verified")
    assert (verified["verified"], verified["said"]) == (False, "agg hears w01")
    assert "  split: NOT verified: agg hears w01" in lab.said


def test_a_cut_that_goes_too_far_is_told(make: Make) -> None:
    lab = make(isolating("w01", "split", round_(1)), deaf_forever={("agg", "w02")})
    lab.wait_released(1)
    assert lab.history.of("fault_verified")[0]["said"] == "agg does not hear w02"


def test_a_node_that_is_not_cut_makes_the_fault_fail_and_it_is_healed_all_the_same(make: Make) -> None:
    lab = make(isolating("w01", "split", round_(1), round_(2)), dead={"w02"})
    lab.wait_released(1)
    (failed,) = lab.history.of("fault_failed")
    assert (failed["fault"], failed["phase"]) == ("split", "start")
    assert failed["message"] == "w02: w02 does not answer"
    assert lab.history.of("fault_started") == []
    lab.fleet.dead.clear()
    lab.wait_released(2)
    assert not any(lab.fleet.cuts.values())
    assert [event["phase"] for event in lab.history.of("fault_verified")] == ["heal"]
    assert [event["fault"] for event in lab.history.of("fault_healed")] == ["split"]


def test_a_heal_that_fails_is_told(make: Make) -> None:
    lab = make(isolating("w01", "split", round_(1), round_(2)))
    lab.wait_released(1)
    lab.fleet.dead.add("w01")
    lab.wait_released(2)
    (failed,) = lab.history.of("fault_failed")
    assert (failed["phase"], failed["message"]) == ("heal", "w01: w01 does not answer")


def test_a_probe_that_cannot_be_made_verifies_nothing(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = make(isolating("w01", "split", When("time"), None))
    monkeypatch.setattr(lab.fleet, "hears", _refuse)
    lab.tell("round_opened", round=1)
    (verified,) = lab.wait("fault_verified")
    assert verified["verified"] is False
    assert "could not be probed" in verified["said"]


def test_a_crash_is_a_failed_fault(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = make(isolating("w01", "split", When("time"), None))
    monkeypatch.setattr(lab.fleet, "put_cut", _crash)
    lab.tell("round_opened", round=1)
    (failed,) = lab.wait("fault_failed")
    assert (failed["fault"], failed["phase"]) == ("split", "start")
    assert "RuntimeError: out of luck" in failed["message"]


def test_a_timeline_that_crashes_is_told(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = make(isolating("w01", "split", round_(1)))
    monkeypatch.setattr(lab.fleet, "clock_offset_ns", _crash)
    lab.tell("round_opened", round=1)
    (failed,) = lab.wait("fault_failed")
    assert (failed["fault"], failed["phase"]) == ("timeline", "end")


def test_by_time_and_one_after_another(make: Make) -> None:
    lab = make(
        isolating("w01", "one", When("time", 0.05), When("lasting", 0.5)),
        isolating("w02", "two", When("after", 0.05, fault="one"), When("lasting", 0.5)),
    )
    lab.tell("round_opened", round=1)
    lab.wait("fault_verified", 4)
    kinds = ("fault_started", "fault_healed")
    order = [(e["kind"], e["fault"]) for e in lab.history.events if e["kind"] in kinds]
    assert order == [(kind, fault) for fault in ("one", "two") for kind in kinds]
    assert all(event["verified"] for event in lab.history.of("fault_verified"))
    first, second = lab.history.of("fault_started")
    healed = lab.history.of("fault_healed")[0]
    assert first["requested_ns"] >= lab.history.of("round_opened")[0]["mono_ns"] + 50_000_000
    assert second["requested_ns"] >= max(healed["effective_ns"].values()) + 50_000_000


def test_flapping_comes_and_goes_and_leaves_nothing(make: Make) -> None:
    lab = make(isolating("w01", "flaps", round_(1), round_(2), period_s=0.4, down_s=0.2))
    lab.wait_released(1)
    flaps = lab.wait("fault_flapped", 4)
    assert [event["is_cut"] for event in flaps[:4]] == [False, True, False, True]
    lab.wait_released(2)
    assert not any(lab.fleet.cuts.values())
    said = [(event["phase"], event["verified"]) for event in lab.history.of("fault_verified")]
    assert said == [("start", True), ("heal", True)]
    assert len(lab.history.of("fault_started")) == 1


def test_what_another_fault_flaps_on_is_not_called_healed(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeline, "VERIFY_S", 0.3)
    lab = make(
        isolating("w01", "split", round_(1), round_(2)),
        isolating("w01", "flaps", round_(1), period_s=40.0, down_s=20.0),
    )
    lab.wait_released(1)
    lab.wait_released(2)
    (heal,) = [event for event in lab.history.of("fault_verified") if event["phase"] == "heal"]
    assert (heal["fault"], heal["verified"]) == ("split", False)
    assert heal["said"] == "another fault comes and goes on all of its links, or is at its agents"


def test_a_fault_that_is_too_short_to_be_seen_is_not_verified(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = make(isolating("w01", "blink", When("time"), When("lasting", 0.1)))

    def slow(*_: object) -> tuple[dict[Any, bool], list[str]]:
        lab.wait("fault_healed")
        return partition_probe(*_)  # type: ignore[arg-type]

    partition_probe = partition.probe
    monkeypatch.setattr(partition, "probe", slow)
    lab.tell("round_opened", round=1)
    lab.wait("fault_verified", 2)
    (start,) = [event for event in lab.history.of("fault_verified") if event["phase"] == "start"]
    assert (start["verified"], start["said"]) == (False, "it was healed before it could be verified")


def test_links_are_degraded_and_given_back(make: Make) -> None:
    lab = make(slowing("slow", 100.0, round_(1), round_(2)), slowing("slower", 300.0, round_(1), round_(3)))
    lab.wait_released(1)
    assert lab.fleet.rtt_ms("agg", "w01") == 600.0
    assert lab.fleet.rtt_ms("agg", "w02") == 10.0
    lab.wait_released(2)
    assert lab.fleet.rtt_ms("agg", "w01") == 600.0
    lab.wait_released(3)
    assert lab.fleet.told == lab.fleet.tables(lab.timeline._plan.links)
    verified = lab.history.of("fault_verified")
    assert len(verified) == 4
    assert all(event["verified"] for event in verified)
    assert verified[0]["said"] == "2 nodes read back as asked, 1 round trips as expected"


def test_a_link_that_is_not_as_slow_as_it_should_be_is_told(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = make(slowing("slow", 100.0, round_(1)))
    monkeypatch.setattr(lab.fleet, "rtt_ms", lambda *_: 10.0)
    lab.wait_released(1)
    (verified,) = lab.history.of("fault_verified")
    assert (verified["verified"], verified["said"]) == (
        False,
        "agg to w01 and back: 10.0 ms instead of 200 ms",
    )


def test_a_kernel_that_did_not_take_the_change_is_told(make: Make) -> None:
    lab = make(slowing("slow", 100.0, round_(1)), mismatches=("w02: loss 0 instead of 0.01",))
    lab.wait_released(1)
    (failed,) = lab.history.of("fault_failed")
    assert (failed["fault"], failed["phase"]) == ("slow", "start")
    assert "agg: w02: loss 0 instead of 0.01" in failed["message"]


def test_a_kernel_that_lost_the_change_is_told(make: Make) -> None:
    lab = make(slowing("slow", 100.0, round_(1), round_(2)))
    lab.wait_released(1)
    found = Degrade(lab.timeline._plan.faults[0])
    lab.fleet.mismatches = ("a class is missing",)
    verified = found.verify(lab.fleet, lab.timeline._look, "start")
    assert verified == Verified(False, "agg: a class is missing; w01: a class is missing")


def test_the_beginning_of_flapping_is_not_looked_for_while_it_is_away(make: Make) -> None:
    lab = make()
    plan = plan_of(isolating("w01", "flaps", round_(1), period_s=4.0, down_s=2.0))
    found = Flapping(plan.faults[0], []).verify(lab.fleet, lambda: Scene({}, plan.links), "start")
    assert found == Verified(None, "it does not cut at the moment")
    assert lab.fleet.calls == []


def test_an_agent_that_begins_anew_is_told_again(make: Make) -> None:
    lab = make(isolating("w01", "split", round_(1)), slowing("slow", 100.0, round_(1)))
    for node in NAMES:
        lab.tell("links_applied", node)
    lab.wait_released(1)
    lab.fleet.cuts["w01"].clear()
    lab.fleet.told["w01"] = lab.fleet.tables(lab.timeline._plan.links)["w01"]
    lab.fleet.refusals["w01"] = 2
    lab.tell("links_applied", "w01")
    (restored,) = lab.wait("fault_restored")
    assert lab.fleet.refusals["w01"] == 0
    assert (restored["nodes"], restored["faults"]) == (["w01"], ["split"])
    assert lab.cut_at("w01") == {"agg", "w02"}
    assert lab.fleet.rtt_ms("w01", "agg") == 200.0


def test_an_agent_that_cannot_be_told_again_is_a_failure(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline, "RESTORE_S", 0.0)
    lab = make(isolating("w01", "split", round_(1)))
    lab.tell("links_applied", "w01")
    lab.wait_released(1)
    lab.fleet.dead.add("w01")
    lab.tell("links_applied", "w01")
    (failed,) = lab.wait("fault_failed")
    assert (failed["phase"], failed["message"]) == ("restore", "w01: w01 does not answer")


def test_the_metrics_are_told_which_faults_are_in_force(make: Make) -> None:
    lab = make(
        isolating("w01", "split", round_(1), round_(2)),
        isolating("w02", "late", round_(9)),
        refuses_show=2,
    )
    before, during = {"split": False, "late": False}, {"split": True, "late": False}
    lab.wait_shown([before])
    lab.wait_released(1)
    lab.wait_shown([before, during])
    lab.wait_released(2)
    lab.wait_shown([before, during, before])
    lab.tell("links_applied")
    lab.tell("links_applied")  # the aggregator's agent has begun anew, and knows nothing any more
    lab.wait_shown([before, during, before, before])


def test_a_release_that_is_not_heard_is_sent_again(make: Make) -> None:
    lab = make(isolating("w01", "split", round_(1)), refuses_release=2)
    lab.wait_released(1)
    assert lab.fleet.released == [1]


def test_what_never_came_is_told_at_the_end(make: Make) -> None:
    lab = make(
        isolating("w01", "one", When("time", 0.0), round_(5)), isolating("w02", "two", When("time", 999.0))
    )
    lab.tell("round_opened", round=1)
    lab.wait("fault_verified")
    with stopped(lab) as failed:
        assert [(event["fault"], event["phase"], event["message"]) for event in failed] == [
            ("one", "end", "the run ended before it was healed"),
            ("two", "end", "the run ended before it began"),
        ]


def test_the_common_instant_leaves_nodes_time_and_is_never_early() -> None:
    now_ns = time.monotonic_ns()
    assert faults.common_instant(10, 0) >= now_ns + 350_000_000
    assert faults.common_instant(10, now_ns + 10**12) == now_ns + 10**12


def test_without_faults_there_is_no_timeline(make: Make) -> None:
    lab = make()
    lab.tell("round_opened", round=1)
    with stopped(lab) as failed:
        assert failed == []
    assert lab.fleet.calls == []


def _refuse(*_: object) -> Any:
    raise ShoalError("the agent does not answer")


def _crash(*_: object) -> Any:
    raise RuntimeError("out of luck")
