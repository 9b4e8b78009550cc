"""The plan: a scenario and a seed resolved, and nothing of the host. Its JSON is plan.json."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Role = Literal["trainer", "aggregator"]
EngineChoice = Literal["auto", "kubo", "embedded"]


@dataclass(frozen=True)
class NodePlan:
    """One node. They stand in order of name: the aggregator is `agg`, workers are `w01`, `w02`, …"""

    name: str
    roles: tuple[Role, ...]
    zone: str | None
    class_name: str | None
    data_address: str
    ctl_address: str
    ipfs: EngineChoice = "auto"
    cpu: float | None = None  # cores for roles and IPFS together; None: not limited
    memory_bytes: int | None = None  # on top of the shared runtime
    up_bit_s: int | None = None
    down_bit_s: int | None = None


@dataclass(frozen=True)
class NetworkPlan:
    data_subnet: str
    ctl_subnet: str
    transport: Literal["prompt", "stock", "patient"]
    edges: tuple[tuple[str, str], ...]  # unordered pairs that know each other, each written once, sorted


@dataclass(frozen=True)
class PartitionPlan:
    """How the training set is cut. The recipe is pure; the shards' CIDs stand in the binding."""

    kind: Literal["iid", "dirichlet", "label"]
    alpha: float | None = None  # of dirichlet
    labels_per_node: int | None = None  # of label
    examples_per_node: int | None = None  # None: all examples are dealt out


@dataclass(frozen=True)
class WorkloadPlan:
    dataset: str  # digits, mnist-5k, mnist, cifar10, synthetic-cifar, or `file` for the user's own
    model: str  # cnn, or `file`
    partition: PartitionPlan
    rounds: int
    local_epochs: int
    batch_size: int
    learning_rate: float
    optimizer: Literal["sgd", "adam"] = "sgd"
    server_learning_rate: float = 1.0
    file: str | None = None  # the user's own task, as written in the scenario
    file_sha256: str | None = None


@dataclass(frozen=True)
class AggregationPlan:
    strategy: str  # the name of a file in aggregator/strategies/
    mode: Literal["sync"]
    quorum: float  # share of those asked whose updates must be there at the deadline
    deadline_s: float
    parameters: dict[str, float]


@dataclass(frozen=True)
class CheckPlan:
    """One expectation: `text` as written, and what it means."""

    text: str
    kind: str  # final_accuracy, rounds_completed, …
    operator: str | None = None  # ==, >=, <=, >, <
    value: float | None = None


@dataclass(frozen=True)
class Plan:
    version: int
    scenario: str
    summary: str
    seed: int
    nodes: tuple[NodePlan, ...]
    network: NetworkPlan
    workload: WorkloadPlan
    aggregation: AggregationPlan
    checks: tuple[CheckPlan, ...]
    faults: tuple[Any, ...] = ()
