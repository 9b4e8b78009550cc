"""Pause: processes stand still, with all that they have, and go on later where they were."""

from __future__ import annotations

from orchestrator.faults.fault import Fleet, PartState
from orchestrator.faults.parts import Act, PartFault


class Pause(PartFault):
    """Their node's kernel goes on, and takes connections that nobody answers."""

    down_state: PartState = "paused"

    def _down(self, fleet: Fleet) -> Act:
        return fleet.pause

    def _up(self, fleet: Fleet) -> Act:
        return fleet.resume

    def _is_new(self) -> bool:
        return False
