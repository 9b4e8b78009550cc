"""Degrade: some links are changed for a time: slower, longer, lossier."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Any, Final

from node.contract import ShoalError
from node.contract.links import InForce
from node.contract.plan import FaultPlan, LinkPlan
from orchestrator.faults.fault import Effect, Fleet, Phase, Scene, Verified, common_instant, on_all
from orchestrator.faults.schedule import changed

MOST_ECHOED: Final = 8  # links whose round trip is measured
RTT_SLACK_MS: Final = 10.0  # this tells a fault from none; how exact links are, the calibration tells
RTT_SHARE: Final = 0.25


class Degrade:
    """The plan's change of some links, put in force at both of their ends."""

    def __init__(self, plan: FaultPlan) -> None:
        self.plan = plan
        self._links: list[tuple[str, str]] = [(from_, to) for from_, to in plan.change["links"]]
        self._nodes = sorted({name for pair in self._links for name in pair})

    def inject(self, fleet: Fleet, scene: Scene, at_ns: int, /) -> Effect:
        return self._put(fleet, scene, changed(scene.links, [self.plan]), at_ns)

    def heal(self, fleet: Fleet, scene: Scene, at_ns: int, /) -> Effect:
        return self._put(fleet, scene, scene.links, at_ns)

    def _put(self, fleet: Fleet, scene: Scene, links: tuple[LinkPlan, ...], at_ns: int) -> Effect:
        """Whole tables have no instant of their own, so the orchestrator waits for it."""
        tables = fleet.tables(links)
        nodes = self._watched(scene)
        at_ns = common_instant(len(nodes), at_ns)

        def put(node: str) -> int:
            if (left_s := (at_ns - time.monotonic_ns()) / 1e9) > 0:
                time.sleep(left_s)
            done = fleet.put_links(node, tables[node])
            if done.mismatches:
                raise ShoalError("; ".join(done.mismatches))
            return time.monotonic_ns()

        return on_all(nodes, put, at_ns)

    def _watched(self, scene: Scene) -> list[str]:
        """Whoever has no agent now is told when it is back."""
        return [node for node in self._nodes if node not in scene.unwatched]

    def verify(self, fleet: Fleet, look: Callable[[], Scene], _: Phase, /) -> Verified:
        before = look()
        nodes = self._watched(before)
        wrong = [said for node in nodes for said in _read_back(fleet, node)]
        echoed, slow = self._echo(fleet, before)
        if before.links != look().links:
            return Verified(None, "links changed while they were probed")
        wrong += slow
        if wrong:
            return Verified(False, "; ".join(wrong[:4]))
        timed = f", {echoed} round trips as expected" if echoed else ""
        return Verified(True, f"{len(nodes)} nodes read back as asked{timed}")

    def _echo(self, fleet: Fleet, scene: Scene) -> tuple[int, list[str]]:
        """Round trips where the fault changes latency; the kernel's own word is not enough there."""
        if "latency_ms" not in self.plan.change["set"]:
            return 0, []
        by_pair = {(link.from_, link.to): link for link in scene.links}
        echoed, wrong = 0, []
        for pair in _spread(sorted({(min(pair), max(pair)) for pair in self._links})):
            there, back = by_pair[pair], by_pair[pair[1], pair[0]]
            if scene.unwatched.intersection(pair):
                continue
            if pair[1] in scene.deaf.get(pair[0], ()) or pair[0] in scene.deaf.get(pair[1], ()):
                continue
            asked_ms = there.latency_ms + back.latency_ms
            slack_ms = RTT_SLACK_MS + RTT_SHARE * asked_ms + 2 * (there.jitter_ms + back.jitter_ms)
            try:
                rtt_ms = fleet.rtt_ms(*pair)
            except ShoalError as error:
                wrong.append(f"{pair[0]} to {pair[1]} could not be probed: {error.message}")
                continue
            echoed += 1
            if rtt_ms is None or abs(rtt_ms - asked_ms) > slack_ms:
                took = "no answer" if rtt_ms is None else f"{rtt_ms:.1f} ms"
                wrong.append(f"{pair[0]} to {pair[1]} and back: {took} instead of {asked_ms:g} ms")
        return echoed, wrong


def _read_back(fleet: Fleet, node: str) -> list[str]:
    try:
        state: InForce = fleet.get_links(node)
    except ShoalError as error:
        return [f"{node} could not be read back: {error.message}"]
    return [f"{node}: {said}" for said in state.mismatches]


def _spread(pairs: Collection[Any]) -> list[Any]:
    """Some of them, evenly."""
    every = list(pairs)
    step = max(1, len(every) // MOST_ECHOED)
    return every[::step][:MOST_ECHOED]
