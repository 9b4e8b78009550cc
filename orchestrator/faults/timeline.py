"""The timeline of a run: does to the fleet what is due, has it verified, and lets rounds go on."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from typing import Final

from node.contract import ShoalError
from node.contract.faults import FaultsNow
from node.contract.plan import FaultPlan, Plan
from orchestrator.faults import schedule
from orchestrator.faults.degrade import Degrade
from orchestrator.faults.fault import Effect, Fault, Fleet, Phase, Scene, Verified, lead_ns
from orchestrator.faults.flapping import Flapping
from orchestrator.faults.kill import Kill
from orchestrator.faults.partition import Partition
from orchestrator.faults.parts import PartFault
from orchestrator.faults.pause import Pause
from orchestrator.faults.restart import Restart
from orchestrator.faults.schedule import State, Step
from orchestrator.history import History
from orchestrator.progress import few_names

LOOK_S: Final = 0.25
VERIFY_S: Final = 30.0  # less than rounds wait for their release, as the next one
DOWN_S: Final = 15.0  # until what was killed or stopped no longer answers
BACK_S: Final = 100.0  # until what was killed works again: a trainer fetches its data, and traces its model
RETRY_S: Final = 0.1
ATTEMPTS: Final = 2  # a probe may get lost on a lossy link
RESTORE_S: Final = 60.0  # an agent may have to be started before
JOIN_S: Final = 45.0
MOST_VERIFIED_AT_ONCE: Final = 8
TIMELINE: Final = "timeline"  # in events, where no single fault has failed


class Timeline:
    """Driven by the history, which also holds everything it does. `stop` while the fleet still answers."""

    def __init__(self, plan: Plan, history: History, fleet: Fleet, say: Callable[[str], None]) -> None:
        self._plan, self._history, self._fleet, self._say = plan, history, fleet, say
        self._faults = {fault.id: _made(fault, plan) for fault in plan.faults}
        self._state, self._seen = State(), 0
        self._still = threading.RLock()  # held while something changes: then nobody knows what is in force
        self._ended = threading.Event()
        self._pool = ThreadPoolExecutor(MOST_VERIFIED_AT_ONCE, thread_name_prefix="verify")
        self._asked: list[Future[None]] = []
        self._applied: set[str] = set()  # nodes that have told of their links
        self._shown: FaultsNow | None = None  # what the metrics tell of faults
        self._thread = threading.Thread(target=self._run, name="timeline", daemon=True)

    def start(self) -> None:
        if self._plan.faults:
            self._thread.start()

    def leave(self) -> None:
        """Do nothing further; whoever is in the middle of something finds the fleet gone."""
        self._ended.set()

    def stop(self) -> None:
        """Do nothing further, wait for what is being verified, and note what never came."""
        self._ended.set()
        if not self._thread.ident:
            return
        self._thread.join(JOIN_S)
        wait(self._asked, VERIFY_S)
        self._pool.shutdown(wait=False, cancel_futures=True)
        with self._still:
            self._catch_up()
        for fault, why in schedule.undone(self._plan, self._state):
            self._fail(fault.id, "end", why)

    # -- the thread
    def _run(self) -> None:
        try:
            while not self._ended.is_set():
                left_s = self._turn()
                self._history.wait_news(self._seen, left_s)
        except Exception as error:  # noqa: BLE001 - the edge of the thread: the run must hear of it
            self._fail(TIMELINE, "end", f"{type(error).__name__}: {error}")

    def _turn(self) -> float:
        """Do all that is due; how long until something else may be."""
        with self._still:
            self._catch_up()
            early_ns = lead_ns(len(self._plan.nodes))
            for step in schedule.due(self._plan, self._state, time.monotonic_ns() + early_ns):
                self._take(step)
        self._show()
        round_ = schedule.releasable(self._plan, self._state)
        if round_ is not None and not self._is_silenced():
            self._release(round_)
        coming = schedule.coming(self._plan, self._state)
        left_ns = min((step.at_ns for step in coming), default=0) - early_ns - time.monotonic_ns()
        return min(LOOK_S, max(0.0, left_ns / 1e9)) if coming else LOOK_S

    def _catch_up(self) -> None:
        for event in self._history.wait_news(self._seen, 0.0):
            self._seen += 1
            self._state = schedule.after(self._state, event, self._fleet.clock_offset_ns)
            if event["kind"] == "links_applied":
                if event["node"] in self._applied:  # its agent has begun anew, and knows of no fault
                    self._shown = None
                    self._ask(self._restore, event["node"])
                self._applied.add(event["node"])

    def _take(self, step: Step) -> None:
        plan, fault = step.fault, self._faults[step.fault.id]
        flaps = self._state.flaps.get(plan.id, 0)
        is_cut = step.verb == "start" or (step.verb == "flap" and flaps % 2 == 1)
        try:
            act = fault.inject if is_cut else fault.heal
            effect = act(self._fleet, self._scene(without=plan.id), step.at_ns)
        except Exception as error:  # noqa: BLE001 - whatever went wrong, the run is not what was planned
            self._fail(plan.id, step.verb, f"{type(error).__name__}: {error}")
        else:
            self._tell(step, is_cut, effect)
        self._catch_up()
        if step.verb == "heal":  # agents that were down have heard nothing meanwhile
            for node, parts in plan.parts.items():
                if schedule.WATCHING & set(parts):
                    self._ask(self._restore, node)
        if step.verb != "flap" and (plan.id, step.verb) not in self._state.settled:
            self._ask(self._verify, fault, step.verb)

    def _tell(self, step: Step, is_cut: bool, effect: Effect) -> None:
        if effect.problems:
            said = "; ".join(f"{node}: {why}" for node, why in sorted(effect.problems.items()))
            self._fail(step.fault.id, step.verb, said)
            return
        about = {
            "nodes": list(step.fault.targets),
            "requested_ns": effect.requested_ns,
            "effective_ns": dict(effect.effective_ns),
            "skew_ms": effect.skew_ms,
        }
        if step.verb == "flap":
            self._history.note("fault_flapped", fault=step.fault.id, is_cut=is_cut, **about)
            return
        kind = "fault_started" if step.verb == "start" else "fault_healed"
        self._history.note(kind, fault=step.fault.id, text=step.fault.text, **about)
        self._say(f"  {step.fault.id} {_news(step)}, {_where(effect)}")

    def _is_silenced(self) -> bool:
        """Whether the aggregator's agent is down on purpose: waiting for its answer would delay its heal."""
        aggregators = {node.name for node in self._plan.nodes if "aggregator" in node.roles}
        return bool(aggregators & schedule.unwatched(self._plan, self._state))

    def _show(self) -> None:
        """For the metrics; where the agent does not answer it is tried again, since nothing depends on it."""
        now = schedule.shown(self._plan, self._state)
        if now == self._shown or self._is_silenced():
            return
        with contextlib.suppress(ShoalError):
            self._fleet.show(now)
            self._shown = now

    def _release(self, round_: int) -> None:
        try:
            self._fleet.release(round_)
        except ShoalError as error:  # it is tried again; the aggregator tells if it hears nothing in time
            self._say(f"  round {round_} could not be released yet: {error.message}")
            self._ended.wait(RETRY_S)
        else:
            self._history.note("round_released", round=round_)
            with self._still:
                self._catch_up()

    # -- the pool
    def _ask(self, job: Callable[..., None], *arguments: object) -> None:
        self._asked = [future for future in self._asked if not future.done()]
        self._asked.append(self._pool.submit(job, *arguments))

    def _verify(self, fault: Fault, phase: Phase) -> None:
        try:
            found = self._verified(fault, phase)
        except Exception as error:  # noqa: BLE001 - a probe that crashes has shown nothing
            found = Verified(False, f"it could not be verified: {type(error).__name__}: {error}")
        self._history.note(
            "fault_verified", fault=fault.plan.id, phase=phase, verified=bool(found.verified), said=found.said
        )
        outcome = "verified," if found.verified else "NOT verified:"
        self._say(f"  {fault.plan.id}: {outcome} {found.said}")

    def _verified(self, fault: Fault, phase: Phase) -> Verified:
        until_s = time.monotonic() + _patience_s(fault.plan, phase)
        attempts = 0
        while True:
            found = fault.verify(self._fleet, self._look, phase)
            if (
                phase == "start" and fault.plan.kind != "restart" and self._is_over(fault)
            ):  # then the probes may have seen it healed
                return Verified(False, "it was healed before it could be verified")
            attempts += found.verified is False
            is_late = time.monotonic() >= until_s or self._ended.is_set()
            if found.verified or attempts >= ATTEMPTS or is_late:
                return found
            self._ended.wait(RETRY_S)

    def _is_over(self, fault: Fault) -> bool:
        with self._still:
            self._catch_up()
            return fault.plan.id in self._state.healed

    def _look(self) -> Scene:
        with self._still:
            self._catch_up()
            return self._scene()

    def _scene(self, without: str | None = None) -> Scene:
        kept = tuple(fault for fault in self._plan.faults if fault.id != without)
        plan = replace(self._plan, faults=kept)
        return Scene(
            schedule.cut_now(plan, self._state),
            schedule.links_now(plan, self._state),
            schedule.unsteady(plan, self._state),
            schedule.down(plan, self._state),
            schedule.unwatched(plan, self._state),
            self._state.signs,
        )

    def _restore(self, node: str) -> None:
        """Tell an agent that has begun anew what should be in force there; to be told twice does no harm."""
        until_s = time.monotonic() + RESTORE_S
        while True:
            try:
                with self._still:
                    self._catch_up()
                    self._put_all(node)
                return
            except ShoalError as error:
                if time.monotonic() >= until_s or self._ended.is_set():
                    self._fail(TIMELINE, "restore", f"{node}: {error.message}")
                    return
            self._ended.wait(RETRY_S)

    def _put_all(self, node: str) -> None:
        cuts = schedule.cuts_at(self._plan, self._state, node)
        links = schedule.links_now(self._plan, self._state)
        for fault in schedule.uncut_at(self._plan, self._state, node):
            self._fleet.remove_cut(node, fault, time.monotonic_ns())
        if any("links" in fault.change for fault in self._plan.faults):
            self._fleet.put_links(node, self._fleet.tables(links)[node])
        for cut in cuts:
            self._fleet.put_cut(node, cut, time.monotonic_ns())
        if cuts or links != self._plan.links:
            self._history.note("fault_restored", nodes=[node], faults=[cut.fault for cut in cuts])

    def _fail(self, fault: str, phase: str, message: str) -> None:
        self._history.note("fault_failed", fault=fault, phase=phase, message=message)
        self._say(f"  {fault}: FAILED ({phase}): {message}")


