"""Figures of literal histories."""

from __future__ import annotations

from typing import Any

import pytest

from node.contract.plan import (
    AggregationPlan,
    CheckPlan,
    NetworkPlan,
    NodePlan,
    PartitionPlan,
    Plan,
    WorkloadPlan,
)
from orchestrator.verdict import report, results

NODES = (
    NodePlan("agg", ("aggregator",), None, None, "10.1.0.1", "10.2.0.1"),
    NodePlan("w01", ("trainer",), None, None, "10.1.0.2", "10.2.0.2"),
    NodePlan("w02", ("trainer",), None, None, "10.1.0.3", "10.2.0.3"),
)


def plan(strategy: str = "mean", target: float = 0.8) -> Plan:
    return Plan(
        1,
        "tiny",
        "two workers",
        7,
        NODES,
        NetworkPlan("10.1.0.0/24", "10.2.0.0/24", "prompt", (("agg", "w01"), ("agg", "w02"))),
        WorkloadPlan("digits", "cnn", PartitionPlan("iid"), 3, 1, 32, 0.1),
        AggregationPlan(strategy, "sync", 0.5, 30.0, {}),
        (CheckPlan(f"final_accuracy >= {target}", "final_accuracy", ">=", target),),
    )


def event(kind: str, node: str, wall: float, **fields: Any) -> dict[str, Any]:
    return {"kind": kind, "node": node, "wall": wall, "mono_ns": int(wall * 1e9), **fields}


def round_of(number: int, wall: float, seconds: float, accuracy: float) -> list[dict[str, Any]]:
    updates = [
        event(
            "update_accepted",
            "agg",
            wall,
            round=number,
            sender=name,
            update="b",
            examples=10,
            bytes=100,
            seconds=0.1,
            train_s=train_s,
        )
        for name, train_s in (("w01", 1.0), ("w02", 2.0))
    ]
    closed = event(
        "round_closed",
        "agg",
        wall + seconds,
        round=number,
        completed=True,
        closed_by="all",
        accepted=["w01", "w02"],
        refused=[],
        missing=[],
        record=f"r{number}",
        model=f"m{number}",
        accuracy=accuracy,
        loss=1.0,
        aggregate_s=0.1,
        seconds=seconds,
    )
    opened = event(
        "round_opened",
        "agg",
        wall,
        round=number,
        model="m",
        size_bytes=1000,
        asked=["w01", "w02"],
        deadline_s=30,
        received_bytes=500 * number,
    )
    trained = [
        event("trained", name, wall, round=number, received_bytes=250 * number) for name in ("w01", "w02")
    ]
    return [opened, *trained, *updates, closed]


HISTORY = [
    event("run_started", "orchestrator", 100.0),
    event("all_ready", "agg", 108.0, trainers=["w01", "w02"]),
    *round_of(1, 110, 6.0, 0.5),
    *round_of(2, 120, 3.0, 0.85),
    *round_of(3, 130, 5.0, 0.9),
    event(
        "run_finished",
        "agg",
        140.0,
        head="r3",
        model="m3",
        rounds=3,
        accuracy=0.9,
        loss=1.0,
        precision=0.91,
        recall=0.89,
        f1=0.9,
        inference_ms_1=2.0,
        inference_ms_32=8.0,
    ),
]
COUNTERS = {
    "end": {"agg": 5400.0, "w01": 2700.0, "w02": 2700.0},
    "memory": {"agg": 9e8, "w01": 1e8, "w02": 3e8},
}


def test_the_figures_of_a_whole_run() -> None:
    found = results.figures(plan(), HISTORY, COUNTERS)
    assert found["rounds_completed"] == 3
    assert (found["final_model_cid"], found["head"], found["final_accuracy"]) == ("m3", "r3", 0.9)
    assert found["round_seconds"] == {"first": 6.0, "median": 4.0, "p95": 5.0}
    assert found["overhead_ratio"] == 2.0  # 4 s, of which the longest training took 2
    # 8,800 bytes came in, for two rounds of two workers that take and give 1,000 each.
    assert found["wire_bytes_ratio"] == pytest.approx(1.1)
    assert found["worker_memory_bytes"] == 2e8
    assert found["container_memory_bytes"] is None
    assert found["startup_seconds"] == 8.0
    assert found["time_to_accuracy_seconds"] == 13.0
    assert found["inference_seconds"] == {"1": 0.002, "32": 0.008}
    assert found["rounds"][0]["updates"]["w02"]["train_s"] == 2.0


