"""Checks: what a run is expected to show, and whether it did: held, violated or unknown.

What was not observed completely is an interval; a check is decided only when all of it decides alike.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from node.contract import ExitCode, UsageError
from node.contract.plan import CheckPlan
from orchestrator import nearest, units

Event = Mapping[str, Any]
State = Literal["held", "violated", "unknown"]

OPERATORS: Final[Mapping[str, Callable[[float, float], bool]]] = {
    "==": operator.eq,
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}


@dataclass(frozen=True)
class Verdict:
    """The outcome of one check, and the observation behind it."""

    check: str
    state: State
    said: str


@dataclass(frozen=True)
class Observed:
    """A figure between two bounds; they are one when it was observed completely."""

    low: float
    high: float
    said: str


class UnobservedError(Exception):
    """What the check asks for is not in the history."""


@dataclass(frozen=True)
class Kind:
    """A name that checks begin with; `default` is the operator of `name: value`, None: it takes no value."""

    observe: Callable[[Sequence[Event], Mapping[str, Any]], Observed]
    default: str | None
    is_share: bool = False


def read(text: str) -> CheckPlan:
    """A check as written: `name >= value`, `name: value` or `name`."""
    shape = re.fullmatch(r"([\w-]+)(?:\s*(==|>=|<=|>|<|=|!=|:)\s*(.*\S))?\s*", text.strip())
    if shape is None:
        raise UsageError(f"{text!r} is no check", "write it as: final_accuracy >= 0.8")
    name, sign, value = shape.groups()
    if name in LATER:
        raise UsageError(f"this version cannot check {name} yet", "remove the check")
    if name not in KINDS:
        raise UsageError(f"there is no check {name!r}", nearest.hint(name, KINDS))
    kind = KINDS[name]
    if kind.default is None:
        if sign is not None:
            raise UsageError(f"{name} takes no value", f"write only: {name}")
        return CheckPlan(name, name)
    if sign is None:
        raise UsageError(f"{name} needs a value", f"write it as: {name} {kind.default} {_example(kind)}")
    if sign not in (*OPERATORS, ":"):
        raise UsageError(f"{text!r}: there is no {sign}", f"one of {', '.join(OPERATORS)}")
    return CheckPlan(text.strip(), name, kind.default if sign == ":" else sign, _value(kind, value))


def judge(check: CheckPlan, history: Sequence[Event], results: Mapping[str, Any]) -> Verdict:
    """Whether the check held; one that crashes says nothing about the run."""
    try:
        observed = KINDS[check.kind].observe(history, results)
        state = _decide(check, observed)
    except UnobservedError as missing:
        return Verdict(check.text, "unknown", str(missing))
    except Exception as error:  # noqa: BLE001 - a bug in a check is not a verdict about the run
        return Verdict(check.text, "unknown", f"the check crashed: {type(error).__name__}: {error}")
    return Verdict(check.text, state, observed.said)


def overall(verdicts: Sequence[Verdict]) -> ExitCode:
    """The run's verdict: one violated check decides; without any check nothing was shown."""
    states = {verdict.state for verdict in verdicts}
    if "violated" in states:
        return ExitCode.VIOLATED
    return ExitCode.HELD if states == {"held"} else ExitCode.UNKNOWN


def _decide(check: CheckPlan, observed: Observed) -> State:
    if math.isnan(observed.low) or math.isnan(observed.high):
        raise UnobservedError(f"{observed.said}, which is no number")
    wanted = 1.0 if check.value is None else check.value
    holds = OPERATORS[check.operator or "=="]
    # Each comparison changes at most around `wanted`; so these points speak for the whole interval.
    points = [observed.low, observed.high]
    if observed.low < wanted < observed.high:
        points.append(wanted)
    answers = {holds(point, wanted) for point in points}
    if len(answers) > 1:
        raise UnobservedError(f"{observed.said}; that decides nothing yet")
    return "held" if answers == {True} else "violated"


def _value(kind: Kind, text: str) -> float:
    if kind.is_share:
        value = units.SHARE.read(text)
        if value > 1:
            raise UsageError(f"{text!r} is more than all", "a share is at most 1, or 100 %")
        return float(value)
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise UsageError(f"{text!r} is no count", "write a whole number")
    return float(text)


def _example(kind: Kind) -> str:
    return "0.8" if kind.is_share else "5"


def _finish(history: Sequence[Event]) -> Event | None:
    return next((event for event in reversed(history) if event["kind"] == "run_finished"), None)


def _completed(history: Sequence[Event]) -> dict[int, Event]:
    """The closing of every round that made a new model; a restarted aggregator may tell it twice."""
    return {e["round"]: e for e in history if e["kind"] == "round_closed" and e["completed"]}


def _is_whole(history: Sequence[Event]) -> bool:
    """Whether the history tells of every round: it has an end, and as many rounds as that counts."""
    finish = _finish(history)
    return finish is not None and finish["rounds"] == len(_completed(history))


def _final_accuracy(history: Sequence[Event], _: Mapping[str, Any]) -> Observed:
    finish = _finish(history)
    if finish is None or finish["accuracy"] is None:
        raise UnobservedError("no final model was evaluated")
    accuracy = float(finish["accuracy"])
    return Observed(accuracy, accuracy, f"the final model's accuracy is {accuracy:.4f}")


def _rounds_completed(history: Sequence[Event], _: Mapping[str, Any]) -> Observed:
    count = len(_completed(history))
    if _is_whole(history):
        return Observed(count, count, f"{count} rounds were completed")
    return Observed(count, math.inf, f"{count} rounds were seen to complete, and the history is not whole")


def _participants(history: Sequence[Event], _: Mapping[str, Any]) -> Observed:
    """The fewest updates in any model."""
    counts = [_count(event["accepted"]) for event in _completed(history).values()]
    if not counts:
        raise UnobservedError("no round was completed")
    fewest = min(counts)
    if _is_whole(history):
        return Observed(fewest, fewest, f"every round had at least {fewest} participants")
    return Observed(0, fewest, f"a round had {fewest} participants, and the history is not whole")


def _count(accepted: int | Sequence[str]) -> int:
    return accepted if isinstance(accepted, int) else len(accepted)


def _repeatable(_: Sequence[Event], results: Mapping[str, Any]) -> Observed:
    promise = results.get("repeatable")
    if not isinstance(promise, bool):
        raise UnobservedError("nothing is said about whether the run is repeatable")
    why = results.get("repeatable_reason") or ""
    return Observed(promise, promise, f"repeatable is {str(promise).lower()}" + (f": {why}" if why else ""))


KINDS: Final[Mapping[str, Kind]] = {
    "final_accuracy": Kind(_final_accuracy, ">=", is_share=True),
    "rounds_completed": Kind(_rounds_completed, "=="),
    "participants": Kind(_participants, ">="),
    "repeatable": Kind(_repeatable, None),
}
LATER: Final = ("recovered_within", "emulation_accurate")  # of the design; they need links and faults
