"""A fleet for faults: nodes that keep cuts and link tables, and hear each other accordingly."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import get_args

from node.contract import ShoalError
from node.contract.faults import FaultsNow
from node.contract.links import Cut, CutDone, InForce, LinkState, LinkTable
from node.contract.plan import LinkPlan, Plan
from node.contract.probes import Answer
from node.links.table import tables
from orchestrator.faults.fault import PartState


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

    # Of parts: what kill and the others do is seen by whoever asks, unless a test says otherwise.
    ended: set[tuple[str, str]] = field(default_factory=set)
    paused: set[tuple[str, str]] = field(default_factory=set)
    undying: set[tuple[str, str]] = field(default_factory=set)  # node and part: they answer whatever is done
    starts: dict[tuple[str, str], int] = field(default_factory=dict)
    unstartable: set[tuple[str, str]] = field(default_factory=set)
    on_start: Callable[[str, str], None] = lambda *_: None

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
        cut = {peer: how for one in self.cuts[node].values() for peer, how in one.deaf_to.items()}
        links = tuple(
            LinkState(
                one.peer, None, one.into.latency_ms, one.into.loss, cut.get(one.peer), 0, 0, 0, 0, 0, 0, 0
            )
            for one in self.told[node].peers
        )
        return InForce("hold", links, self.mismatches, None, None, "cubic", 1, 0.0)

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

    def kill(self, node: str, part: str) -> None:
        places = self._places("kill", node, part)
        with self._lock:
            self.ended |= places
            self.paused -= places

    def start(self, node: str, part: str) -> None:
        places = self._places("start", node, part)
        if (node, part) in self.unstartable:
            raise ShoalError(f"{part} of {node} does not start")
        with self._lock:
            for place in self.ended & places:
                self.starts[place] = self.starts.get(place, 0) + 1
            self.ended -= places
        self.on_start(node, part)

    def pause(self, node: str, part: str) -> None:
        with self._lock:
            self.paused |= self._places("pause", node, part)

    def resume(self, node: str, part: str) -> None:
        with self._lock:
            self.paused -= self._places("resume", node, part)

    def state(self, node: str, part: str) -> PartState:
        states = {self._state(place) for place in self._places("state", node, part)}
        return next(state for state in get_args(PartState) if state in states)

    def answers(self, node: str, part: str) -> Answer:
        if part != "agent":
            self._check("answers", node, part)
        return self._answer((node, part))

    def knock(self, node: str, peer: str) -> Answer:
        assert self.hears(node, peer), "nobody asks whom he does not hear"
        return self._answer((peer, "ipfs"))

    def started(self, node: str) -> Mapping[str, int]:
        self._check("started", node, "")
        up = self._places("started", node, "node") - self.ended
        return {part: self.starts.get((node, part), 0) for node, part in up}

    def _places(self, verb: str, node: str, part: str) -> set[tuple[str, str]]:
        """The part, or all of the node's."""
        self.calls.append((verb, node, part))
        (roles,) = [one.roles for one in self.plan.nodes if one.name == node]
        known = ("agent", "ipfs", *roles)
        assert part in (*known, "node"), f"{node} has no part {part!r}"
        return {(node, one) for one in (known if part == "node" else (part,))}

    def _state(self, place: tuple[str, str]) -> PartState:
        return "ended" if place in self.ended else "paused" if place in self.paused else "running"

    def _answer(self, place: tuple[str, str]) -> Answer:
        if place in self.undying:
            return "spoke"
        answers: dict[PartState, Answer] = {"running": "spoke", "paused": "silent", "ended": "refused"}
        return answers[self._state(place)]

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
        if node in self.dead or self._state((node, "agent")) != "running":
            raise ShoalError(f"{node} does not answer")

    def _done(self, node: str, fault: str, at_ns: int) -> CutDone:
        late_ns = sorted(self.cuts).index(node) * self.skew_ns
        return CutDone(fault, at_ns, at_ns + late_ns, {})
