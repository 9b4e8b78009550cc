"""Restart: processes are killed and started again at once; it is over when they work again."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from node.contract import ShoalError
from node.contract.plan import FaultPlan, Plan
from orchestrator.faults.fault import Effect, Fleet, Phase, Scene, Verified
from orchestrator.faults.parts import Act, PartFault


class Restart(PartFault):
    """Its start is seen by who is there afterwards: other processes than before."""

    def __init__(self, plan: FaultPlan, of: Plan) -> None:
        super().__init__(plan, of)
        self._before: dict[str, Mapping[str, int]] = {}  # by node: its processes, as they began

    def inject(self, fleet: Fleet, scene: Scene, at_ns: int, /) -> Effect:
        for node in self.plan.parts:
            self._before[node] = fleet.started(node)
        self._since_ns = dict.fromkeys(self.plan.parts, time.monotonic_ns())
        return super().inject(fleet, scene, at_ns)

    def heal(self, _: Fleet, __: Scene, ___: int, /) -> Effect:
        """Nothing is left to do; it has been started already."""
        now_ns = time.monotonic_ns()
        return Effect(now_ns, dict.fromkeys(self.plan.parts, now_ns), {})

    def verify(self, fleet: Fleet, look: Callable[[], Scene], phase: Phase, /) -> Verified:
        if phase == "heal":
            return super().verify(fleet, look, phase)
        found = self._asked(lambda place: self._not_anew(fleet, *place), self._places())
        if found:
            return Verified(None, "; ".join(found))
        return Verified(True, f"{self._names(self._places())} started anew: another process than before")

    def _down(self, fleet: Fleet) -> Act:
        def kill_and_start(node: str, part: str) -> None:
            fleet.kill(node, part)
            fleet.start(node, part)

        return kill_and_start

    def _up(self, fleet: Fleet) -> Act:
        return fleet.start

    def _is_new(self) -> bool:
        return True

    def _not_anew(self, fleet: Fleet, node: str, part: str) -> str | None:
        try:
            now = fleet.started(node)
        except ShoalError as error:  # its agent may be what is started again
            return f"{node} does not say what runs there: {error.message}"
        for one in self._expanded(node, part):
            if one not in now:
                return f"{one} of {node} does not run yet"
            if now[one] == self._before[node].get(one):
                return f"{one} of {node} is the same process as before"
        return None
