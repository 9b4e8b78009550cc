"""Kill: processes die at once, and stay dead until they are started again."""

from __future__ import annotations

from orchestrator.faults.fault import Fleet
from orchestrator.faults.parts import Act, PartFault


class Kill(PartFault):
    """By SIGKILL: they leave nothing in order behind. Their node's kernel lives, and refuses for them."""

    def _down(self, fleet: Fleet) -> Act:
        return fleet.kill

    def _up(self, fleet: Fleet) -> Act:
        return fleet.start

    def _is_new(self) -> bool:
        return True
