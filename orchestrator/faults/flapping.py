"""Flapping: a partition that comes and goes on a fixed beat, until it is healed."""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.faults.fault import Fleet, Phase, Scene, Verified
from orchestrator.faults.partition import Partition, is_cut


class Flapping(Partition):
    """Each beat is an injection or a heal of the same cut; the timetable says when."""

    def verify(self, fleet: Fleet, look: Callable[[], Scene], phase: Phase, /) -> Verified:
        """Its beginning can be seen only while it cuts; else the question is put off."""
        if phase == "start" and not self._cuts(look()):
            return Verified(None, "it does not cut at the moment")
        return super().verify(fleet, look, phase)

    def _cuts(self, scene: Scene) -> bool:
        return all(
            is_cut(scene.deaf, (node, peer)) for node, peers in self.plan.deaf.items() for peer in peers
        )