def test_memory_of_containers_is_told_where_nothing_better_is_known() -> None:
    seen = {"agg": 9e8, "w01": 4e8, "w02": 5e8}
    found = results.figures(plan(), HISTORY, {"end": COUNTERS["end"], "containers": seen})
    assert found["container_memory_bytes"] == seen
    assert report.memory_said(plan(), found) == "450 MB, as its containers are charged"
    assert report.memory_said(plan(), results.figures(plan(), HISTORY, COUNTERS)) == "200 MB"
    assert report.memory_said(plan(), results.figures(plan(), HISTORY, {})) == "not known"


def test_what_was_not_observed_is_null() -> None:
    found = results.figures(plan(), HISTORY[:1], {})
    assert found["rounds_completed"] == 0
    known = {"rounds_completed", "round_seconds", "rounds", "network_doubts", "link_probes", "faults"}
    nulls = set(found) - known - {"recovery_seconds", "unwatched_seconds"}
    assert {found[key] for key in nulls} == {None}
    assert set(found["round_seconds"].values()) == {None}


def test_a_record_that_a_restarted_aggregator_tells_again_counts_once() -> None:
    closed = next(e for e in HISTORY if e["kind"] == "round_closed")
    again = [*HISTORY, {**closed, "aggregate_s": None, "wall": closed["wall"] + 5}]
    found, once = results.figures(plan(), again, COUNTERS), results.figures(plan(), HISTORY, COUNTERS)
    for key in ("rounds_completed", "rounds", "round_seconds"):
        assert found[key] == once[key]


def test_a_node_that_no_longer_answers_leaves_the_wire_unknown() -> None:
    end = {name: value for name, value in COUNTERS["end"].items() if name != "w02"}
    assert results.figures(plan(), HISTORY, {**COUNTERS, "end": end})["wire_bytes_ratio"] is None


def test_an_accuracy_that_was_never_reached_has_no_time() -> None:
    assert results.figures(plan(target=0.99), HISTORY, COUNTERS)["time_to_accuracy_seconds"] is None


def test_what_may_be_repeated() -> None:
    assert results.repeatable(plan(), HISTORY) is None
    assert "noise" in str(results.repeatable(plan("dp"), HISTORY))
    assert "finish" in str(results.repeatable(plan(), HISTORY[:-1]))
    lost = event("part_ended", "w02", 125.0, part="trainer", status=-9, expected=False)
    assert "w02" in str(results.repeatable(plan(), [*HISTORY, lost]))
    late = [{**e, "closed_by": "deadline"} if e["kind"] == "round_closed" else e for e in HISTORY]
    assert "deadline" in str(results.repeatable(plan(), late))


def test_the_report_ends_with_the_verdict() -> None:
    checks = [{"check": "final_accuracy >= 0.8", "state": "held", "said": "0.9"}]
    outcome = {
        **results.figures(plan(), HISTORY, COUNTERS),
        "verdict": "held",
        "checks": checks,
        "failure": None,
        "ipfs_engine": "embedded 0.1.0",
        "repeatable": True,
        "repeatable_reason": None,
        "delay_engine": "none",
    }
    lines = report.report(plan(), outcome).splitlines()
    assert lines[-1] == "verdict: held"
    assert "  + final_accuracy >= 0.8: held (0.9)" in lines
    assert any("rounds completed" in line and "3 of 3" in line for line in lines)


@pytest.mark.parametrize(
    ("start", "heal", "said"),
    [
        (True, True, "w01, w02: start verified, heal verified"),
        (True, False, "w01, w02: start verified, heal NOT verified"),
        (False, None, "w01, w02: start NOT verified"),  # it was never to heal
    ],
)
def test_the_report_says_whom_a_fault_hit_and_what_was_seen(
    start: bool, heal: bool | None, said: str
) -> None:
    fault = {"id": "rain", "nodes": ["w01", "w02"], "start_verified": start, "heal_verified": heal}
    found = {**results.figures(plan(), HISTORY, COUNTERS), "faults": [fault]}
    assert ("rain", said) in report.network_rows(found)
