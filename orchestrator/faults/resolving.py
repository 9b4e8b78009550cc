"""A scenario's faults as the plan's: whom they hit, by the seed, and what each node no longer hears. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from node.contract.plan import FaultPlan, LinkPlan, NodePlan
from orchestrator import nearest, units
from orchestrator.faults import clashes, partitions
from orchestrator.faults.partitions import Deaf
from orchestrator.faults.reading import LONGEST_S, Wanted, earliest_round
from orchestrator.planning import rules, targets
from orchestrator.planning.document import Item
from orchestrator.planning.keys import KEYS, PARTS, section
from orchestrator.planning.rules import Rule

PARTITION: Final = "faults[].partition"
SHORTEST_FLAP_S: Final = Decimal("0.5")


@dataclass(frozen=True)
class Ground:
    """What is there to break."""

    nodes: Sequence[NodePlan]
    links: Sequence[LinkPlan]
    seed: int
    folder: Path  # the scenario's

    @property
    def names(self) -> list[str]:
        return [node.name for node in self.nodes]

    @property
    def aggregator(self) -> str:
        return next(node.name for node in self.nodes if "aggregator" in node.roles)

    def node(self, name: str) -> NodePlan:
        return next(node for node in self.nodes if node.name == name)

    def names_of(self, item: Item, purpose: str) -> tuple[str, ...]:
        """The nodes that a target means, or several of them."""
        is_list = isinstance(item.value, list)
        said = [one.text() for one in item.items()] if is_list else item.text()
        with item.located():
            return targets.resolve(said, self.nodes, self.seed, purpose)

    def one_of(self, item: Item, purpose: str) -> str:
        names = self.names_of(item, purpose)
        if len(names) != 1:
            raise item.error(f"{item.text()} means {len(names)} nodes", "name a single one")
        return names[0]


def resolve(wanted: Sequence[Wanted], ground: Ground) -> tuple[FaultPlan, ...]:
    faults = tuple(_RESOLVE[one.kind](one, ground) for one in wanted)
    by_id = {one.id: one for one in wanted}
    for one, fault in zip(wanted, faults, strict=True):
        if ground.aggregator in fault.parts:
            _check_aggregator(one, fault.parts[ground.aggregator], by_id)
    clashes.check(wanted, faults, ground.nodes)
    return faults


def _partition(one: Wanted, ground: Ground) -> FaultPlan:
    return _cutting(one, ground, _body(one), {})


def _flapping(one: Wanted, ground: Ground) -> FaultPlan:
    body = dict(one.body.section((*KEYS[PARTITION], *KEYS["faults[].flapping"])))
    period, down = one.body.required("period"), one.body.required("down")
    period_s = period.quantity(units.DURATION, 2 * SHORTEST_FLAP_S, LONGEST_S)
    down_s = down.quantity(units.DURATION, SHORTEST_FLAP_S, LONGEST_S)
    if down_s > period_s - SHORTEST_FLAP_S:
        raise down.error(
            f"{down.text()} of every {period.text()}: it would not come back",
            f"leave {units.DURATION.show(SHORTEST_FLAP_S)} of the period at least",
        )
    change = {"period_s": float(period_s), "down_s": float(down_s)}
    return _cutting(one, ground, {key: body[key] for key in body if key in KEYS[PARTITION]}, change)


def _body(one: Wanted) -> Mapping[str, Item]:
    """The kind of a partition and its value; a word alone is a kind that needs none."""
    if isinstance(one.body.value, str):
        return {one.body.word(KEYS[PARTITION]): Item(None, one.body.file, one.body.line, one.body.path)}
    return section(one.body, PARTITION)


def _cutting(one: Wanted, ground: Ground, body: Mapping[str, Item], change: dict[str, Any]) -> FaultPlan:
    if len(body) != 1:
        said = "it does not say what is cut" if not body else f"{' and '.join(body)} in one fault"
        raise one.body.error(said, f"one fault, one kind: {', '.join(KEYS[PARTITION])}")
    ((kind, item),) = body.items()
    about, deaf = _maps(kind, item, one, ground)
    deaf = partitions.among(deaf, {(link.from_, link.to) for link in ground.links})
    if not deaf:
        raise item.error("nothing is cut by this", "name nodes that talk with others, and not all of them")
    return _plan(one, about, change, {name: dict.fromkeys(sorted(deaf[name]), one.how) for name in deaf})


def _maps(kind: str, item: Item, one: Wanted, ground: Ground) -> tuple[Collection[str], Deaf]:
    """The nodes that it is about, and the map."""
    names = ground.names
    ranked = targets.ranked(ground.seed, names, one.id)
    if kind in ("halves", "majorities_ring", "aggregator") and item.value is not None:
        raise item.error(f"{kind} takes no value", f"write: partition: {kind}")
    match kind:
        case "isolate":
            away = ground.names_of(item, one.id)
            return away, partitions.isolate(names, away)
        case "aggregator":
            return [ground.aggregator], partitions.isolate(names, [ground.aggregator])
        case "zone":
            zone = item.word(sorted({node.zone for node in ground.nodes if node.zone}))
            within = [node.name for node in ground.nodes if node.zone == zone]
            return within, partitions.isolate(names, within)
        case "halves":
            middle = len(ranked) // 2
            near = ranked[:middle] if ground.aggregator not in ranked[:middle] else ranked[middle:]
            return near, partitions.halves(ranked)
        case "bridge":
            middle_one = ground.one_of(item, one.id)
            return [middle_one], partitions.bridge(ranked, middle_one)
        case "majorities_ring":
            with item.located():
                return names, partitions.majorities_ring(ranked)
        case "one_way":
            section(item, "faults[].partition.one_way")
            senders = ground.names_of(item.required("from"), f"{one.id}/from")
            receivers = ground.names_of(item.required("to"), f"{one.id}/to")
            return {*senders, *receivers}, partitions.one_way(senders, receivers)
        case _:
            cut = [_pair(entry, ground) for entry in item.items()]
            return {name for pair in cut for name in pair}, partitions.pairs(cut)


def _pair(item: Item, ground: Ground) -> tuple[str, str]:
    entries = item.items()
    for entry in entries:
        if entry.text() not in ground.names:
            raise entry.error(f"there is no node {entry.text()!r}", nearest.hint(entry.text(), ground.names))
    if len(entries) != 2 or entries[0].text() == entries[1].text():
        raise item.error("a pair names two nodes", "write for example: [agg, w01]")
    return entries[0].text(), entries[1].text()


def _degrade(one: Wanted, ground: Ground) -> FaultPlan:
    keys = section(one.body, "faults[].degrade")
    for key in ("trace", "trace_repeats"):
        if key in keys:
            raise keys[key].error("a fault changes a link once, and not along a trace", "remove the key")
    about, links = _links_of(one, keys, ground)
    if not links:
        raise one.body.error("no link is hit by this", "name nodes that talk with each other")
    rule = rules.read(keys, ground.folder)
    if not set(rule.values) - {"profile"}:
        raise one.body.error("this fault changes nothing", 'add for example: latency: "200 ms"')
    for link in links:
        _check_change(one, rule, link)
    set_ = {
        key: list(value) if isinstance(value, tuple) else value for key, value in sorted(rule.values.items())
    }
    return _plan(one, about, {"links": [[link.from_, link.to] for link in links], "set": set_}, {})


def _links_of(
    one: Wanted, keys: Mapping[str, Item], ground: Ground
) -> tuple[Collection[str], list[LinkPlan]]:
    said = [key for key in ("targets", "between", "from", "to") if key in keys]
    if said not in (["targets"], ["between"], ["from", "to"]):
        message = f"{' and '.join(said)} do not go together"
        if len(said) < 2:
            message = f"{said[0]} alone does not say which links" if said else "it does not say which links"
        raise one.body.error(message, "write targets: third, or between: [eu, asia], or from: third, to: agg")
    if said == ["targets"]:
        hit = ground.names_of(keys["targets"], one.id)
        return hit, [link for link in ground.links if link.from_ in hit or link.to in hit]
    ends = keys["between"].items() if said == ["between"] else [keys["from"], keys["to"]]
    if len(ends) != 2:
        raise keys["between"].error(
            f"links lead between two targets, not {len(ends)}", "write for example: between: [eu, asia]"
        )
    near, far = (ground.names_of(end, f"{one.id}/{side}") for end, side in zip(ends, "ab", strict=True))
    both = said == ["between"]
    found = [
        link
        for link in ground.links
        if (link.from_ in near and link.to in far) or (both and link.from_ in far and link.to in near)
    ]
    return {*near, *far}, found


def _check_change(one: Wanted, rule: Rule, link: LinkPlan) -> None:
    """Whether the changed link still makes sense."""
    if link.trace is not None:
        raise one.body.error(
            f"the link from {link.from_} to {link.to} follows a trace, which would have the last word",
            "name other links",
        )
    plain = {f.name: getattr(link, f.name) for f in fields(link) if f.name not in ("from_", "to", "trace")}
    said: dict[str, Item] = {**dict.fromkeys(plain, one.body), **rule.said}
    rules.check(Rule({**plain, **rule.values}, said), f"{link.from_} to {link.to}")


def _parts(one: Wanted, ground: Ground) -> FaultPlan:
    """Processes, by their nodes: of kill, pause and restart."""
    keys: Mapping[str, Item] = {"targets": one.body}
    if isinstance(one.body.value, dict):
        keys = section(one.body, f"faults[].{one.kind}")
    part = keys["part"].word(PARTS) if "part" in keys else "worker"
    if "targets" in keys:
        about = ground.names_of(keys["targets"], one.id)
    elif part == "aggregator":
        about = (ground.aggregator,)
    else:
        raise one.body.error(
            "it does not say whom it hits", f"write for example: {one.kind}: {{targets: one}}"
        )
    hit = {name: _parts_of(one, part, ground.node(name)) for name in about}
    return replace(_plan(one, about, {}, {}), parts=hit)


def _parts_of(one: Wanted, part: str, node: NodePlan) -> tuple[str, ...]:
    if part == "worker":  # whatever the node is for
        return node.roles
    if part in ("trainer", "aggregator") and part not in node.roles:
        raise one.body.error(f"{node.name} has no {part}", f"it is a {' and '.join(node.roles)}")
    return (part,)


def _check_aggregator(one: Wanted, parts: Sequence[str], by_id: Mapping[str, Wanted]) -> None:
    """Whether the rounds can go on: without it no round ends, nor is it heard that one is due."""
    said = f"the aggregator's node without {' and '.join(parts)}"
    if one.heal is None:
        raise one.item.error(f"no round would end with {said}", 'say how long, as in for: "10 s"')
    is_in_same = (one.start.kind, one.start.round) == ("within", one.heal.round)
    waits = one.heal.kind == "round" or (one.heal.kind == "within" and not is_in_same)
    awaited = earliest_round(one.heal, one, by_id)  # perhaps by way of the fault that it comes after
    if waits or (one.start.kind in ("round", "within") and awaited > one.start.round):
        raise one.item.required("heal").error(
            f"round {awaited} would never begin with {said}", 'let it end by time, as in for: "10 s"'
        )


def _plan(
    one: Wanted, about: Collection[str], change: dict[str, Any], deaf: dict[str, dict[str, Any]]
) -> FaultPlan:
    return FaultPlan(
        id=one.id,
        kind=one.kind,
        text=one.text,
        targets=tuple(sorted(about)),
        start=one.start,
        heal=one.heal,
        deaf=deaf,
        change=change,
    )


_RESOLVE: Final[Mapping[str, Callable[[Wanted, Ground], FaultPlan]]] = {
    "partition": _partition,
    "degrade": _degrade,
    "flapping": _flapping,
    "kill": _parts,
    "pause": _parts,
    "restart": _parts,
}
