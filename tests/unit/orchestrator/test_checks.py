from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.contract import ExitCode, UsageError
from node.contract.plan import CheckPlan
from orchestrator import checks
from orchestrator.checks import Observed, Verdict

History = list[dict[str, Any]]


def closed(number: int, accepted: int | list[str] = 4, completed: bool = True) -> dict[str, Any]:
    return {"kind": "round_closed", "round": number, "completed": completed, "accepted": accepted}


def finished(rounds: int, accuracy: float | None = 0.9) -> dict[str, Any]:
    return {"kind": "run_finished", "rounds": rounds, "accuracy": accuracy}


WHOLE: History = [closed(1), closed(2, 0, completed=False), closed(3, ["w01", "w02", "w03"]), finished(2)]
CUT_OFF: History = WHOLE[:-1]


def judged(text: str, history: History, results: Mapping[str, Any] | None = None) -> str:
    verdict = checks.judge(checks.read(text), history, results or {})
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
        ("emulation_accurate", "cannot check emulation_accurate yet", "remove"),
        ("recovered_within: 1 round", "cannot check recovered_within yet", "remove"),
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
    verdict = checks.judge(checks.read("repeatable"), [], lost)
    assert (verdict.state, verdict.said) == ("violated", "repeatable is false: lost: w02")


def test_a_crashing_check_is_unknown() -> None:
    verdict = checks.judge(checks.read("final_accuracy >= 0.1"), [{"kind": "run_finished"}], {})
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
    except checks.UnobservedError:
        state = "unknown"
    assert state == ("unknown" if len(answers) > 1 else "held" if answers == {True} else "violated")
