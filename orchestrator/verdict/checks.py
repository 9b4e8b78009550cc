"""Checks: what a run is expected to show, and whether it did: held, violated or unknown.

What was not observed completely is an interval; a check is decided only when all of it decides alike.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NoReturn

from node.contract import ExitCode, UsageError
from node.contract.plan import CheckPlan, Plan
from orchestrator import nearest, units
from orchestrator.verdict import fault_checks, round_checks
from orchestrator.verdict.evidence import Event, Evidence, Observed, UnobservedError

State = Literal["held", "violated", "unknown"]
Unit = Literal["share", "count", "rounds", "rate", "duration"]

OPERATORS: Final[Mapping[str, Callable[[float, float], bool]]] = {
    "==": operator.eq,
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
EXAMPLES: Final[Mapping[Unit, str]] = {
    "share": "0.8",
    "count": "5",
    "rounds": "1 round",
    "rate": "10 Mbit",
    "duration": "2 s",
}


@dataclass(frozen=True)
class Verdict:
    """The outcome of one check, and the observation behind it."""

    check: str
    state: State
    said: str


@dataclass(frozen=True)
class Kind:
    """A name that checks begin with; `default` is the operator of `name: value`, None: it takes no value."""

    observe: Callable[[Evidence], Observed]
    default: str | None
    unit: Unit = "count"
    takes_nodes: bool = False  # in brackets behind the name: a node, a class or a zone


KINDS: Final[Mapping[str, Kind]] = {
    "final_accuracy": Kind(round_checks.final_accuracy, ">=", "share"),
    "rounds_completed": Kind(round_checks.rounds_completed, "=="),
    "participants": Kind(round_checks.participants, ">="),
    "rounds_with_everyone": Kind(round_checks.rounds_with_everyone, ">="),
    "missing_updates": Kind(round_checks.missing_updates, ">="),
    "late_updates": Kind(round_checks.late_updates, ">="),
    "round_time": Kind(round_checks.round_time, "<=", "duration"),
    "fetch_time": Kind(round_checks.fetch_time, ">=", "duration", takes_nodes=True),
    "upload_time": Kind(round_checks.upload_time, ">=", "duration", takes_nodes=True),
    "fetch_rate": Kind(round_checks.fetch_rate, "<=", "rate", takes_nodes=True),
    "upload_rate": Kind(round_checks.upload_rate, "<=", "rate", takes_nodes=True),
    "repeatable": Kind(round_checks.repeatable, None),
    "emulation_accurate": Kind(fault_checks.emulation_accurate, None),
    "faults_verified": Kind(fault_checks.faults_verified, None),
    "lost_packets": Kind(fault_checks.lost_packets, ">=", takes_nodes=True),
    "recovered_within": Kind(fault_checks.recovered_within, "<=", "rounds"),
    "missing_while_cut": Kind(fault_checks.missing_while_cut, None),
    "missing_while_down": Kind(fault_checks.missing_while_down, None),
    "interrupted_rounds": Kind(fault_checks.interrupted_rounds, ">="),
}


def read(text: str) -> CheckPlan:
    """A check as written: `name >= value`, `name: value` or `name`; some take `name(nodes)`."""
    shape = re.fullmatch(
        r"([\w-]+)(?:\s*\(([^()]*)\))?(?:\s*(==|>=|<=|>|<|=|!=|:)\s*(.*\S))?\s*", text.strip()
    )
    if shape is None:
        raise UsageError(f"{text!r} is no check", "write it as: final_accuracy >= 0.8")
    name, nodes, sign, value = shape.groups()
    if name not in KINDS:
        raise UsageError(f"there is no check {name!r}", nearest.hint(name, KINDS))
    kind = KINDS[name]
    if nodes is not None and not kind.takes_nodes:
        raise UsageError(f"{name} is about the whole run, not about {nodes!r}", f"write only: {name}")
    if kind.default is None:
        if sign is not None:
            raise UsageError(f"{name} takes no value", f"write only: {name}")
        return CheckPlan(name, name)
    if sign is None:
        raise UsageError(f"{name} needs a value", f"write it as: {name} {kind.default} {EXAMPLES[kind.unit]}")
    if sign not in (*OPERATORS, ":"):
        raise UsageError(f"{text!r}: there is no {sign}", f"one of {', '.join(OPERATORS)}")
    return CheckPlan(text.strip(), name, kind.default if sign == ":" else sign, _value(kind, value))


def named_in(check: CheckPlan) -> str | None:
    """The word in brackets: whom the check is about."""
    named = re.match(r"[\w-]+\s*\(([^()]*)\)", check.text)
    return named.group(1).strip() if named else None


def nodes_of(check: CheckPlan, plan: Plan) -> frozenset[str]:
    """The workers that a check names in brackets, by name, class or zone; all where it names none."""
    workers = [node for node in plan.nodes if "trainer" in node.roles]
    word = named_in(check)
    if word is None:
        return frozenset(node.name for node in workers)
    found = {node.name for node in workers if word in (node.name, node.class_name, node.zone)}
    if not found:
        refuse_word(word, (x for n in workers for x in (n.name, n.class_name, n.zone) if x is not None))
    return frozenset(found)


def refuse_word(word: str, known: Iterable[str]) -> NoReturn:
    raise UsageError(
        f"no worker is called {word!r}, nor is in a class or zone of that name",
        nearest.hint(word, sorted(set(known))),
    )


def judge(check: CheckPlan, plan: Plan, history: Sequence[Event], results: Mapping[str, Any]) -> Verdict:
    """Whether the check held; one that crashes says nothing about the run."""
    try:
        evidence = Evidence(plan, history, results, nodes_of(check, plan))
        observed = KINDS[check.kind].observe(evidence)
        state = _decide(check, observed)
    except UnobservedError as missing:
        return Verdict(check.text, "unknown", str(missing))
    except Exception as error:  # noqa: BLE001 - a bug in a check is not a verdict about the run
        return Verdict(check.text, "unknown", f"the check crashed: {type(error).__name__}: {error}")
    return Verdict(check.text, state, observed.said)


def overall(verdicts: Sequence[Verdict], doubts: Sequence[str] = ()) -> ExitCode:
    """The run's verdict. On a network that was not verified nothing was shown, and without any check."""
    if doubts:
        return ExitCode.UNKNOWN
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
    match kind.unit:
        case "share":
            value = units.SHARE.read(text)
            if value > 1:
                raise UsageError(f"{text!r} is more than all", "a share is at most 1, or 100 %")
            return float(value)
        case "rate":
            return float(units.RATE.read(text))
        case "duration":
            return float(units.DURATION.read(text))
        case "rounds":
            count = re.fullmatch(r"([0-9]{1,9})(?: rounds?)?", text)
            if count is None or int(count.group(1)) < 1:
                raise UsageError(f"{text!r} is no number of rounds", "write it as: 1 round")
            return float(count.group(1))
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise UsageError(f"{text!r} is no count", "write a whole number")
    return float(text)
