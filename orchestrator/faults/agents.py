"""What faults may do to a fleet, done by the nodes' agents; to their parts, by the driver."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from node.contract import ShoalError
from node.contract.faults import FaultsNow
from node.contract.links import Cut, CutDone, InForce, LinkTable
from node.contract.plan import LinkPlan, Plan
from node.contract.probes import PROBE_S, Answer
from node.contract.schema import from_json, to_json
from node.links.table import tables
from orchestrator.faults.fault import PartControl, PartState
from orchestrator.faults.schedule import link_states
from orchestrator.measuring.probing import Prober

# Node, method, path, body and patience → the answer; ShoalError when there is none, or a refusal.
Call = Callable[[str, str, str, Mapping[str, Any] | None, float], Mapping[str, Any]]
ANSWER_S: Final = 15.0  # beyond the instant that was asked for
KNOCK_S: Final = 3.0
AGENT: Final = "agent"
SHOW_S: Final = 2.0  # nothing waits for it
CLOCK_READS: Final = 3


class AgentFleet:
    """Calls come from many threads; instants are translated from and to each node's clock."""

    def __init__(self, plan: Plan, call: Call) -> None:
        self._plan, self._call = plan, call
        self.parts: PartControl | None = None  # once there are any
        self.trunks: str | None = None  # where nodes have to send what goes through one
        self._aggregator = next(node.name for node in plan.nodes if "aggregator" in node.roles)
        self._prober = Prober(lambda node, path, body: call(node, "POST", path, body, PROBE_S), slowest(plan))
        self._offsets: dict[str, int] = {}
        self._reading = threading.Lock()

    def put_cut(self, node: str, cut: Cut, at_ns: int) -> CutDone:
        offset_ns = self.clock_offset_ns(node)
        order = {"cut": to_json(cut), "at_mono_ns": at_ns + offset_ns}
        return self._done(self._call(node, "PUT", "/cuts", order, _patience_s(at_ns)), offset_ns)

    def remove_cut(self, node: str, fault: str, at_ns: int) -> CutDone:
        offset_ns = self.clock_offset_ns(node)
        path = f"/cuts/{fault}?at_mono_ns={at_ns + offset_ns}"
        return self._done(self._call(node, "DELETE", path, None, _patience_s(at_ns)), offset_ns)

    def put_links(self, node: str, table: LinkTable) -> InForce:
        return from_json(InForce, self._call(node, "PUT", "/links", to_json(table), ANSWER_S))

    def get_links(self, node: str) -> InForce:
        return from_json(InForce, self._call(node, "GET", "/links", None, ANSWER_S))

    def hears(self, node: str, peer: str) -> bool:
        return self._prober.hears(node, peer)

    def answers(self, node: str, part: str) -> Answer:
        if part == AGENT:
            try:
                self._call(node, "GET", "/health", None, KNOCK_S)
            except ShoalError:
                return "silent"
            return "spoke"
        said: Answer = self._call(node, "GET", "/answers", None, ANSWER_S)[part]
        return said

    def knock(self, node: str, peer: str) -> Answer:
        return self._prober.knock(node, peer)

    def started(self, node: str) -> Mapping[str, int]:
        parts = self._call(node, "GET", "/health", None, ANSWER_S)["parts"]
        return {part: seen["start_ticks"] for part, seen in parts.items() if seen["is_up"]}

    def rtt_ms(self, node: str, peer: str) -> float | None:
        return self._prober.rtt_ms(node, peer)

    def kill(self, node: str, part: str) -> None:
        self._parts().kill(node, part)

    def pause(self, node: str, part: str) -> None:
        self._parts().pause(node, part)

    def resume(self, node: str, part: str) -> None:
        self._parts().resume(node, part)

    def start(self, node: str, part: str) -> None:
        self._parts().start(node, part)

    def state(self, node: str, part: str) -> PartState:
        return self._parts().state(node, part)

    def _parts(self) -> PartControl:
        if self.parts is None:
            raise ShoalError("nobody can act upon this fleet's parts", "this is a mistake of ours")
        return self.parts

    def release(self, round_: int) -> None:
        self._call(self._aggregator, "PUT", "/release", {"round": round_}, ANSWER_S)

    def show(self, faults: FaultsNow) -> None:
        self._call(self._aggregator, "PUT", "/faults", to_json(faults), SHOW_S)

    def tables(self, links: tuple[LinkPlan, ...]) -> Mapping[str, LinkTable]:
        return tables(replace(self._plan, links=links), self.trunks)

    def clock_offset_ns(self, node: str) -> int:
        """Read once for each node: clocks of one machine do not drift apart."""
        with self._reading:
            if node not in self._offsets:
                self._offsets[node] = offset_ns([self._read_clock(node) for _ in range(CLOCK_READS)])
            return self._offsets[node]

    def read_clocks(self) -> None:
        """Before the first fault: when one is due there is no time for it."""
        for node in self._plan.nodes:
            self.clock_offset_ns(node.name)

    def _read_clock(self, node: str) -> tuple[int, int, int]:
        before_ns = time.monotonic_ns()
        answer = self._call(node, "GET", "/clock", None, ANSWER_S)
        return before_ns, int(answer["mono_ns"]), time.monotonic_ns()

    def _done(self, answer: Mapping[str, Any], offset_ns: int) -> CutDone:
        done = from_json(CutDone, answer)
        return replace(
            done,
            requested_mono_ns=done.requested_mono_ns - offset_ns,
            effective_mono_ns=done.effective_mono_ns - offset_ns,
        )


def offset_ns(reads: list[tuple[int, int, int]]) -> int:
    """A clock minus ours, from reads of ours, it, and ours again; 0 when it may be the same clock."""
    if not reads:
        raise ShoalError("a clock was not read")
    before_ns, theirs_ns, after_ns = min(reads, key=lambda read: read[2] - read[0])
    if before_ns <= theirs_ns <= after_ns:
        return 0
    return theirs_ns - (before_ns + after_ns) // 2


def slowest(plan: Plan) -> Plan:
    """The plan with each link at its worst under any fault: as long as that a probe has to wait."""
    worst = {(link.from_, link.to): link for link in plan.links}
    for links in link_states(plan):
        for link in links:
            now = worst[link.from_, link.to]
            worst[link.from_, link.to] = replace(
                now,
                latency_ms=max(now.latency_ms, link.latency_ms),
                jitter_ms=max(now.jitter_ms, link.jitter_ms),
                loss=max(now.loss, link.loss),
            )
    return replace(plan, links=tuple(worst.values()))


def _patience_s(at_ns: int) -> float:
    return max(0.0, (at_ns - time.monotonic_ns()) / 1e9) + ANSWER_S
