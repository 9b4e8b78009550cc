"""The faults of a scenario as written: their kinds and times. Whom they hit, the seed decides later."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, cast

from node.contract import UsageError
from node.contract.links import CutHow
from node.contract.plan import When
from orchestrator import nearest, units
from orchestrator.planning.document import Item
from orchestrator.planning.keys import FAULTS, HOWS, section

NEVER: Final = "never"
AT_ONCE: Final = When("lasting")
LONGEST_S: Final = Decimal(86400)
MOMENTS: Final = 'write "round 3", "round 3 + 2 s", "20 s" (since round 1 opened) or "after NAME + 5 s"'


@dataclass(frozen=True)
class Wanted:
    """One entry of `faults:`; what can be wrong with its times has been checked, its targets have not."""

    id: str
    kind: str
    text: str
    body: Item  # what stands under the kind
    start: When
    heal: When | None
    how: CutHow
    item: Item  # the whole entry, for complaints


def read(item: Item, rounds: int) -> tuple[Wanted, ...]:
    """All entries, in their order."""
    found = [_read_one(entry, number, rounds) for number, entry in enumerate(item.items(), start=1)]
    by_id: dict[str, Wanted] = {}
    for one in found:
        if one.id in by_id:
            raise one.item.error(f"two faults are called {one.id!r}", "give one of them another name")
        by_id[one.id] = one
    for one in found:
        _check_names(one, by_id)
    for one in found:  # only now: a circle would have no beginning
        _check_order(one, by_id)
    return tuple(found)


def _read_one(item: Item, number: int, rounds: int) -> Wanted:
    keys = section(item, "faults[]")
    kinds = [key for key in keys if key in FAULTS]
    if len(kinds) != 1:
        said = "there is no fault in this entry" if not kinds else f"{' and '.join(kinds)} in one entry"
        raise item.error(said, f"one entry, one fault: {', '.join(FAULTS)}")
    kind = kinds[0]
    if "how" in keys and kind not in ("partition", "flapping"):
        raise keys["how"].error(f"nothing is cut by {kind}", "remove the key")
    for key in ("heal", "for"):
        if key in keys and kind == "restart":
            raise keys[key].error("a restart is over by itself", "remove the key, or take kill")
    return Wanted(
        id=_read_name(keys["name"]) if "name" in keys else f"{kind}-{number}",
        kind=kind,
        text=spelled(item)[1:-1],
        body=keys[kind],
        start=_read_moment(item.required("at"), rounds),
        heal=AT_ONCE if kind == "restart" else _read_heal(keys, rounds),
        how=cast(CutHow, keys["how"].word(HOWS)) if "how" in keys else "drop",
        item=item,
    )


def _read_name(item: Item) -> str:
    name = item.text()
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,39}", name):
        raise item.error(
            f"{name[:40]!r} cannot be the name of a fault",
            "use small letters, digits and hyphens, beginning with a letter, at most 40",
        )
    return name


def _read_heal(keys: Mapping[str, Item], rounds: int) -> When | None:
    if "for" in keys:
        if "heal" in keys:
            raise keys["for"].error("heal says already when it ends", "keep one of the two")
        return When("lasting", seconds=float(keys["for"].quantity(units.DURATION, Decimal("0.1"), LONGEST_S)))
    if "heal" not in keys or keys["heal"].value == NEVER:
        return None
    return _read_moment(keys["heal"], rounds)


def _read_moment(item: Item, rounds: int) -> When:
    text = item.text()
    if shape := re.fullmatch(r"round\s+([0-9]{1,9})(?:\s*\+\s*(.+))?", text):
        number = int(shape[1])
        if not 1 <= number <= rounds:
            raise item.error(f"there is no round {number}", f"this workload has rounds 1 to {rounds}")
        if shape[2] is None:
            return When("round", round=number)
        return When("within", seconds=_seconds(item, shape[2]), round=number)
    if shape := re.fullmatch(r"after\s+([^\s+]+)(?:\s*\+\s*(.+))?", text):
        return When("after", seconds=_seconds(item, shape[2]) if shape[2] else 0.0, fault=shape[1])
    if re.match(r"[0-9]", text):
        return When("time", seconds=_seconds(item, text))
    raise item.error(f"{text[:40]!r} is no moment of a run", MOMENTS)


def _seconds(item: Item, text: str) -> float:
    with item.located():
        value = units.DURATION.read(text)
        if value > LONGEST_S:
            raise UsageError(f"{text} is out of range", f"at most {units.DURATION.show(LONGEST_S)}")
    return float(value)


def _check_names(one: Wanted, by_id: Mapping[str, Wanted]) -> None:
    for key, when in (("at", one.start), ("heal", one.heal)):
        if when is not None and when.fault is not None:
            _check_named(one.item.required(key), when.fault, one, by_id)


def _check_order(one: Wanted, by_id: Mapping[str, Wanted]) -> None:
    start, heal = one.start, one.heal
    if heal is None:
        return
    if heal.kind == "round" and heal.round <= (first := earliest_round(start, one, by_id)):
        began = f"it does not begin before round {first}" if start.kind != "time" else "round 1 has opened"
        raise one.item.required("heal").error(
            f"it would be healed in round {heal.round}, and {began}", "heal it later, or begin it sooner"
        )
    if heal.kind == "within" and _comes_before(heal, start, earliest_round(start, one, by_id)):
        raise one.item.required("heal").error(
            f"it would be healed in round {heal.round}, before it begins", "heal it later, or begin it sooner"
        )
    if (heal.kind, start.kind) == ("time", "time") and heal.seconds <= start.seconds:
        raise one.item.required("heal").error(
            f"it would be healed at {heal.seconds:g} s, and begins at {start.seconds:g} s",
            'heal it later; `for: "30 s"` counts from its beginning',
        )


def _comes_before(heal: When, start: When, first: int) -> bool:
    """Whether a moment within a round has passed when the fault begins, in round `first` at the earliest."""
    return heal.round < first or (
        heal.round == first and start.kind == "within" and heal.seconds <= start.seconds
    )


def _check_named(item: Item, name: str, one: Wanted, by_id: Mapping[str, Wanted]) -> None:
    others = sorted(set(by_id) - {one.id})
    if name not in others:
        raise item.error(f"there is no other fault {name!r}", nearest.hint(name, others))
    if by_id[name].heal is None:
        raise item.error(f"{name} never ends, so nothing comes after it", "say when it heals")
    seen = [one.id]
    waiting = [name]
    while waiting:
        now = waiting.pop()
        if now == one.id:
            raise item.error(
                f"{one.id} and {name} wait for each other",
                "let one of them begin and heal at a round or a time",
            )
        if now not in seen:
            seen.append(now)
            waiting += [found for found in _names(by_id[now]) if found in by_id]


def _names(one: Wanted) -> Sequence[str]:
    """The faults whose end this one waits for."""
    return [when.fault for when in (one.start, one.heal) if when is not None and when.fault is not None]


def earliest_round(when: When, of: Wanted, by_id: Mapping[str, Wanted]) -> int:
    """The first round that may be open at that moment; there is no circle any more."""
    match when.kind:
        case "round" | "within":
            return when.round
        case "after":
            assert when.fault is not None
            other = by_id[when.fault]
            begun = earliest_round(other.start, other, by_id)
            return max(begun, earliest_round(other.heal, other, by_id)) if other.heal else begun
        case "lasting":
            return earliest_round(of.start, of, by_id)
        case "time":
            return 1


def spelled(item: Item) -> str:
    """An entry on one line, for people."""
    if isinstance(item.value, dict):
        return "{" + ", ".join(f"{key}: {spelled(one)}".rstrip(": ") for key, one in item.value.items()) + "}"
    if isinstance(item.value, list):
        return "[" + ", ".join(map(spelled, item.value)) + "]"
    return item.value or ""
