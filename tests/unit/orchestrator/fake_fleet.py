"""A fleet for faults: nodes that keep cuts and link tables, and hear each other accordingly."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from node.contract import ShoalError
from node.contract.faults import FaultsNow
from node.contract.links import Cut, CutDone, InForce, LinkTable
from node.contract.plan import LinkPlan, Plan
from node.links.table import tables


@dataclass
class FakeFleet:
    """Strict: a call about what is not there is an error. `skew_ns` is how late the second node is, and so on."""

    plan: Plan
    skew_ns: int = 1_000_000
    cuts: dict[str, dict[str, Cut]] = field(default_factory=dict)
    told: dict[str, LinkTable] = field(default_factory=dict)
    released: list[int] = field(default_factory=list)
    calls: list[tuple[str, str, str]] = field(default_factory=list)
    dead: set[str] = field(default_factory=set)  # agents that do not answer
    deaf_forever: set[tuple[str, str]] = field(default_factory=set)
    mismatches: tuple[str, ...] = ()  # where kernels differ from what was asked
    leaky: set[tuple[str, str]] = field(default_factory=set)  # who hears whom whatever is cut
    refuses_release: int = 0
    refuses_show: int = 0
    shown: list[dict[str, bool]] = field(default_factory=list)
    refusals: dict[str, int] = field(default_factory=dict)  # how many more calls an agent does not answer
    offset_ns: int = 0

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self.told = dict(self.tables(self.plan.links))
        self.cuts = {node.name: {} for node in self.plan.nodes}

    def put_cut(self, node: str, cut: Cut, at_ns: int) -> CutDone:
        self._check("put_cut", node, cut.fault)
        unknown = set(cut.deaf_to) - {peer.peer for peer in self.told[node].peers}
        if unknown:
            raise ShoalError(f"{node} has no link with {sorted(unknown)}")
        with self._lock:
            self.cuts[node][cut.fault] = cut
        return self._done(node, cut.fault, at_ns)

    def remove_cut(self, node: str, fault: str, at_ns: int) -> CutDone:
        self._check("remove_cut", node, fault)
        with self._lock:
            self.cuts[node].pop(fault, None)
        return self._done(node, fault, at_ns)

    def put_links(self, node: str, table: LinkTable) -> InForce:
        self._check("put_links", node, "")
        self.told[node] = table
        return self.get_links(node)

    def get_links(self, node: str) -> InForce:
        self._check("get_links", node, "")
        return InForce("hold", (), self.mismatches, None, None, "cubic", 1, 0.0)

    def hears(self, node: str, peer: str) -> bool:
        self._check("hears", node, peer)
        with self._lock:
            is_cut = any(peer in cut.deaf_to for cut in self.cuts[node].values())
        return (node, peer) in self.leaky or not (is_cut or (node, peer) in self.deaf_forever)

    def rtt_ms(self, node: str, peer: str) -> float | None:
        self._check("rtt_ms", node, peer)
        (links,) = [one for one in self.told[node].peers if one.peer == peer]
        (back,) = [one for one in self.told[peer].peers if one.peer == node]
        return links.into.latency_ms + back.into.latency_ms  # made at the receivers

    def release(self, round_: int) -> None:
        if self.refuses_release:
            self.refuses_release -= 1
            raise ShoalError("the agent does not answer")
        self.released.append(round_)

    def show(self, faults: FaultsNow) -> None:
        if self.refuses_show:
            self.refuses_show -= 1
            raise ShoalError("the agent does not answer")
        self.shown.append({name: now.is_active for name, now in faults.faults.items()})

    def tables(self, links: tuple[LinkPlan, ...]) -> Mapping[str, LinkTable]:
        return tables(replace(self.plan, links=links))

    def clock_offset_ns(self, node: str) -> int:
        assert node in self.cuts
        return self.offset_ns

    def _check(self, verb: str, node: str, about: str) -> None:
        assert node in self.cuts, f"{verb}: there is no node {node!r}"
        with self._lock:
            self.calls.append((verb, node, about))
        if self.refusals.get(node):
            self.refusals[node] -= 1
            raise ShoalError(f"{node} does not answer yet")
        if node in self.dead:
            raise ShoalError(f"{node} does not answer")

    def _done(self, node: str, fault: str, at_ns: int) -> CutDone:
        late_ns = sorted(self.cuts).index(node) * self.skew_ns
        return CutDone(fault, at_ns, at_ns + late_ns, {})
