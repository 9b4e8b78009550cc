from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.contract import ExitCode, UsageError
from node.contract.plan import (
    AggregationPlan,
    CheckPlan,
    NetworkPlan,
    NodePlan,
    PartitionPlan,
    Plan,
    WorkloadPlan,
)
from orchestrator.verdict import checks
from orchestrator.verdict.checks import Verdict
from orchestrator.verdict.evidence import Observed, UnobservedError

History = list[dict[str, Any]]


ALL = ["w01", "w02", "w03", "w04"]
NODES = (
    NodePlan("agg", ("aggregator",), "core", None, "10.1.0.1", "10.2.0.1"),
    *(
        NodePlan(name, ("trainer",), "eu", "phone" if name == "w04" else None, f"10.1.0.{n}", f"10.2.0.{n}")
        for n, name in enumerate(ALL, start=2)
    ),
)
PLAN = Plan(
    1,
    "s",
    "",
    7,
    NODES,
    NetworkPlan("10.1.0.0/24", "10.2.0.0/24", "prompt", ()),
    WorkloadPlan("digits", "cnn", PartitionPlan("iid"), 3, 1, 32, 0.1),
    AggregationPlan("mean", "sync", 0.5, 30.0, {}),
    (),
)


def closed(number: int, accepted: Sequence[str] = ALL, completed: bool = True) -> dict[str, Any]:
    missing = [name for name in ALL if name not in accepted]
    about = {"completed": completed, "accepted": list(accepted), "refused": 0, "missing": missing}
    return {"kind": "round_closed", "round": number, "seconds": float(number), **about}


def finished(rounds: int, accuracy: float | None = 0.9) -> dict[str, Any]:
    return {"kind": "run_finished", "rounds": rounds, "accuracy": accuracy}


WHOLE: History = [closed(1), closed(2, [], completed=False), closed(3, ALL[:3]), finished(2)]
CUT_OFF: History = WHOLE[:-1]


def judged(text: str, history: History, results: Mapping[str, Any] | None = None) -> str:
    verdict = checks.judge(checks.read(text), PLAN, history, results or {})
    assert verdict.check == text
    assert verdict.said
    return verdict.state


