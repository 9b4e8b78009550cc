"""What this host and this run add to a plan: the binding, and with it what each node is told. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from node.contract.links import DelayEngine, LinkTable
from node.contract.plan import NodePlan, Plan
from node.contract.settings import SWARM_PORT, Neighbour, NodeSettings, ObjectRef


@dataclass(frozen=True)
class Ground:
    """Where a run happens, and what was prepared for it."""

    run: str
    hidden: Path  # the folder of secrets, with a folder for each node in it
    task_file: str | None
    data_folder: Path
    data: Mapping[str, Any]  # data.json: the shards by node, and the held-out examples
    made: Mapping[str, Any]  # of node.prepare: engines and peer IDs of the nodes, CIDs of the files
    limits: Mapping[str, Any] | None  # which there are, and whether this host enforces them
    secrets: Path  # where nodes find them
    driver: str
    driver_facts: Mapping[str, Any]
    addresses: Mapping[str, str]  # the subnets, where they may differ from the plan's
    trunks: str | None = None  # where nodes have to send what goes through one
    delay_engine: DelayEngine = "none"
    probed: Mapping[str, Any] | None = None  # what this kernel can do to packets; None: nothing is asked

    @property
    def swarm_key(self) -> Path:
        return self.secrets / "swarm-key"

    @property
    def token(self) -> Path:
        return self.secrets / "token"

    def path(self, shard: Mapping[str, Any]) -> str:
        return str(self.data_folder / shard["file"])


def binding(ground: Ground) -> dict[str, Any]:
    """binding.json: nothing in it is secret, and nothing of it is in the plan."""
    shown = ("engine", "version", "peer_id")
    return {
        "run": ground.run,
        "driver": ground.driver,
        **ground.driver_facts,
        "subnets": ground.addresses,
        "trunks": ground.trunks,
        "delay_engine": ground.delay_engine,
        "kernel": ground.probed,
        "limits": ground.limits,
        "data": {key: ground.data[key] for key in ("synthetic", "classes", "input_shape", "test")},
        "nodes": {name: {key: about[key] for key in shown} for name, about in ground.made["nodes"].items()},
        "shards": {
            name: {
                **ground.made["files"][ground.path(shard)],
                "examples": shard["examples"],
                "labels": shard["labels"],
            }
            for name, shard in ground.data["shards"].items()
        },
    }


def settings(
    plan: Plan,
    node: NodePlan,
    ground: Ground,
    links: LinkTable | None = None,
    pauses: tuple[int, ...] = (),
) -> NodeSettings:
    """What one node is told at its start."""
    nodes = ground.made["nodes"]
    who = {
        n.name: Neighbour(n.name, nodes[n.name]["peer_id"], f"/ip4/{n.data_address}/tcp/{SWARM_PORT}")
        for n in plan.nodes
    }
    near = sorted({a if b == node.name else b for a, b in plan.network.edges if node.name in (a, b)})
    aggregator = next(n for n in plan.nodes if "aggregator" in n.roles)
    shards = ground.data["shards"]
    mine = ground.made["files"][ground.path(shards[node.name])] if node.name in shards else None
    return NodeSettings(
        run=ground.run,
        name=node.name,
        roles=node.roles,
        seed=plan.seed,
        folder=str(ground.hidden / node.name),
        data_address=node.data_address,
        ctl_address=node.ctl_address,
        engine=nodes[node.name]["engine"],
        engine_path=nodes[node.name]["engine_path"],
        transport=plan.network.transport,
        swarm_key_file=str(ground.swarm_key),
        token_file=str(ground.token),
        neighbours=tuple(who[name] for name in near),
        members={neighbour.peer_id: name for name, neighbour in who.items()},
        aggregator=None if node is aggregator else who[aggregator.name],
        workload=plan.workload,
        aggregation=plan.aggregation,
        task_file=ground.task_file,
        shard=ObjectRef(mine["cid"], mine["size_bytes"]) if mine else None,
        shards={ground.path(shard): name for name, shard in shards.items()} if node is aggregator else {},
        test_file=ground.path(ground.data["test"]) if node is aggregator else None,
        classes=ground.data["classes"],
        links=links,
        delay_engine=ground.delay_engine,
        pauses=pauses if node is aggregator else (),
        congestion_control=plan.network.congestion_control,
    )
