"""Rules of links: what a part of a scenario says about some of them, and how rules combine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, cast

from node.contract.links import JitterKind
from node.contract.plan import TracePlan
from orchestrator import units
from orchestrator.planning import profiles, traces
from orchestrator.planning.document import Item
from orchestrator.planning.keys import BOOLEANS, JITTER_KINDS

UNLIMITED: Final = "unlimited"
NONE: Final = "none"
MOST_RATE_BIT_S: Final = 10**12


@dataclass(frozen=True)
class Rule:
    """What is said, by the name of the plan's field; about what is left out, another rule may speak.

    Beside LinkPlan's fields there is `trace_repeats`, and `trace` is the trace itself, or None for no trace.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    said: Mapping[str, Item] = field(default_factory=dict, compare=False, repr=False)  # where, for complaints


def read(keys: Mapping[str, Item], folder: Path, has_line: bool = False) -> Rule:
    """The rule among these keys; a profile in it is spelled out, and what stands beside it wins.

    `has_line` where these are links of nodes of one class: the profile's line is theirs then, see read_line.
    """
    rule = _read_own(keys, folder)
    if "profile" not in keys:
        return rule
    item = keys["profile"]
    profile = profiles.named(item)
    shipped = dict(_read_own(profile.rule, profiles.FOLDER).values)
    if profile.line and "rate" not in profile.rule and not has_line:
        # Without a node there is no line to share: each link gets what would pass through two such lines.
        rates = [rate for rate in map(read_rate, profile.line.values()) if rate is not None]
        shipped["rate_bit_s"] = min(rates, default=None)
    shipped["profile"] = profile.name
    return combine(Rule(shipped, dict.fromkeys(shipped, item)), rule)


def read_line(keys: Mapping[str, Item], which: str) -> int | None:
    """`up` or `down` of a class, its own or its profile's."""
    if which in keys:
        return read_rate(keys[which])
    line = profiles.named(keys["profile"]).line if "profile" in keys else {}
    return read_rate(line[which]) if which in line else None


def read_rate(item: Item) -> int | None:
    """A rate at which peers can still shake hands."""
    if item.text() == UNLIMITED:
        return None
    rate = item.quantity(units.RATE, 0, MOST_RATE_BIT_S)
    if rate < traces.LEAST_RATE_BIT_S:
        raise item.error(
            f"{item.text()} is too slow for two peers to shake hands",
            f"at least {units.RATE.show(traces.LEAST_RATE_BIT_S)}, at which a full packet takes 1.5 s;"
            " to cut a link, write a fault",
        )
    return int(rate)


def combine(*rules: Rule) -> Rule:
    """Key by key; the later wins."""
    values: dict[str, Any] = {}
    said: dict[str, Item] = {}
    for rule in rules:
        values |= rule.values
        said |= rule.said
    return Rule(values, said)


def worse(one: Rule, other: Rule) -> Rule:
    """Key by key the one that does more harm, for links whose two ends both have a rule."""
    values: dict[str, Any] = {}
    said: dict[str, Item] = {}
    for key in sorted({*one.values, *other.values}):
        rule = max((rule for rule in (one, other) if key in rule.values), key=lambda rule: _harm(rule, key))
        values[key] = rule.values[key]
        if key in rule.said:
            said[key] = rule.said[key]
    named = [rule.values["profile"] for rule in (one, other) if "profile" in rule.values]
    if named:
        values["profile"] = "+".join(sorted({name for names in named for name in names.split("+")}))
    return Rule(values, said)


def check(rule: Rule, link: str) -> None:
    """Whether what several rules said together makes sense; `link` is an example of those it is about."""

    def get(key: str, default: float) -> float:
        return cast(float, rule.values.get(key, default))

    trace: TracePlan | None = rule.values.get("trace")
    points = trace.points if trace else ()
    latencies = [get("latency_ms", 0.0), *(p.latency_ms for p in points if p.latency_ms is not None)]
    losses = [get("loss", 0.0), *(p.loss for p in points if p.loss is not None)]
    if (jitter_ms := get("jitter_ms", 0.0)) > min(latencies):
        raise rule.said["jitter_ms"].error(
            f"{link}: a jitter of {jitter_ms:g} ms is more than the latency of {min(latencies):g} ms",
            "a packet cannot arrive before it was sent: take more latency, or less jitter",
        )
    burst, loss = get("loss_burst", 1.0), max(losses)
    if burst > 1 and burst * (1 - loss) < loss * (1 - 1e-9):
        raise rule.said["loss_burst"].error(
            f"{link}: {loss:.4g} of all packets cannot get lost in bursts of {burst:g}",
            f"between bursts one packet at least arrives: take bursts of {loss / (1 - loss):.4g} or more"
            if loss < 1
            else "where all is lost there are no bursts: remove loss_burst",
        )
    if get("reorder", 0.0) and not max(latencies):
        raise rule.said["reorder"].error(
            f"{link}: without latency no packet overtakes another", "add a latency, or remove reorder"
        )


_HARM: Final[Mapping[str, int]] = {kind: index for index, kind in enumerate(JITTER_KINDS)}


def _harm(rule: Rule, key: str) -> Any:
    value = rule.values[key]
    match key:
        case "rate_bit_s":
            return float("-inf") if value is None else -value
        case "in_order":
            return not value
        case "jitter_kind":
            return _HARM[value]
        case "trace":  # two that differ are refused before; any trace beats none
            return (value.file, value.sha256) if value else ("", "")
        case _:
            return value


def _read_own(keys: Mapping[str, Item], folder: Path) -> Rule:
    values: dict[str, Any] = {}
    said: dict[str, Item] = {}
    for key, item in keys.items():
        match key:
            case "latency" | "jitter":
                name, value = f"{key}_ms", float(item.quantity(units.DURATION, 0, traces.LONGEST_S) * 1000)
            case "loss" | "duplicate" | "corrupt" | "reorder":
                name, value = key, float(item.quantity(units.SHARE, 0, Decimal(1)))
            case "rate":
                values["rate_bit_s"], said["rate_bit_s"] = read_rate(item), item
                continue
            case "loss_burst":
                name, value = key, item.number(1, 1_000_000)
            case "in_order" | "trace_repeats":
                name, value = key, item.word(BOOLEANS) == "true"
            case "trace":
                values["trace"] = None if item.value == NONE else traces.read(item, folder)
                said["trace"] = item
                continue
            case _:
                continue
        values[name], said[name] = value, item
    _read_form(keys, folder, values, said)
    return Rule(values, said)


def _read_form(keys: Mapping[str, Item], folder: Path, values: dict[str, Any], said: dict[str, Item]) -> None:
    """The kind of the jitter and its table go together: who says one says both."""
    kind = keys["jitter_kind"].word(JITTER_KINDS) if "jitter_kind" in keys else None
    table = keys.get("jitter_table")
    if table is not None and kind not in (None, "table"):
        raise table.error(f"a jitter of kind {kind} takes no table", "write: jitter_kind: table")
    if table is None and kind == "table":
        raise keys["jitter_kind"].error(
            "the table is missing", "write for example: jitter_table: delays.txt, or numbers in brackets"
        )
    if table is not None or kind is not None:
        item = table or keys["jitter_kind"]
        values["jitter_kind"] = cast(JitterKind, "table" if table is not None else kind)
        values["jitter_table"] = traces.read_quantiles(table, folder) if table is not None else ()
        said["jitter_kind"] = said["jitter_table"] = item
