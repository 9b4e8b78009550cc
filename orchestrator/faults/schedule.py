"""Which fault is due when, from the plan and the history so far: a pure state machine that events drive.

Nothing is remembered beside the history: `after` folds one more event into the state, `due` says what to do.
Instants are mono_ns of the orchestrator's clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from node.contract.faults import FaultNow, FaultsNow
from node.contract.links import Cut
from node.contract.plan import FaultPlan, LinkPlan, Plan, When
from orchestrator.faults import partitions
from orchestrator.faults.partitions import Deaf

Event = Mapping[str, Any]
Offset = Callable[[str], int]  # by node: its clock minus the orchestrator's
Verb = Literal["start", "flap", "heal"]
NS: Final = 1_000_000_000
SIGNS: Final = {"trainer_ready": "trainer", "shards_added": "aggregator"}  # of what was started again
WATCHING: Final = frozenset({"agent", "node"})  # parts without which nobody acts on a node's links
FIRST_ROUND: Final = 1
ALREADY: Final = 0  # due since the run began; a round's own moment is its waiting, not an instant


@dataclass(frozen=True)
class Step:
    """Something to do to one fault, at an instant, or at once when that has passed."""

    verb: Verb
    fault: FaultPlan
    at_ns: int


@dataclass(frozen=True)
class State:
    """What the history says of faults and rounds."""

    opened: Mapping[int, int] = field(default_factory=dict)  # by round: when it was opened first
    reached: int = 0  # the highest round that was open, or waits to be
    waiting: int | None = None  # the round that waits to be released
    started: Mapping[str, int] = field(default_factory=dict)
    healed: Mapping[str, int] = field(default_factory=dict)
    flaps: Mapping[str, int] = field(default_factory=dict)  # an odd number: it hears again for now
    settled: frozenset[tuple[str, str]] = frozenset()  # fault and phase: verified, or known not to be
    # Node and part: when it told last that it had begun to work.
    signs: Mapping[tuple[str, str], int] = field(default_factory=dict)

    def is_in_force(self, fault: str) -> bool:
        return fault in self.started and fault not in self.healed


def after(state: State, event: Event, offset_ns: Offset) -> State:
    """The state when this event was heard too."""
    match event["kind"]:
        case "round_due":
            return replace(state, waiting=event["round"], reached=max(state.reached, event["round"]))
        case "round_released":
            return replace(state, waiting=None)
        case "round_opened":
            state = replace(state, waiting=None, reached=max(state.reached, event["round"]))
            if event["round"] in state.opened:
                return state
            opened_ns = event["mono_ns"] - offset_ns(event["node"])
            return replace(state, opened={**state.opened, event["round"]: opened_ns})
        case "trainer_ready" | "shards_added":
            sign = (event["node"], SIGNS[event["kind"]])
            return replace(state, signs={**state.signs, sign: event["mono_ns"] - offset_ns(event["node"])})
        case "fault_started":
            return replace(state, started={**state.started, event["fault"]: _last_ns(event)})
        case "fault_flapped":
            count = state.flaps.get(event["fault"], 0) + 1
            return replace(state, flaps={**state.flaps, event["fault"]: count})
        case "fault_healed":
            return replace(state, healed={**state.healed, event["fault"]: _last_ns(event)})
        case "fault_verified":
            return replace(state, settled=state.settled | {(event["fault"], event["phase"])})
        case "fault_failed":
            return _after_failure(state, event["fault"], event["phase"], event["mono_ns"])
    return state


def _after_failure(state: State, fault: str, phase: str, now_ns: int) -> State:
    """What failed may be done in part: it is healed like one that has begun, and waited for no more."""
    match phase:
        case "start":
            started = {**state.started, fault: now_ns}
            return replace(state, started=started, settled=state.settled | {(fault, phase)})
        case "flap":  # the next one is tried again
            return replace(state, flaps={**state.flaps, fault: state.flaps.get(fault, 0) + 1})
        case "heal":
            healed = {**state.healed, fault: now_ns}
            return replace(state, healed=healed, settled=state.settled | {(fault, phase)})
    return state


def _last_ns(event: Event) -> int:
    return max(event["effective_ns"].values(), default=event["requested_ns"])


def moment(when: When, of: FaultPlan, state: State) -> int | None:
    """The instant that is meant; None when it is not known yet."""
    since: int | None
    match when.kind:
        case "round":
            return ALREADY if state.reached >= when.round else None
        case "time":
            since = state.opened.get(FIRST_ROUND)
        case "within":
            since = state.opened.get(when.round)
        case "after":
            since = state.healed.get(when.fault or "")
        case "lasting":
            since = state.started.get(of.id)
    return None if since is None else since + round(when.seconds * NS)


def coming(plan: Plan, state: State) -> list[Step]:
    """For each fault what comes next, where its instant is known; heals first, then by instant."""
    steps = [step for fault in plan.faults if (step := _next_step(fault, state)) is not None]
    return sorted(steps, key=lambda step: (step.at_ns, step.verb != "heal"))


def due(plan: Plan, state: State, now_ns: int) -> list[Step]:
    """What is to be done by this instant."""
    return [step for step in coming(plan, state) if step.at_ns <= now_ns]


def _next_step(fault: FaultPlan, state: State) -> Step | None:
    if fault.id in state.healed:
        return None
    if fault.id not in state.started:
        start_ns = moment(fault.start, fault, state)
        return None if start_ns is None else Step("start", fault, start_ns)
    heal_ns = moment(fault.heal, fault, state) if fault.heal is not None else None
    flap_ns = flap_at(fault, state)
    if flap_ns is not None and (heal_ns is None or flap_ns < heal_ns):
        return Step("flap", fault, flap_ns)
    return None if heal_ns is None else Step("heal", fault, heal_ns)


def flap_at(fault: FaultPlan, state: State) -> int | None:
    """The instant at which a flapping fault goes or comes next, counted from its start: it never drifts."""
    if "period_s" not in fault.change:
        return None
    cycles, is_down = divmod(state.flaps.get(fault.id, 0) + 1, 2)
    seconds: float = cycles * fault.change["period_s"] + is_down * fault.change["down_s"]
    return state.started[fault.id] + round(seconds * NS)


def is_cutting(fault: FaultPlan, state: State) -> bool:
    """Whether its cut holds now: a flapping one comes and goes."""
    return state.is_in_force(fault.id) and state.flaps.get(fault.id, 0) % 2 == 0


def shown(plan: Plan, state: State) -> FaultsNow:
    """Every fault and whether it is in force, for the metrics."""
    return FaultsNow({fault.id: FaultNow(fault.kind, is_cutting(fault, state)) for fault in plan.faults})


def releasable(plan: Plan, state: State) -> int | None:
    """The round that may open: all that was due with it is done, and is verified or known not to be."""
    if state.waiting is None:
        return None
    for fault in plan.faults:
        for phase, when, done in (
            ("start", fault.start, state.started),
            ("heal", fault.heal, state.healed),
        ):
            if when is None or when.kind != "round" or when.round > state.waiting:
                continue
            if fault.id not in done or (fault.id, phase) not in state.settled:
                return None
    return state.waiting


def pauses(plan: Plan) -> tuple[int, ...]:
    """The rounds that wait before they open: those with which a fault begins or ends."""
    moments = [when for fault in plan.faults for when in (fault.start, fault.heal) if when is not None]
    return tuple(sorted({when.round for when in moments if when.kind == "round"}))


def down(plan: Plan, state: State) -> dict[str, tuple[str, ...]]:
    """By node: the parts that are killed or stopped on purpose, or are not known to work again."""
    found: dict[str, tuple[str, ...]] = {}
    for fault in plan.faults:
        if fault.id in state.started and (fault.id, "heal") not in state.settled:
            for node, parts in fault.parts.items():
                found[node] = (*found.get(node, ()), *parts)
    return found


def unwatched(plan: Plan, state: State) -> frozenset[str]:
    """Nodes whose agents are among those: nobody acts on their links."""
    return frozenset(node for node, parts in down(plan, state).items() if WATCHING & set(parts))


def cut_now(plan: Plan, state: State) -> Deaf:
    """Whom each node does not hear now, by all faults in force together."""
    return partitions.union(*(fault.deaf for fault in plan.faults if is_cutting(fault, state)))


def unsteady(plan: Plan, state: State) -> frozenset[tuple[str, str]]:
    """Node and peer of every link that a flapping fault cuts now and then."""
    flapping = [f for f in plan.faults if "period_s" in f.change and state.is_in_force(f.id)]
    return frozenset((node, peer) for f in flapping for node, peers in f.deaf.items() for peer in peers)


def cuts_at(plan: Plan, state: State, node: str) -> list[Cut]:
    """What should be in force at one node now, for an agent that comes back."""
    return [
        Cut(fault.id, fault.deaf[node])
        for fault in plan.faults
        if is_cutting(fault, state) and node in fault.deaf
    ]


def uncut_at(plan: Plan, state: State, node: str) -> list[str]:
    """The faults that cut something at the node at other times, and not now."""
    return [fault.id for fault in plan.faults if node in fault.deaf and not is_cutting(fault, state)]


def links_now(plan: Plan, state: State) -> tuple[LinkPlan, ...]:
    """The plan's links with the changes of the faults in force, in the plan's order: the later wins."""
    return changed(plan.links, [fault for fault in plan.faults if state.is_in_force(fault.id)])


def changed(links: Iterable[LinkPlan], faults: Iterable[FaultPlan]) -> tuple[LinkPlan, ...]:
    """Links with what these faults change."""
    faults = [fault for fault in faults if "links" in fault.change]
    if not faults:
        return tuple(links)
    by_pair = {(link.from_, link.to): link for link in links}
    for fault in faults:
        keys = fault.change["set"].items()
        values = {key: tuple(one) if isinstance(one, list) else one for key, one in keys}
        for from_, to in fault.change["links"]:
            by_pair[from_, to] = replace(by_pair[from_, to], **values)
    return tuple(by_pair.values())


def link_states(plan: Plan) -> list[tuple[LinkPlan, ...]]:
    """The links as planned, and under each fault that changes some: whatever an engine must be able to do."""
    return [plan.links, *(changed(plan.links, [fault]) for fault in plan.faults if "links" in fault.change)]


def undone(plan: Plan, state: State) -> list[tuple[FaultPlan, str]]:
    """What the plan says and never happened; asked at the end of a run."""
    found = []
    for fault in plan.faults:
        if fault.id not in state.started:
            found.append((fault, "the run ended before it began"))
        elif fault.heal is not None and fault.id not in state.healed:
            found.append((fault, "the run ended before it was healed"))
        found += [
            (fault, f"the run ended before its {phase} was verified")
            for phase, done in (("start", state.started), ("heal", state.healed))
            if fault.id in done and (fault.id, phase) not in state.settled
        ]
    return found
