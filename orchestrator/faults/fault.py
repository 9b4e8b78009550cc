"""What a fault is: inject, verify, heal, verify again; and what it may do to a fleet."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

from node.contract import ShoalError
from node.contract.faults import FaultsNow
from node.contract.links import Cut, CutDone, InForce, LinkTable
from node.contract.plan import FaultPlan, LinkPlan
from node.contract.probes import Answer
from orchestrator.faults.partitions import Deaf

Phase = Literal["start", "heal"]
PartState = Literal["running", "paused", "ended"]
LEAD_S: Final = 0.3  # for agents to get ready for the common instant
LEAD_PER_NODE_S: Final = 0.005
MOST_THREADS: Final = 64


class PartControl(Protocol):
    """What a driver can do to a node's parts: agent, ipfs, trainer, aggregator, or all at once: `node`.

    Each call is bounded, and raises ShoalError when it was not done. What is so already is no error.
    """

    def kill(self, node: str, part: str) -> None:
        """SIGKILL; it has ended when this returns, and stays so until `start`."""

    def pause(self, node: str, part: str) -> None:
        """It does nothing any more, and keeps all that it has."""

    def resume(self, node: str, part: str) -> None:
        """It goes on where it was paused."""

    def start(self, node: str, part: str) -> None:
        """Start what was killed, as it was started first; it need not work yet when this returns."""

    def state(self, node: str, part: str) -> PartState: ...


class Fleet(PartControl, Protocol):
    """What a fault may do; each call is bounded, and raises ShoalError when the node did not do it.

    Instants are mono_ns of the orchestrator's clock, both ways.
    """

    def put_cut(self, node: str, cut: Cut, at_ns: int) -> CutDone:
        """From this instant on the node no longer hears these; the same cut twice is one cut."""

    def remove_cut(self, node: str, fault: str, at_ns: int) -> CutDone:
        """From this instant on the fault cuts nothing at the node; a fault that is not there is no error."""

    def put_links(self, node: str, table: LinkTable) -> InForce:
        """Replace all links of the node."""

    def get_links(self, node: str) -> InForce:
        """What is really in force, read back."""

    def hears(self, node: str, peer: str) -> bool:
        """Whether packets of the peer arrive at the node: measured on `data`, in this direction only."""

    def answers(self, node: str, part: str) -> Answer:
        """Whether a part answers: to its node's agent, or the agent to us, whatever anybody says of it."""

    def knock(self, node: str, peer: str) -> Answer:
        """Whether the peer's IPFS daemon speaks to the node over `data`."""

    def started(self, node: str) -> Mapping[str, int]:
        """By part: when the newest process of it began, as long as that lives; in ticks of the kernel's."""

    def rtt_ms(self, node: str, peer: str) -> float | None:
        """The median of some round trips on `data`; None when nothing came back."""

    def release(self, round_: int) -> None:
        """Let the aggregator open rounds up to this one."""

    def show(self, faults: FaultsNow) -> None:
        """Let the metrics tell which faults are in force."""

    def tables(self, links: tuple[LinkPlan, ...]) -> Mapping[str, LinkTable]:
        """What each node is to be told when these are the plan's links."""

    def clock_offset_ns(self, node: str) -> int:
        """The node's monotonic clock minus the orchestrator's."""


@dataclass(frozen=True)
class Scene:
    """What should be in force: for a step by the other faults, for a probe by all of them."""

    deaf: Deaf
    links: tuple[LinkPlan, ...]
    unsteady: frozenset[tuple[str, str]] = frozenset()  # node and peer whose link flaps at the moment
    # Parts that are down, by node, `node` for all; and nodes whose agents are: they are told afterwards.
    down: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unwatched: frozenset[str] = frozenset()
    signs: Mapping[tuple[str, str], int] = field(default_factory=dict)  # node and part: when it began to work


@dataclass(frozen=True)
class Effect:
    """When nodes did what they were asked, and who did not."""

    requested_ns: int
    effective_ns: Mapping[str, int]
    problems: Mapping[str, str]

    @property
    def skew_ms(self) -> float:
        """Between the first and the last node."""
        instants = self.effective_ns.values()
        return (max(instants) - min(instants)) / 1e6 if instants else 0.0


@dataclass(frozen=True)
class Verified:
    """Whether probes and kernels show what was intended; None: it changed meanwhile, ask again."""

    verified: bool | None
    said: str


class Fault(Protocol):
    """One kind of fault. All of it may be done twice."""

    plan: FaultPlan

    def inject(self, fleet: Fleet, scene: Scene, at_ns: int, /) -> Effect: ...

    def heal(self, fleet: Fleet, scene: Scene, at_ns: int, /) -> Effect: ...

    def verify(self, fleet: Fleet, look: Callable[[], Scene], phase: Phase, /) -> Verified:
        """Whether what should be so is so; `look` says what should be in force at that moment."""


def lead_ns(nodes: int) -> int:
    """How long before the common instant nodes must be asked."""
    return round((LEAD_S + LEAD_PER_NODE_S * nodes) * 1e9)


def on_all(nodes: Collection[str], act: Callable[[str], int], at_ns: int) -> Effect:
    """Do something on all nodes side by side; `act` returns the instant at which it took effect."""
    effective: dict[str, int] = {}
    problems: dict[str, str] = {}
    if not nodes:
        return Effect(at_ns, effective, problems)
    with ThreadPoolExecutor(min(MOST_THREADS, len(nodes)), thread_name_prefix="fault") as pool:
        futures = {node: pool.submit(act, node) for node in sorted(nodes)}
    for node, future in futures.items():
        try:
            effective[node] = future.result()
        except ShoalError as error:
            problems[node] = error.message
    return Effect(at_ns, effective, problems)


def common_instant(nodes: int, at_ns: int) -> int:
    """The instant that is due, or as soon as all nodes can be ready."""
    return max(at_ns, time.monotonic_ns() + lead_ns(nodes))
