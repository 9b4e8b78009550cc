"""The scenario: what a person wrote, read strictly and completely. scenarios/README.md explains every key."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Final, cast

from node.contract import UsageError
from node.contract.plan import AggregationPlan, CheckPlan, EngineChoice, WorkloadPlan
from orchestrator import units
from orchestrator.faults import reading
from orchestrator.faults.reading import Wanted
from orchestrator.planning import document, links, rules, targets, topology, workload
from orchestrator.planning.document import Item
from orchestrator.planning.keys import ENGINES, KEYS, MODES, MUST_BE_TOLD, STRATEGIES, TRANSPORTS, section
from orchestrator.planning.links import Network
from orchestrator.planning.rules import Rule
from orchestrator.planning.topology import Topology
from orchestrator.verdict import checks

AGGREGATOR: Final = "agg"
MOST_WORKERS: Final = 1020  # with the aggregator and the gate, what a bridge and a /22 can take
MOST_SEED: Final = 2**32 - 1
DAY: Final = Decimal(86400)
TEBIBYTE: Final = Decimal(1 << 40)


@dataclass(frozen=True)
class NodeClass:
    """What a node of this class can do; None is not limited, or the fleet's default."""

    cpu: float | None = None
    memory_bytes: int | None = None
    ipfs: EngineChoice | None = None
    up_bit_s: int | None = None
    down_bit_s: int | None = None
    rule: Rule = field(default_factory=Rule)  # of all links of its nodes, in both directions


@dataclass(frozen=True)
class Group:
    """Some nodes of one kind."""

    count: int
    class_name: str | None = None
    zone: str | None = None


@dataclass(frozen=True)
class Scenario:
    """All that the file says, with its defaults; whatever can be wrong with it has been checked."""

    name: str
    file: Path
    summary: str
    seed: int
    aggregator: Group
    workers: tuple[Group, ...]
    classes: Mapping[str, NodeClass]
    ipfs: EngineChoice
    topology: Topology
    transport: str
    workload: WorkloadPlan
    task_file: Path | None
    aggregation: AggregationPlan
    checks: tuple[CheckPlan, ...]
    network: Network = field(default_factory=Network)
    faults: tuple[Wanted, ...] = ()

    @property
    def worker_names(self) -> list[str]:
        return worker_names(sum(group.count for group in self.workers))


def worker_names(count: int) -> list[str]:
    """w01, w02, …: more workers never rename the others."""
    return [f"w{number:02}" for number in range(1, count + 1)]


def load(path: Path, shown: str | None = None) -> Scenario:
    """Read and check a scenario; `shown` is what complaints call the file."""
    root = document.load(path, shown or str(path))
    top = section(root, "")
    with root.located():
        check_name("a scenario", path.stem)
    classes = {
        name: _read_class(item, path.parent)
        for name, item in (top["classes"].mapping() if "classes" in top else {}).items()
    }
    aggregator, workers = _read_fleet(root.required("fleet"), classes)
    work, task_file = workload.read(root.required("workload"), path.parent)
    network = section(top["network"], "network") if "network" in top else {}
    groups = (aggregator, *workers)
    zones = sorted({group.zone for group in groups if group.zone is not None})
    names = [AGGREGATOR, *worker_names(sum(group.count for group in workers))]
    scenario = Scenario(
        name=path.stem,
        file=path,
        summary=root.required("summary").text(),
        seed=top["seed"].integer(0, MOST_SEED) if "seed" in top else 1,
        aggregator=aggregator,
        workers=workers,
        classes=classes,
        ipfs=_engine(top["ipfs"]) if "ipfs" in top else "auto",
        topology=_read_topology(network["topology"]) if "topology" in network else Topology("full"),
        transport=network["transport"].word(TRANSPORTS) if "transport" in network else "prompt",
        workload=work,
        task_file=task_file,
        aggregation=_read_aggregation(top.get("aggregation")),
        checks=_read_checks(root.required("checks"), _words(workers)),
        network=links.read(network, path.parent, zones, names),
        faults=reading.read(top["faults"], work.rounds) if "faults" in top else (),
    )
    if "topology" in network:
        with network["topology"].located():
            topology.edges(scenario.topology, names, AGGREGATOR, scenario.seed)
    if scenario.transport == "patient" and "kubo" in _engines(scenario):
        raise network["transport"].error(
            "Kubo cannot do transport patient", "take prompt or stock, or the embedded engine"
        )
    return scenario


def _engines(said: Scenario) -> set[str]:
    """The engines that nodes of this scenario ask for."""
    names = {group.class_name for group in (said.aggregator, *said.workers)}
    return {(said.classes[name].ipfs if name else None) or said.ipfs for name in names}


def check_name(what: str, name: str) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,39}", name):
        raise UsageError(
            f"{name!r} cannot be the name of {what}",
            "use small letters, digits and hyphens, beginning with a letter, at most 40",
        )


def _check_own_name(what: str, name: str) -> None:
    """Names of classes and zones are targets, beside the words and the nodes' names."""
    check_name(what, name)
    if name in targets.WORDS or name == AGGREGATOR or re.fullmatch(r"w[0-9]+", name):
        raise UsageError(
            f"{name!r} means something else already", f"call {what} something other than words and nodes"
        )


