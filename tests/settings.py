"""What a node is told at its start, for tests that care about some of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from node.contract.plan import AggregationPlan, PartitionPlan, WorkloadPlan
from node.contract.settings import NodeSettings

WORKLOAD: Final = WorkloadPlan("digits", "cnn", PartitionPlan("iid"), 1, 1, 32, 0.1)
AGGREGATION: Final = AggregationPlan("mean", "sync", 1.0, 30.0, {})


def node_settings(name: str, folder: Path | None = None, **told: Any) -> NodeSettings:
    """A node without roles, neighbours, data or links, unless it is told of some."""
    plain = NodeSettings(
        run="r1",
        name=name,
        roles=(),
        seed=1,
        folder=str(folder or ""),
        data_address="10.77.0.1",
        ctl_address="127.0.0.1",
        engine="embedded",
        engine_path="/nowhere",
        transport="prompt",
        swarm_key_file=str(folder / "swarm.key") if folder else "",
        token_file=str(folder / "token") if folder else "",
        neighbours=(),
        members={},
        aggregator=None,
        workload=WORKLOAD,
        aggregation=AGGREGATION,
        task_file=None,
        shard=None,
        shards={},
        test_file=None,
    )
    return replace(plain, **told)
