"""The links of a fleet: the scenario's rules, and from these what every link of the plan does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final, Literal, cast

from node.contract.plan import LinkPlan, NodePlan, TracePlan, TrunkPlan
from orchestrator import nearest
from orchestrator.planning import profiles, rules
from orchestrator.planning.document import Item
from orchestrator.planning.keys import CONGESTION_CONTROLS, DELAY_ENGINES, MATRIX, section
from orchestrator.planning.rules import Rule

Pair = tuple[str, str]  # from and to, two zones or two nodes
SAID_NOTHING: Final = Rule()
UNSHAPED: Final = LinkPlan("", "", latency_ms=0.0, jitter_ms=0.0, loss=0.0, rate_bit_s=None)


@dataclass(frozen=True)
class Entry:
    """One entry of `zones` or `links`; it stands under each ordered pair that it is about."""

    rule: Rule
    item: Item = field(compare=False, repr=False)
    shared_rate_bit_s: int | None = None


@dataclass(frozen=True)
class Network:
    """What `network:` says of links, beside who talks with whom."""

    delay_engine: Literal["auto", "netem", "hold"] = "auto"
    congestion_control: str = "cubic"
    default: Rule = SAID_NOTHING
    matrix: Mapping[Pair, Rule] = field(default_factory=dict)
    zones: Mapping[Pair, Entry] = field(default_factory=dict)
    links: Mapping[Pair, Entry] = field(default_factory=dict)


@dataclass(frozen=True)
class Links:
    """What of the plan is about links."""

    links: tuple[LinkPlan, ...]
    trunks: tuple[TrunkPlan, ...]
    traces: dict[str, TracePlan]


def read(keys: Mapping[str, Item], folder: Path, zones: Sequence[str], nodes: Sequence[str]) -> Network:
    """The part of `network:` that is about links; `zones` and `nodes` are those of the fleet."""
    network = Network(
        delay_engine=cast(Any, keys["delay_engine"].word(DELAY_ENGINES))
        if "delay_engine" in keys
        else "auto",
        congestion_control=(
            keys["congestion_control"].word(CONGESTION_CONTROLS) if "congestion_control" in keys else "cubic"
        ),
        default=(
            rules.read(section(keys["default"], "network.default"), folder)
            if "default" in keys
            else SAID_NOTHING
        ),
        matrix=_read_matrix(keys["matrix"], folder, zones) if "matrix" in keys else {},
        zones=_read_entries(keys["zones"], "network.zones[]", folder, "zone", zones)
        if "zones" in keys
        else {},
        links=_read_entries(keys["links"], "network.links[]", folder, "node", nodes)
        if "links" in keys
        else {},
    )
    if "matrix" in keys and "profile" in keys["matrix"].mapping():
        item = keys["matrix"].required("profile")
        _check_regions(item, zones, {zone for pair in (*network.matrix, *network.zones) for zone in pair})
    return network


def _check_regions(item: Item, zones: Sequence[str], known: set[str]) -> None:
    """A zone that is no region would have links without latency, and nobody would notice."""
    for zone in zones:
        if zone not in known:
            raise item.error(
                f"the zone {zone} is no region of {item.text()}",
                f"{nearest.hint(zone, known)}; or say something of it in network.zones",
            )


def resolve(
    network: Network, classes: Mapping[str, Rule], nodes: Sequence[NodePlan], talking: Iterable[Pair]
) -> Links:
    """Every link of the fleet, by the rules: default, zones, class, pair; key by key the later wins.

    `talking` are unordered pairs. Whatever else is in the fleet changes nothing for a link.
    """
    by_name = {node.name: node for node in nodes}
    links: list[LinkPlan] = []
    traces: dict[str, TracePlan] = {}
    shapes: dict[tuple[Any, ...], tuple[Any, ...]] = {}  # all of a link but its ends, in the contract's order
    for from_, to in sorted(pair for one, other in talking for pair in ((one, other), (other, one))):
        sender, receiver = by_name[from_], by_name[to]
        kind = (sender.zone, sender.class_name, receiver.zone, receiver.class_name)
        own = network.links.get((from_, to))
        # Links of one kind are alike, so each kind is worked out once; those with a rule of their own apart.
        key = (from_, to) if own else kind
        if key not in shapes:
            rule = _rule_of(network, classes, sender, receiver, own)
            rules.check(rule, f"{from_} to {to}")
            shape = _shape(rule, traces, _trunk(network, sender, receiver))
            shapes[key] = tuple(getattr(shape, one.name) for one in fields(shape)[2:])
        links.append(LinkPlan(from_, to, *shapes[key]))
    return Links(tuple(links), _trunks(network, links), dict(sorted(traces.items())))


def check_use(network: Network, nodes: Sequence[NodePlan], talking: Iterable[Pair]) -> None:
    """An entry that is about no link is a mistake: the person believes in a network that is not there."""
    pairs = {pair for one, other in talking for pair in ((one, other), (other, one))}
    zone = {node.name: node.zone for node in nodes}
    between = {(zone[one], zone[other]) for one, other in pairs}
    for (one, other), entry in network.zones.items():
        if (one, other) not in between:
            where = f"from {one} to {other}" if one != other else f"within {one}"
            raise entry.item.error(f"no link leads {where}", "remove the entry, or change fleet or topology")
    for one, other in network.links:
        if (one, other) not in pairs:
            raise network.links[one, other].item.error(
                f"{one} and {other} do not talk with each other", "remove the entry, or change the topology"
            )


def _rule_of(
    network: Network, classes: Mapping[str, Rule], sender: NodePlan, receiver: NodePlan, own: Entry | None
) -> Rule:
    zones: list[Rule] = []
    if sender.zone is not None and receiver.zone is not None:
        pair = (sender.zone, receiver.zone)
        entry = network.zones.get(pair)
        zones = [network.matrix.get(pair, SAID_NOTHING), entry.rule if entry else SAID_NOTHING]
    ends = [classes[node.class_name] for node in (sender, receiver) if node.class_name is not None]
    of_class = rules.worse(*ends) if len(ends) == 2 else (ends or [SAID_NOTHING])[0]
    brought = [rule.values["trace"] for rule in ends if rule.values.get("trace") is not None]
    if len(brought) == 2 and brought[0] != brought[1]:
        raise of_class.said["trace"].error(
            f"{sender.name} to {receiver.name}: their classes have different traces",
            "a link can follow only one: take the same for both, or say nothing of a trace in one of them",
        )
    return rules.combine(network.default, *zones, of_class, own.rule if own else SAID_NOTHING)


def _shape(rule: Rule, traces: dict[str, TracePlan], trunk: str | None) -> LinkPlan:
    values = dict(rule.values)
    repeats = values.pop("trace_repeats", True)
    trace: TracePlan | None = values.pop("trace", None)
    name = None
    if trace is not None:
        name = trace.file if repeats else f"{trace.file} once"
        traces[name] = replace(trace, repeats=repeats)
    return replace(UNSHAPED, **values, trace=name, trunk=trunk)


def _trunk(network: Network, sender: NodePlan, receiver: NodePlan) -> str | None:
    if sender.zone is None or receiver.zone is None:
        return None
    entry = network.zones.get((sender.zone, receiver.zone))
    return _trunk_name(sender.zone, receiver.zone) if entry and entry.shared_rate_bit_s is not None else None


def _trunk_name(from_zone: str, to_zone: str) -> str:
    return f"{from_zone}:{to_zone}"  # zones have hyphens in their names, so a hyphen would be ambiguous


def _trunks(network: Network, links: Iterable[LinkPlan]) -> tuple[TrunkPlan, ...]:
    used = {link.trunk for link in links}
    found = [
        TrunkPlan(name, one, other, entry.shared_rate_bit_s)
        for (one, other), entry in network.zones.items()
        if entry.shared_rate_bit_s is not None and (name := _trunk_name(one, other)) in used
    ]
    return tuple(sorted(found, key=lambda trunk: trunk.name))


def _read_matrix(item: Item, folder: Path, zones: Sequence[str]) -> Mapping[Pair, Rule]:
    """By ordered pair of zones. A cell whose mirror image is not written counts for both directions."""
    keys = section(item, "network.matrix")
    found: dict[Pair, Rule] = {}
    if "profile" in keys:
        profile = profiles.named(keys["profile"], is_matrix=True)
        assert profile.matrix is not None
        for pair, rule in _cells(profile.matrix.mapping(), profiles.FOLDER).items():
            values = {**rule.values, "profile": profile.name}
            found[pair] = Rule(values, dict.fromkeys(values, keys["profile"]))
    own = {key: keys[key] for key in MATRIX if key in keys}
    for table in own.values():
        for from_, row in table.mapping().items():
            for zone, place in ((from_, row), *row.mapping().items()):
                if zone not in zones:
                    raise place.error(f"no node is in a zone {zone!r}", nearest.hint(zone, zones))
    for pair, rule in _cells(own, folder).items():
        found[pair] = rules.combine(found.get(pair, SAID_NOTHING), rule)
    return found


def _cells(tables: Mapping[str, Item], folder: Path) -> Mapping[Pair, Rule]:
    found: dict[Pair, Rule] = {}
    for key, table in tables.items():
        cells = {
            (from_, to): cell for from_, row in table.mapping().items() for to, cell in row.mapping().items()
        }
        mirrored = {(to, from_): cell for (from_, to), cell in cells.items()}
        for pair, cell in {**mirrored, **cells}.items():
            found[pair] = rules.combine(found.get(pair, SAID_NOTHING), rules.read({key: cell}, folder))
    return found


def _read_entries(
    item: Item, shape: str, folder: Path, what: str, known: Sequence[str]
) -> Mapping[Pair, Entry]:
    """By ordered pair; each may be spoken of once."""
    found: dict[Pair, Entry] = {}
    for one in item.items():
        keys = section(one, shape)
        pairs = list(_read_pairs(one, keys, what, known))
        shared = rules.read_rate(keys["shared_rate"]) if "shared_rate" in keys else None
        entry = Entry(rules.read(keys, folder), one, shared)
        if not entry.rule.values and shared is None:
            raise one.error("this entry says nothing", 'add for example: latency: "20 ms"')
        for pair in pairs:
            if pair in found:
                raise one.error(
                    f"from {pair[0]} to {pair[1]} there is an entry already, in line {found[pair].item.line}",
                    "write one entry for each pair; `from` and `to` speak of one direction",
                )
            found[pair] = entry
    return found


def _read_pairs(item: Item, keys: Mapping[str, Item], what: str, known: Sequence[str]) -> Iterator[Pair]:
    if "between" in keys:
        for key in ("from", "to"):
            if key in keys:
                raise keys[key].error("`between` names both ends already", "write between, or from and to")
        names = keys["between"].items()
        if len(names) != 2:
            raise keys["between"].error(
                f"a pair names two {what}s, not {len(names)}", "write for example: between: [a, b]"
            )
    else:
        names = [item.required(key) for key in ("from", "to") if key in keys]
        if len(names) != 2:
            raise item.error(
                f"it does not say between which {what}s", "write between: [a, b], or from and to"
            )
    for name in names:
        if name.text() not in known:
            message = (
                f"no node is in a zone {name.text()!r}"
                if what == "zone"
                else f"there is no node {name.text()!r}"
            )
            raise name.error(message, nearest.hint(name.text(), known))
    one, other = (name.text() for name in names)
    if one == other and what == "node":
        raise item.error(f"{one} has no link to itself", "a pair names two nodes")
    yield one, other
    if "between" in keys and one != other:
        yield other, one