def _read_class(item: Item, folder: Path) -> NodeClass:
    with item.located():
        _check_own_name("a class", item.path.rpartition(".")[2])
    keys = section(item, "classes.*")
    return NodeClass(
        cpu=keys["cpu"].number(0.01, 1024) if "cpu" in keys else None,
        memory_bytes=int(keys["memory"].quantity(units.SIZE, 1 << 20, TEBIBYTE))
        if "memory" in keys
        else None,
        ipfs=_engine(keys["ipfs"]) if "ipfs" in keys else None,
        up_bit_s=rules.read_line(keys, "up"),
        down_bit_s=rules.read_line(keys, "down"),
        rule=rules.read(keys, folder, has_line=True),
    )


def _read_fleet(item: Item, classes: Mapping[str, NodeClass]) -> tuple[Group, tuple[Group, ...]]:
    keys = section(item, "fleet")
    groups = item.required("workers")
    workers = tuple(_read_group(group, "fleet.workers[]", classes) for group in groups.items())
    count = sum(group.count for group in workers)
    if count == 0:
        raise groups.error("there is no worker", "write for example: - {count: 4}")
    if count > MOST_WORKERS:
        raise groups.error(
            f"{count} workers are more than there are addresses", f"at most {MOST_WORKERS} fit on one bridge"
        )
    aggregator = Group(1)
    if "aggregator" in keys:
        aggregator = _read_group(keys["aggregator"], "fleet.aggregator", classes)
    return aggregator, workers


def _read_group(item: Item, shape: str, classes: Mapping[str, NodeClass]) -> Group:
    keys = section(item, shape)
    zone = keys["zone"].text() if "zone" in keys else None
    if zone is not None:
        with keys["zone"].located():
            _check_own_name("a zone", zone)
            if zone in classes:
                raise UsageError(f"{zone!r} is a class already", "give the zone another name")
    return Group(
        count=item.required("count").integer(1, 1_000_000) if "count" in KEYS[shape] else 1,
        class_name=keys["class"].word(list(classes)) if "class" in keys else None,
        zone=zone,
    )


def _engine(item: Item) -> EngineChoice:
    return cast(EngineChoice, item.word(ENGINES))


def _read_topology(item: Item) -> Topology:
    if not isinstance(item.value, list):
        word = item.text()
        with item.located():
            return topology.read(word)
    pairs = []
    for entry in item.items():
        names = [name.text() for name in entry.items()]
        if len(names) != 2:
            raise entry.error(f"a pair names two nodes, not {len(names)}", "write for example: [agg, w01]")
        pairs.append((names[0], names[1]))
    return Topology("pairs", pairs=tuple(pairs))


def _read_aggregation(item: Item | None) -> AggregationPlan:
    if item is None:
        return AggregationPlan("mean", "sync", quorum=1.0, deadline_s=60.0, parameters={})
    keys = section(item, "aggregation")
    strategy = keys["strategy"].word(list(STRATEGIES)) if "strategy" in keys else "mean"
    if "mode" in keys:
        keys["mode"].word(MODES)
    return AggregationPlan(
        strategy=strategy,
        mode="sync",
        quorum=float(keys["quorum"].quantity(units.SHARE, Decimal("0.001"), 1)) if "quorum" in keys else 1.0,
        deadline_s=float(keys["deadline"].quantity(units.DURATION, 1, DAY)) if "deadline" in keys else 60.0,
        parameters=_read_parameters(item, keys.get("parameters"), strategy),
    )


def _read_parameters(item: Item, parameters: Item | None, strategy: str) -> dict[str, float]:
    found = parameters.section(STRATEGIES[strategy]) if parameters else {}
    for name in STRATEGIES[strategy]:
        if name in MUST_BE_TOLD and name not in found:
            raise (parameters or item).error(
                f"the strategy {strategy} needs the parameter {name}", f"write: parameters: {{{name}: 1.0}}"
            )
    return {name: value.number(0, 1e18) for name, value in sorted(found.items())}


def _words(workers: Sequence[Group]) -> set[str]:
    """What a check may call some of the workers: names, classes, zones."""
    groups = {word for group in workers for word in (group.class_name, group.zone) if word is not None}
    return groups | set(worker_names(sum(group.count for group in workers)))


def _read_checks(item: Item, words: Collection[str]) -> tuple[CheckPlan, ...]:
    found = []
    for entry in item.items():
        text = entry.text() if not isinstance(entry.value, dict) else ""
        if isinstance(entry.value, dict):
            if len(entry.value) != 1:
                raise entry.error("one entry, one check", "begin each check with a dash")
            ((name, value),) = entry.value.items()
            text = f"{name}: {value.text()}"
        with entry.located():
            found.append(checks.read(text))
            if (word := checks.named_in(found[-1])) is not None and word not in words:
                checks.refuse_word(word, words)
    if not found:
        raise item.error("nothing is expected of this run", "write for example: - final_accuracy >= 0.8")
    return tuple(found)