def _news(step: Step) -> str:
    whom = ", ".join(few_names(step.fault.targets))
    return f"begins for {whom} ({step.fault.text})" if step.verb == "start" else f"is healed for {whom}"


def _where(effect: Effect) -> str:
    match len(effect.effective_ns):
        case 0:
            return "as soon as their agents are back"
        case 1:
            return "on one node"
        case count:
            return f"on {count} nodes within {effect.skew_ms:.1f} ms"


def _patience_s(fault: FaultPlan, phase: Phase) -> float:
    """How long it may take until it is so; a restart's start is seen only when somebody is there again."""
    if not fault.parts:
        return VERIFY_S
    return BACK_S if phase == "heal" or fault.kind == "restart" else DOWN_S


def _made(fault: FaultPlan, plan: Plan) -> Fault:
    """The fault's own code."""
    if fault.kind == "degrade":
        return Degrade(fault)
    of_parts: Mapping[str, type[PartFault]] = {"kill": Kill, "pause": Pause, "restart": Restart}
    if fault.kind in of_parts:
        return of_parts[fault.kind](fault, plan)
    cutting: Mapping[str, type[Partition]] = {"partition": Partition, "flapping": Flapping}
    return cutting[fault.kind](fault, [(link.to, link.from_) for link in plan.links])
