"""Partition: some nodes no longer hear some others. Cut at the receivers, all at one instant."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from node.contract import ShoalError
from node.contract.links import Cut
from node.contract.plan import FaultPlan
from orchestrator.faults.fault import Effect, Fleet, Phase, Scene, Verified, common_instant, on_all
from orchestrator.faults.partitions import Deaf

MOST_CUT_PROBES: Final = 256
MOST_OPEN_PROBES: Final = 16  # of links that the fault has nothing to do with
PROBES_AT_ONCE: Final = 32

Direction = tuple[str, str]  # who hears whom


class Partition:
    """The map of the plan, put in force at every node that it names."""

    def __init__(self, plan: FaultPlan, talking: Sequence[Direction]) -> None:
        self.plan = plan
        self._talking = talking

    def inject(self, fleet: Fleet, scene: Scene, at_ns: int, /) -> Effect:
        nodes = self._told(scene)
        at_ns = common_instant(len(nodes), at_ns)

        def cut(node: str) -> int:
            return fleet.put_cut(node, Cut(self.plan.id, self.plan.deaf[node]), at_ns).effective_mono_ns

        return on_all(nodes, cut, at_ns)

    def heal(self, fleet: Fleet, scene: Scene, at_ns: int, /) -> Effect:
        nodes = self._told(scene)
        at_ns = common_instant(len(nodes), at_ns)

        def uncut(node: str) -> int:
            return fleet.remove_cut(node, self.plan.id, at_ns).effective_mono_ns

        return on_all(nodes, uncut, at_ns)

    def verify(self, fleet: Fleet, look: Callable[[], Scene], phase: Phase, /) -> Verified:
        before = look()
        directions, left_out = self._directions(before, phase)
        if left_out == sum(map(len, self.plan.deaf.values())):
            return Verified(None, "another fault comes and goes on all of its links, or is at its agents")
        should = {one: is_cut(before.deaf, one) for one in directions}
        hears, failures = probe(fleet, directions)
        now = look().deaf
        if should != {one: is_cut(now, one) for one in directions}:
            return Verified(None, "what is cut changed while it was probed")
        wrong = [
            f"{node} {'hears' if heard else 'does not hear'} {peer}"
            for (node, peer), heard in hears.items()
            if heard == should[node, peer]
        ]
        if wrong or failures:
            return Verified(False, _first(wrong + failures))
        silent = sum(should.values())
        more = f"; {left_out} others of this fault not probed" if left_out else ""
        return Verified(True, f"probed: {silent} directions silent, {len(hears) - silent} open{more}")

    def _told(self, scene: Scene) -> list[str]:
        """Whoever has no agent now is told when it is back."""
        return [node for node in self.plan.deaf if node not in scene.unwatched]

    def _directions(self, scene: Scene, phase: Phase) -> tuple[list[Direction], int]:
        """Those of this fault, some that it has nothing to do with; and how many of its own are left out."""
        own = [(node, peer) for node, peers in self.plan.deaf.items() for peer in peers]
        seen = [one for one in own if not scene.unwatched.intersection(one)]
        cut = [one for one in seen if phase == "start" or one not in scene.unsteady]
        others = sorted(set(self._talking) - set(own) - scene.unsteady)
        others = [one for one in others if not scene.unwatched.intersection(one)]
        probed = [
            *_sample(cut, MOST_CUT_PROBES, self.plan.id),
            *_sample(others, MOST_OPEN_PROBES, self.plan.id),
        ]
        return probed, len(own) - min(len(cut), MOST_CUT_PROBES)


def probe(fleet: Fleet, directions: Iterable[Direction]) -> tuple[dict[Direction, bool], list[str]]:
    """Who hears whom; and which probes could not be made."""
    heard: dict[Direction, bool] = {}
    failures = []
    with ThreadPoolExecutor(PROBES_AT_ONCE, thread_name_prefix="probe") as pool:
        futures = {(node, peer): pool.submit(fleet.hears, node, peer) for node, peer in directions}
    for direction, future in futures.items():
        try:
            heard[direction] = future.result()
        except ShoalError as error:
            failures.append(f"{direction[0]} and {direction[1]} could not be probed: {error.message}")
    return heard, failures


def is_cut(deaf: Deaf, direction: Direction) -> bool:
    return direction[1] in deaf.get(direction[0], ())


def _sample(directions: Sequence[Direction], most: int, seed: str) -> Sequence[Direction]:
    return directions if len(directions) <= most else random.Random(seed).sample(directions, most)


def _first(complaints: Sequence[str]) -> str:
    """Some of them: a person needs the first, not all."""
    more = f", and {len(complaints) - 4} more" if len(complaints) > 4 else ""
    return "; ".join(complaints[:4]) + more
