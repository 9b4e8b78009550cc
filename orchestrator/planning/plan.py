"""The plan: a scenario and a seed resolved, and nothing of the host. The same on every machine."""

from __future__ import annotations

import ipaddress
import itertools
import json
from typing import Any, Final, cast

from node.contract import UsageError
from node.contract.plan import EngineChoice, NetworkPlan, NodePlan, Plan, Role
from node.contract.schema import to_json
from orchestrator.faults import resolving
from orchestrator.faults.resolving import Ground
from orchestrator.planning import links, topology
from orchestrator.planning.scenario import AGGREGATOR, MOST_SEED, Group, NodeClass, Scenario

VERSION: Final = 1
# One private range, cut in two. The last address of each half is left to the gate.
DATA_SUBNET: Final = ipaddress.IPv4Network("10.77.0.0/22")
CTL_SUBNET: Final = ipaddress.IPv4Network("10.77.4.0/22")
LINE_WIDTH: Final = 110


def make_plan(scenario: Scenario, seed: int | None = None) -> Plan:
    """What a run of this scenario does; without a seed the scenario's own is taken."""
    seed = scenario.seed if seed is None else seed
    if not 0 <= seed <= MOST_SEED:
        raise UsageError(f"the seed {seed} is out of range", f"from 0 to {MOST_SEED}")
    nodes = _make_nodes(scenario)
    names = [node.name for node in nodes]
    edges = topology.edges(scenario.topology, names, AGGREGATOR, seed)
    talking = topology.talking(edges, AGGREGATOR, names)
    # Whom a drawn topology makes neighbours is chance: an entry is no mistake for missing them with one seed.
    could_talk = itertools.combinations(names, 2) if scenario.topology.kind == "regular" else talking
    links.check_use(scenario.network, nodes, could_talk)
    classes = {name: one.rule for name, one in scenario.classes.items()}
    found = links.resolve(scenario.network, classes, nodes, talking)
    return Plan(
        version=VERSION,
        scenario=scenario.name,
        summary=scenario.summary,
        seed=seed,
        nodes=nodes,
        network=NetworkPlan(
            data_subnet=str(DATA_SUBNET),
            ctl_subnet=str(CTL_SUBNET),
            transport=cast(Any, scenario.transport),
            edges=edges,
            delay_engine=scenario.network.delay_engine,
            congestion_control=scenario.network.congestion_control,
            trunks=found.trunks,
            traces=found.traces,
        ),
        workload=scenario.workload,
        aggregation=scenario.aggregation,
        checks=scenario.checks,
        links=found.links,
        faults=resolving.resolve(scenario.faults, Ground(nodes, found.links, seed, scenario.file.parent)),
    )


def plan_bytes(plan: Plan) -> bytes:
    """The plan's one spelling, made to be read and compared: plan.json."""
    return (_spell(to_json(plan), "") + "\n").encode()


def _make_nodes(scenario: Scenario) -> tuple[NodePlan, ...]:
    groups = [group for group in scenario.workers for _ in range(group.count)]
    nodes = [_make_node(scenario, AGGREGATOR, ("aggregator",), scenario.aggregator, 1)]
    for index, (name, group) in enumerate(zip(scenario.worker_names, groups, strict=True), start=2):
        nodes.append(_make_node(scenario, name, ("trainer",), group, index))
    return tuple(sorted(nodes, key=lambda node: node.name))


def _make_node(scenario: Scenario, name: str, roles: tuple[Role, ...], group: Group, index: int) -> NodePlan:
    its_class = scenario.classes[group.class_name] if group.class_name else NodeClass()
    engine: EngineChoice = its_class.ipfs or scenario.ipfs
    return NodePlan(
        name=name,
        roles=roles,
        zone=group.zone,
        class_name=group.class_name,
        data_address=str(DATA_SUBNET[index]),
        ctl_address=str(CTL_SUBNET[index]),
        ipfs=engine,
        cpu=its_class.cpu,
        memory_bytes=its_class.memory_bytes,
        up_bit_s=its_class.up_bit_s,
        down_bit_s=its_class.down_bit_s,
    )


def _spell(value: Any, indent: str) -> str:
    """JSON with whatever fits on one line; keys in the order of the contract."""
    line = json.dumps(value, ensure_ascii=False, allow_nan=False)
    if len(indent) + len(line) <= LINE_WIDTH or not isinstance(value, (dict, list)):
        return line
    deeper = indent + "  "
    if isinstance(value, list):
        parts = [_spell(item, deeper) for item in value]
        opening, closing = "[", "]"
        is_flat = not any(isinstance(item, (dict, list)) for item in value)
    else:
        parts = [f'"{key}": {_spell(item, deeper)}' for key, item in value.items()]
        opening, closing = "{", "}"
        is_flat = not any("\n" in part for part in parts)
    lines = _filled(parts, LINE_WIDTH - len(deeper)) if is_flat else [f"{part}," for part in parts]
    return opening + "".join(f"\n{deeper}{line}" for line in lines).removesuffix(",") + f"\n{indent}{closing}"


def _filled(parts: list[str], width: int) -> list[str]:
    """Several to a line: a link would take seventeen lines otherwise."""
    lines = [""]
    for part in parts:
        if lines[-1] and len(lines[-1]) + len(part) + 2 > width:
            lines.append("")
        lines[-1] += f" {part}," if lines[-1] else f"{part},"
    return lines
