"""What a node is told when it starts: the file that `python -m node` reads. Secrets stand elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from node.contract.links import DelayEngine, LinkTable
from node.contract.plan import AggregationPlan, Role, WorkloadPlan

DATA_INTERFACE = "data"  # as in every node
AGENT_PORT = 7070  # the agent, on ctl
ROLE_PORT = 7071  # a role's own metrics, on loopback; the agent passes them on
IPFS_PORT = 5001  # the daemon's RPC, on loopback
SWARM_PORT = 4001  # the daemon's swarm, on data
PROMETHEUS_PORT = 9090
PROTOCOL = "/x/shoal/round/1"  # the tunnel that trainers ask the aggregator through

EVENTS_FILE = "events.jsonl"  # in the node's folder; appended by roles, served by the agent
ORDERS_SOCKET = "orders"  # in the node's folder: faults kill, pause and start its parts; see node/orders.py
RELEASE_FILE = "release"  # in the node's folder, written by the agent: up to which round may be opened


@dataclass(frozen=True)
class Neighbour:
    """Another node that this one knows: by its name, its daemon's identity and its address on data."""

    name: str
    peer_id: str
    address: str  # /ip4/…/tcp/…


@dataclass(frozen=True)
class ObjectRef:
    """Something on IPFS, with its exact size."""

    cid: str
    size_bytes: int


@dataclass(frozen=True)
class NodeSettings:
    run: str  # the run's id, unique on this host
    name: str
    roles: tuple[Role, ...]
    seed: int  # of the run; a node's own numbers derive from it and its name
    folder: str  # the node's private folder: `ipfs/`, events, logs, the aggregator's durable state
    data_address: str
    ctl_address: str
    engine: Literal["kubo", "embedded"]
    engine_path: str
    transport: Literal["prompt", "stock", "patient"]
    swarm_key_file: str
    token_file: str  # the agent demands what stands in it
    neighbours: tuple[Neighbour, ...]  # along the topology
    members: dict[str, str]  # the allow-list: peer ID → name, of every node of the fleet
    aggregator: Neighbour | None  # whom a trainer asks; None on the aggregator itself
    workload: WorkloadPlan
    aggregation: AggregationPlan
    task_file: str | None  # absolute path of the user's own task
    shard: ObjectRef | None  # a trainer's data; it fetches them by CID
    shards: dict[str, str]  # on the node that seeds the data: file path → name of the node it is for
    test_file: str | None  # on the aggregator: the held-out data
    classes: int = 0  # how many labels there are; a shard may hold only some of them
    links: LinkTable | None = None  # put in force before IPFS and roles start; None: nothing is
    delay_engine: DelayEngine = "none"
    congestion_control: str = "cubic"
    pauses: tuple[int, ...] = ()  # of the aggregator: rounds that wait to be released before they open