@pytest.mark.parametrize(
    ("text", "plan"),
    [
        ("final_accuracy >= 0.85", CheckPlan("final_accuracy >= 0.85", "final_accuracy", ">=", 0.85)),
        ("final_accuracy>=85 %", CheckPlan("final_accuracy>=85 %", "final_accuracy", ">=", 0.85)),
        ("final_accuracy: 0.85", CheckPlan("final_accuracy: 0.85", "final_accuracy", ">=", 0.85)),
        (" rounds_completed: 8 ", CheckPlan("rounds_completed: 8", "rounds_completed", "==", 8.0)),
        ("participants < 3", CheckPlan("participants < 3", "participants", "<", 3.0)),
        ("repeatable", CheckPlan("repeatable", "repeatable")),
        (
            "recovered_within: 2 rounds",
            CheckPlan("recovered_within: 2 rounds", "recovered_within", "<=", 2.0),
        ),
        ("fetch_rate(phone): 2 Mbit", CheckPlan("fetch_rate(phone): 2 Mbit", "fetch_rate", "<=", 2e6)),
        ("upload_time >= 300 ms", CheckPlan("upload_time >= 300 ms", "upload_time", ">=", 0.3)),
    ],
)
def test_what_a_check_means(text: str, plan: CheckPlan) -> None:
    assert checks.read(text) == plan


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        ("final_acuracy >= 0.8", "no check 'final_acuracy'", "perhaps you meant final_accuracy"),
        ("final_accuracy", "needs a value", "final_accuracy >= 0.8"),
        ("final_accuracy >= 85", "more than all", "100 %"),
        ("final_accuracy => 0.8", "is no check|is no share|there is no", ""),
        ("final_accuracy = 0.8", "there is no =", ">="),
        ("rounds_completed == 1.5", "is no count", "whole"),
        ("repeatable == 1", "takes no value", "repeatable"),
        ("emulation_accurate: 1", "takes no value", "emulation_accurate"),
        ("recovered_within: 0 rounds", "no number of rounds", "1 round"),
        ("recovered_within: 2 s", "no number of rounds", "1 round"),
        ("fetch_rate <= 10", "needs a unit", "bit"),
        ("fetch_rate", "needs a value", "fetch_rate <= 10 Mbit"),
        ("round_time <= 3 rounds", "is no|no unit", ""),
        ("participants(phone) >= 2", "about the whole run", "participants"),
        ("", "is no check", ""),
    ],
)
def test_a_wrong_check_is_refused(text: str, said: str, hint: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        checks.read(text)
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("final_accuracy >= 0.9", "held"),
        ("final_accuracy > 0.9", "violated"),
        ("rounds_completed == 2", "held"),
        ("rounds_completed >= 3", "violated"),
        ("participants >= 3", "held"),
        ("participants >= 4", "violated"),
        ("rounds_with_everyone >= 1", "held"),
        ("rounds_with_everyone >= 2", "violated"),
        ("missing_updates == 5", "held"),
        ("missing_updates >= 6", "violated"),
        ("late_updates >= 1", "violated"),
        ("round_time <= 3 s", "held"),
        ("round_time < 3 s", "violated"),
    ],
)
def test_a_whole_history_decides(text: str, state: str) -> None:
    assert judged(text, WHOLE) == state


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("final_accuracy >= 0.1", "unknown"),
        ("rounds_completed == 2", "unknown"),
        ("rounds_completed >= 2", "held"),
        ("rounds_completed < 2", "violated"),
        ("rounds_completed >= 3", "unknown"),
        ("participants >= 3", "unknown"),
        ("participants >= 4", "violated"),
        ("participants <= 3", "held"),
        ("missing_updates >= 5", "held"),
        ("missing_updates == 5", "unknown"),
        ("missing_updates < 5", "violated"),
        ("round_time <= 3 s", "unknown"),
    ],
)
def test_a_history_without_its_end_decides_only_what_it_can(text: str, state: str) -> None:
    assert judged(text, CUT_OFF) == state


def test_a_history_with_a_gap_is_not_whole() -> None:
    assert judged("rounds_completed == 2", [closed(1), closed(2), finished(3)]) == "unknown"


def test_a_round_that_is_told_twice_counts_once() -> None:
    assert judged("rounds_completed == 1", [closed(1), closed(1), finished(1)]) == "held"


@pytest.mark.parametrize("accuracy", [None, math.nan])
def test_an_accuracy_that_is_no_number_is_unknown(accuracy: float | None) -> None:
    assert judged("final_accuracy >= 0.1", [finished(0, accuracy)]) == "unknown"


def test_no_history_shows_nothing() -> None:
    assert {judged(text, []) for text in ("final_accuracy >= 0", "participants >= 0")} == {"unknown"}


def test_repeatable_is_what_the_results_say() -> None:
    assert judged("repeatable", [], {"repeatable": True}) == "held"
    assert judged("repeatable", [], {"repeatable": None}) == "unknown"
    assert judged("repeatable", []) == "unknown"
    lost = {"repeatable": False, "repeatable_reason": "lost: w02"}
    verdict = checks.judge(checks.read("repeatable"), PLAN, [], lost)
    assert (verdict.state, verdict.said) == ("violated", "repeatable is false: lost: w02")


def test_a_crashing_check_is_unknown() -> None:
    verdict = checks.judge(checks.read("final_accuracy >= 0.1"), PLAN, [{"kind": "run_finished"}], {})
    assert (verdict.state, verdict.said) == ("unknown", "the check crashed: KeyError: 'accuracy'")


@pytest.mark.parametrize(
    ("states", "code"),
    [
        (["held", "held"], ExitCode.HELD),
        (["held", "unknown"], ExitCode.UNKNOWN),
        (["unknown", "violated", "held"], ExitCode.VIOLATED),
        ([], ExitCode.UNKNOWN),
    ],
)
def test_the_verdict_of_the_run(states: list[checks.State], code: ExitCode) -> None:
    assert checks.overall([Verdict("x", state, "") for state in states]) == code


