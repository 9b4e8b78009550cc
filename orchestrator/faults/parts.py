"""What kill, pause and restart have in common: whose processes they hit, and how it is seen what came of it.

A driver's word is never enough. Agents are asked themselves, roles and daemons by their node's agent over its
loopback, daemons by another node over `data` as well; and parts that nothing was done to must answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

from node.contract import ShoalError
from node.contract.plan import FaultPlan, Plan
from node.contract.probes import Answer
from orchestrator.faults.fault import Effect, Fleet, PartState, Phase, Scene, Verified, on_all

AGENT: Final = "agent"
IPFS: Final = "ipfs"
WHOLE: Final = "node"
MOST_AT_ONCE: Final = 32
MOST_TOLD: Final = 4
SIGNED: Final = ("trainer", "aggregator")  # they tell when they have begun to work

Act = Callable[[str, str], None]
Place = tuple[str, str]  # node and part


class PartFault:
    """Parts that are down from the start of the fault to its heal."""

    down_state: PartState = "ended"

    def __init__(self, plan: FaultPlan, of: Plan) -> None:
        self.plan = plan
        self._roles = {node.name: node.roles for node in of.nodes}
        self._talking = {(link.from_, link.to) for link in of.links}
        self._since_ns: dict[str, int] = {}  # by node: when its parts were started again

    def inject(self, fleet: Fleet, _: Scene, at_ns: int, /) -> Effect:
        return self._on_parts(self._down(fleet), at_ns)

    def heal(self, fleet: Fleet, _: Scene, at_ns: int, /) -> Effect:
        # Before, since who is back sooner than its order is answered must not be taken for the old one.
        self._since_ns = dict.fromkeys(self.plan.parts, time.monotonic_ns())
        return self._on_parts(self._up(fleet), at_ns)

    def verify(self, fleet: Fleet, look: Callable[[], Scene], phase: Phase, /) -> Verified:
        scene = look()
        if phase == "start":
            others = self._others(scene)
            look_at: dict[Place, Callable[[Place], str | None]] = {
                **dict.fromkeys(others, lambda place: self._not_answering(fleet, *place)),
                **dict.fromkeys(self._places(), lambda place: self._not_down(fleet, scene, *place)),
            }
            found = self._asked(lambda place: look_at[place](place), look_at)
            said = f"{self._names(self._places())} {self.down_state}: nobody answers there"
            if others:
                said += f"; {self._names(others)} left alone: answers"
        else:
            found = self._asked(lambda place: self._not_back(fleet, scene, *place), self._places())
            said = f"{self._names(self._places())} back: answers"
        if not found:
            return Verified(True, said)
        # What is started or stopped takes its time; the last look decides.
        return Verified(None, "; ".join(found[:MOST_TOLD]))

    # -- for each kind
    def _down(self, fleet: Fleet) -> Act:
        raise NotImplementedError

    def _up(self, fleet: Fleet) -> Act:
        raise NotImplementedError

    def _is_new(self) -> bool:
        """Whether the processes after the heal are others than before."""
        raise NotImplementedError

    # -- shared
    def _on_parts(self, act: Act, at_ns: int) -> Effect:
        """Do it on all nodes side by side, at the instant that is due."""

        def on_one(node: str) -> int:
            if (left_s := (at_ns - time.monotonic_ns()) / 1e9) > 0:
                time.sleep(left_s)
            for part in self.plan.parts[node]:
                act(node, part)
            return time.monotonic_ns()

        return on_all(self.plan.parts, on_one, max(at_ns, time.monotonic_ns()))

    def _places(self) -> list[Place]:
        return [(node, part) for node, parts in sorted(self.plan.parts.items()) for part in parts]

    def _expanded(self, node: str, part: str) -> Sequence[str]:
        return (AGENT, IPFS, *self._roles[node]) if part == WHOLE else (part,)

    def _asked(self, ask: Callable[[Place], str | None], places: Iterable[Place]) -> list[str]:
        """What there is to complain of, of all places side by side."""

        def said(place: Place) -> str | None:
            try:
                return ask(place)
            except ShoalError as error:
                return f"{' of '.join(reversed(place))} could not be probed: {error.message}"

        with ThreadPoolExecutor(MOST_AT_ONCE, thread_name_prefix="parts") as pool:
            return [found for found in pool.map(said, list(places)) if found is not None]

    def _not_down(self, fleet: Fleet, scene: Scene, node: str, part: str) -> str | None:
        """What shows that a part still does something."""
        if (state := fleet.state(node, part)) != self.down_state:
            return f"{part} of {node} is {state}"
        observer = self._observer(scene, node)
        asked: list[tuple[Callable[[], Answer], str]] = []
        for one in self._expanded(node, part):
            if one == AGENT or node not in scene.unwatched:
                asked.append((partial(fleet.answers, node, one), f"{one} of {node} answers its node"))
            if one == IPFS and observer is not None:
                asked.append((partial(fleet.knock, observer, node), f"{one} of {node} answers {observer}"))
        with ThreadPoolExecutor(MOST_AT_ONCE, thread_name_prefix="parts") as pool:  # silence takes its time
            answers = list(pool.map(lambda ask: ask[0](), asked))
        for (_, said), answer in zip(asked, answers, strict=True):
            if answer == "spoke":
                return said
        if part == AGENT and observer is not None and fleet.rtt_ms(observer, node) is None:
            return f"{observer} does not reach {node}: without its agent the node's links are not as planned"
        return None

    def _not_back(self, fleet: Fleet, scene: Scene, node: str, part: str) -> str | None:
        """What is missing until a part does its work again."""
        if (state := fleet.state(node, part)) != "running":
            return f"{part} of {node} is {state}"
        for one in self._expanded(node, part):
            if (said := self._not_answering(fleet, node, one)) is not None:
                return said
            if one == AGENT and (said := self._not_as_planned(fleet, scene, node)) is not None:
                return said
            observer = self._observer(scene, node)
            if one == IPFS and observer is not None and fleet.knock(observer, node) != "spoke":
                return f"ipfs of {node} does not answer {observer}"
            if one in SIGNED and self._is_new() and self._has_not_begun(scene, node, one):
                if one == "trainer" and not self._reaches_aggregator(scene, node):
                    continue  # it is there, and cannot begin before that
                return f"{one} of {node} does not work yet"
        return None

    def _has_not_begun(self, scene: Scene, node: str, part: str) -> bool:
        return scene.signs.get((node, part), 0) < self._since_ns.get(node, 0)

    def _reaches_aggregator(self, scene: Scene, node: str) -> bool:
        leads = [name for name, roles in self._roles.items() if "aggregator" in roles]
        return not any(
            lead in scene.down
            or lead in scene.deaf.get(node, ())
            or node in scene.deaf.get(lead, ())
            or {(node, lead), (lead, node)} & scene.unsteady
            for lead in leads
        )

    def _not_answering(self, fleet: Fleet, node: str, part: str) -> str | None:
        answer = fleet.answers(node, part)
        return None if answer == "spoke" else f"{part} of {node}: {answer}"

    def _not_as_planned(self, fleet: Fleet, scene: Scene, node: str) -> str | None:
        """Whether an agent that is back has the node shaped and cut as it should be by now."""
        state = fleet.get_links(node)
        if state.mismatches:
            return f"the links of {node} are not as asked: {'; '.join(state.mismatches[:MOST_TOLD])}"
        cut = {link.peer for link in state.links if link.is_cut is not None}
        flapping = {peer for one, peer in scene.unsteady if one == node}
        if cut - flapping != set(scene.deaf.get(node, ())) - flapping:
            return f"{node} is cut from {', '.join(sorted(cut)) or 'nobody'}, which is not as planned"
        return None

    def _observer(self, scene: Scene, node: str) -> str | None:
        """Somebody who would notice an answer: untouched, watched, and not cut off from the node."""
        for other in sorted(self._roles):
            if other == node or other in self.plan.parts or other in scene.unwatched:
                continue
            pairs = ((node, other), (other, node))
            if all(
                pair in self._talking and pair[1] not in scene.deaf.get(pair[0], ()) for pair in pairs
            ) and not scene.unsteady.intersection(pairs):
                return other
        return None

    def _others(self, scene: Scene) -> list[Place]:
        """For each kind of part that is hit, one that is not: else silence might be the probe's fault."""
        hit = sorted({one for place in self._places() for one in self._expanded(*place)})
        found = []
        for part in hit:
            for node in sorted(self._roles):
                has_it = part in (AGENT, IPFS, *self._roles[node])
                if has_it and node not in self.plan.parts and not self._is_down(scene, node, part):
                    found.append((node, part))
                    break
        return found

    def _is_down(self, scene: Scene, node: str, part: str) -> bool:
        """By any fault."""
        return node in scene.unwatched or bool({part, WHOLE} & set(scene.down.get(node, ())))

    def _names(self, places: Iterable[Place]) -> str:
        names = [f"{part} of {node}" for node, part in places]
        more = len(names) - MOST_TOLD
        return ", ".join(names[:MOST_TOLD]) + (f" and {more} more" if more > 0 else "")
