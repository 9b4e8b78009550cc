"""The plan: a scenario and a seed resolved, and nothing of the host. Its JSON is plan.json."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from node.contract.links import CutHow, JitterKind, TracePoint

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
class LinkPlan:
    """One directed link between two nodes that talk. What is not limited is null."""

    from_: str  # in JSON `from`
    to: str
    latency_ms: float
    jitter_ms: float
    loss: float
    rate_bit_s: int | None
    loss_burst: float = 1.0
    jitter_kind: JitterKind = "normal"
    jitter_table: tuple[float, ...] = ()
    in_order: bool = True
    duplicate: float = 0.0
    corrupt: float = 0.0
    reorder: float = 0.0
    profile: str | None = None  # the shipped profile that the rules named last
    trunk: str | None = None  # the shared line that it is part of
    trace: str | None = None  # one of the plan's traces


@dataclass(frozen=True)
class TrunkPlan:
    """One line that all links of a pair of zones share, in one direction."""

    name: str  # eu:asia
    from_zone: str
    to_zone: str
    rate_bit_s: int


@dataclass(frozen=True)
class TracePlan:
    """A link that changes with time, as read from the scenario's file."""

    file: str
    sha256: str
    repeats: bool
    points: tuple[TracePoint, ...]


@dataclass(frozen=True)
class NetworkPlan:
    data_subnet: str
    ctl_subnet: str
    transport: Literal["prompt", "stock", "patient"]
    edges: tuple[tuple[str, str], ...]  # unordered pairs that know each other, each written once, sorted
    delay_engine: Literal["auto", "netem", "hold"] = "auto"
    congestion_control: str = "cubic"
    trunks: tuple[TrunkPlan, ...] = ()
    traces: dict[str, TracePlan] = field(default_factory=dict)


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
class When:
    """A moment of a run. Rounds wait at their opening until what is due then is in force."""

    kind: Literal["time", "round", "within", "after", "lasting"]
    # of `time`: since round 1 was opened; of `within`: since the round was, which does not wait;
    # of `after`: since the end of the fault that it names; of `lasting`: since this fault's own start
    seconds: float = 0.0
    round: int = 0
    fault: str | None = None  # of `after`


@dataclass(frozen=True)
class FaultPlan:
    """One fault, its targets resolved into names."""

    id: str  # partition-1, in the order of the scenario
    kind: str  # the name of a file in orchestrator/faults/
    text: str  # as written, for people
    targets: tuple[str, ...]  # the nodes that it is about, sorted
    start: When
    heal: When | None  # None: it lasts to the end
    deaf: dict[str, dict[str, CutHow]] = field(default_factory=dict)  # node → whom it no longer hears
    change: dict[str, Any] = field(default_factory=dict)  # what else the kind needs, resolved
    parts: dict[str, tuple[str, ...]] = field(default_factory=dict)  # node → which parts are hit; `node`: all


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
    links: tuple[LinkPlan, ...] = ()
    faults: tuple[FaultPlan, ...] = ()