@pytest.mark.parametrize("state", ["held", "violated"])
def test_nothing_is_shown_on_a_network_in_doubt(state: checks.State) -> None:
    assert checks.overall([Verdict("x", state, "")], ["w01 was deaf"]) == ExitCode.UNKNOWN


TIMED: History = [
    {"kind": "round_opened", "round": 1, "size_bytes": 1_000_000},
    {"kind": "trained", "node": "w01", "round": 1, "fetch_s": 1.0},
    {"kind": "trained", "node": "w04", "round": 1, "fetch_s": 4.0},
    {"kind": "update_accepted", "sender": "w01", "round": 1, "bytes": 500_000, "seconds": 1.0},
    {"kind": "update_accepted", "sender": "w04", "round": 1, "bytes": 500_000, "seconds": 8.0},
    {"kind": "update_refused", "sender": "w02", "round": 1, "reason": "late", "detail": ""},
    closed(1),
    finished(1),
]


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("fetch_rate(phone) <= 2 Mbit", "held"),
        ("fetch_rate(w01) <= 7.9 Mbit", "violated"),
        ("fetch_rate <= 2 Mbit", "violated"),
        ("fetch_time(phone) >= 4 s", "held"),
        ("fetch_time(w01) >= 2 s", "violated"),
        ("fetch_time(eu) >= 2.5 s", "held"),
        ("upload_rate(phone) <= 500 kbit", "held"),
        ("upload_rate(phone) <= 499 kbit", "violated"),
        ("upload_time(w04) > 7 s", "held"),
        ("upload_time(w02) >= 0 s", "unknown"),
        ("late_updates == 1", "held"),
    ],
)
def test_transfers_of_some_workers(text: str, state: str) -> None:
    assert judged(text, TIMED) == state


def test_a_model_that_was_there_before_its_round_was_not_fetched_in_it() -> None:
    """Trainers get ready with the newest model; only later ones show what the network does."""
    ready = {"kind": "trainer_ready", "node": "w01"}
    there = {"kind": "trained", "node": "w01", "round": 1, "fetch_s": 0.001}
    assert judged("fetch_rate(w01) <= 8 Mbit", [ready, TIMED[0], there, *TIMED[1:]]) == "held"
    assert judged("fetch_time(w01) >= 1 s", [ready, TIMED[0], there, *TIMED[1:]]) == "held"
    assert judged("fetch_time(w01) >= 1 s", [ready, *TIMED]) == "unknown"


def test_a_rate_that_was_seen_exceeded_is_violated_without_the_rest() -> None:
    assert judged("fetch_rate <= 2 Mbit", TIMED[:-1]) == "violated"
    assert judged("fetch_rate(phone) <= 2 Mbit", TIMED[:-1]) == "unknown"


def test_workers_that_are_not_there_are_refused() -> None:
    with pytest.raises(UsageError, match="no worker is called 'fone'") as caught:
        checks.nodes_of(checks.read("fetch_time(fone) >= 1 s"), PLAN)
    assert "perhaps you meant phone" in caught.value.hint
    assert checks.nodes_of(checks.read("fetch_time >= 1 s"), PLAN) == set(ALL)


@given(
    st.sampled_from(sorted(checks.OPERATORS)),
    st.integers(0, 6),
    st.integers(0, 6),
    st.integers(0, 6),
)
def test_an_interval_decides_as_all_that_is_in_it(sign: str, wanted: int, one: int, other: int) -> None:
    low, high = sorted((one, other))
    answers = {checks.OPERATORS[sign](value / 2, wanted) for value in range(2 * low, 2 * high + 1)}
    plan = CheckPlan("x", "x", sign, wanted)
    try:
        state = checks._decide(plan, Observed(low, high, "seen"))
    except UnobservedError:
        state = "unknown"
    assert state == ("unknown" if len(answers) > 1 else "held" if answers == {True} else "violated")
