"""Links: what a node's agent is told about them, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

DelayEngine = Literal["netem", "hold", "none"]  # none: nothing is delayed
JitterKind = Literal["normal", "pareto", "table"]
CutHow = Literal["drop", "reject"]
Waking = Literal["first", "soon", "in turn"]

MOST_PEERS = 1022


@dataclass(frozen=True)
class TracePoint:
    """From this moment on, until the next; what is None stays as the shape says."""

    at_s: float  # since the trace began
    latency_ms: float | None = None
    rate_bit_s: int | None = None
    loss: float | None = None


@dataclass(frozen=True)
class Shape:
    """What one directed link does to its packets. Latency is one way; None is not limited."""

    latency_ms: float = 0.0
    jitter_ms: float = 0.0  # standard deviation of the latency
    jitter_kind: JitterKind = "normal"
    jitter_table: tuple[float, ...] = ()  # of `table`: even quantiles, in units of jitter_ms
    in_order: bool = True  # a later packet never overtakes
    loss: float = 0.0  # share of packets
    loss_burst: float = 1.0  # mean length of a run of lost packets; 1: each alone
    rate_bit_s: int | None = None
    duplicate: float = 0.0
    corrupt: float = 0.0
    reorder: float = 0.0  # share of packets that are sent at once, before delayed ones
    trace: tuple[TracePoint, ...] = ()
    trace_repeats: bool = True  # from its end back to its beginning, else the last point stays


@dataclass(frozen=True)
class PeerLinks:
    """Both directions between this node and another."""

    peer: str
    address: str  # on data
    out: Shape  # from this node to the peer
    into: Shape  # from the peer to this node
    via: str | None = None  # where what goes there has to be sent first; None: directly
    shared_queues_ms: float = 0.0  # what full queues of lines that zones share take, there and back


@dataclass(frozen=True)
class LinkTable:
    """All links of one node: what its agent puts in force, whole, at once."""

    node: str
    address: str
    subnet: str
    up_bit_s: int | None
    down_bit_s: int | None
    peers: tuple[PeerLinks, ...]
    congestion_control: str = "cubic"
    seed: int = 0  # the plan's: which packets are lost follows from it, from this node and from the peer


@dataclass(frozen=True)
class Cut:
    """Whom a node does not hear for as long as the fault of this id lasts. Several are united."""

    fault: str
    deaf_to: dict[str, CutHow]  # by the peer's name


@dataclass(frozen=True)
class LinkState:
    """What is really in force towards one peer, read back from kernel and holder, with its counters.

    `latency_ms` stands at the end that makes it: the sender with netem, the receiver with hold.
    """

    peer: str
    rate_bit_s: int | None
    latency_ms: float
    loss: float
    is_cut: CutHow | None
    sent_packets: int
    sent_bytes: int
    received_packets: int
    received_bytes: int
    lost_packets: int  # on purpose, at this receiver
    cut_packets: int
    overflowed_packets: int  # queues were full


@dataclass(frozen=True)
class Lateness:
    """How late the holder released packets: counts by the upper edge of a bin; the last bin has none."""

    edges_ms: tuple[float, ...]
    counts: tuple[int, ...]
    tolerance_ms: float
    beyond_tolerance: int
    packets: int


@dataclass(frozen=True)
class InForce:
    """The answer to PUT and GET /links."""

    engine: DelayEngine
    links: tuple[LinkState, ...]
    mismatches: tuple[str, ...]  # where the kernel differs from what was asked; empty: all is as asked
    up_bit_s: int | None
    down_bit_s: int | None
    congestion_control: str  # read back from a socket
    gso_max_segs: int
    applied_ms: float  # what applying the table took; 0 for GET
    lateness: Lateness | None = None
    waking: Waking | None = None  # how the kernel lets the holder in when others want to run as well


@dataclass(frozen=True)
class CutDone:
    """The answer to PUT and DELETE /cuts: when it was asked for, and when it took effect."""

    fault: str
    requested_mono_ns: int
    effective_mono_ns: int
    deaf_to: dict[str, CutHow]  # all of this node, from whatever fault
