"""The aggregator's life: answers members, runs round after round, keeps the chain of records."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import numpy as np

from aggregator.intake import FETCH_S, Intake, RefusedError
from aggregator.intake import Objects as IntakeObjects
from aggregator.journal import Journal, Opening, OpenRound
from aggregator.keeping import Keeper
from aggregator.keeping import Objects as KeeperObjects
from aggregator.learning import Learning
from aggregator.news import News
from aggregator.records import Chain, Record, Taken
from aggregator.records import Objects as ChainObjects
from aggregator.rounds import ClosedBy, Refused, Round, Terms, Update, needed_of, opened
from node.contract import HostError, ShoalError
from node.contract.messages import LONG_POLL_S, Answer, Work
from node.contract.plan import AggregationPlan, WorkloadPlan
from node.events import Events
from node.ipfs.config import Peer
from node.learning import encoding
from node.learning.encoding import Weights
from node.learning.scores import Scores
from node.metrics import RoleMetrics

READY_S: Final = 240.0  # how long the first round waits for trainers
DONE_S: Final = 10.0  # how long they are given to hear that there is no more
MAX_STATE_BYTES: Final = 1 << 30  # of our own objects: no limit that anybody meets
MAX_STRANGERS: Final = 64
ATTEMPTS_PER_ROUND: Final = 2
STATE: Final = "strategy"  # the one name under which a record links to a state

_T = TypeVar("_T")


class Objects(IntakeObjects, ChainObjects, KeeperObjects, Protocol):
    """The calls of an IPFS client that the aggregator makes."""

    async def add(self, data: bytes, *, pin: bool = False) -> str: ...


@dataclass(frozen=True)
class Job:
    """What is to be done, for whom."""

    run: str
    trainers: tuple[str, ...]  # in order of name
    members: dict[str, str]  # peer ID → name
    peers: dict[str, Peer]  # peer ID → where it is
    workload: WorkloadPlan
    aggregation: AggregationPlan
    ready_s: float = READY_S
    done_s: float = DONE_S


@dataclass(frozen=True)
class Model:
    """The newest model, and what belongs to it."""

    head: str
    record: Record
    weights: Weights
    state: bytes


class Coordinator:
    """`run` goes through the rounds, while `work` and `update` answer those who ask."""

    def __init__(self, job: Job, ipfs: Objects, folder: Path, events: Events, metrics: RoleMetrics) -> None:
        self._job = job
        self._ipfs = ipfs
        self._events = events
        self._metrics = metrics
        self._chain = Chain(folder, ipfs)
        self._journal = Journal(folder)
        self._keeper = Keeper(ipfs)
        self._news = News()
        self._ready: set[str] = set()
        self._told: set[str] = set()
        self._strangers: Counter[str] = Counter()
        self._failure: ShoalError | None = None
        self._finished = False
        self._intake: Intake | None = None
        self._model: Model | None = None
        self._round: Round | None = None
        self._found: OpenRound | None = None

    # -- answering; node.control calls these
    async def work(self, peer_id: str, ready: bool) -> Work:
        """What a member is to do, as soon as there is something."""
        name = self._job.members[peer_id]
        if ready and name in self._job.trainers:
            self._ready.add(name)
            self._news.tell()
        until_s = time.monotonic() + LONG_POLL_S
        while (work := self._work_for(name, ready)) is None:
            if time.monotonic() >= until_s:
                return self._waiting()
            await self._news.wait(until_s - time.monotonic())
        return work

    def _work_for(self, name: str, ready: bool) -> Work | None:
        if self._finished:
            self._told.add(name)
            self._news.tell()
            return Work("done")
        if not ready:  # it needs the model to become ready
            return self._waiting() if self._model is not None else None
        current = self._round
        if current is None or not current.wants(name):
            return None
        workload = self._job.workload
        return Work(
            "train",
            round=current.terms.round,
            base=current.terms.base,
            size_bytes=current.terms.size_bytes,
            local_epochs=workload.local_epochs,
            batch_size=workload.batch_size,
            learning_rate=workload.learning_rate,
            deadline_s=max(0.0, current.until_s - time.monotonic()),
        )

    def _waiting(self) -> Work:
        record = self._model.record if self._model is not None else None
        return Work("wait", base=record.model, size_bytes=record.size_bytes) if record else Work("wait")

    async def update(self, peer_id: str, body: bytes) -> Answer:
        """Take a member's update, or refuse it; a ShoalError means: try again, it is not your fault."""
        if self._intake is None or self._round is None:
            raise ShoalError("no round has been opened yet")
        sender = self._job.members[peer_id]
        async with self._intake.turn(peer_id):
            try:
                if not self._round.keeps(sender):
                    return Answer(False, "malformed", "too many were refused in this round")
                update = await self._intake.examine(
                    peer_id, sender, body, self._objection, self._patience_s()
                )
                await self._take(update)
            except RefusedError as err:
                self._refuse(Refused(sender, err.reason, err.detail, err.signed))
                return Answer(False, err.reason, err.detail)
            except HostError as err:  # our own disk: the round cannot go on
                self._failure = err
                self._news.tell()
                raise
        return Answer(True)

    def stranger(self, peer_id: str) -> None:
        """Somebody asked who is no member."""
        if self._strangers.total() < MAX_STRANGERS and self._strangers[peer_id] < 1:
            self._strangers[peer_id] += 1
            self._refuse(Refused(peer_id, "stranger", "asked over the tunnel, and is no member"))

    def _patience_s(self) -> float:
        assert self._round is not None
        return min(FETCH_S, max(1.0, self._round.until_s - time.monotonic()))

    def _objection(self, sender: str, manifest: Any) -> Any:
        assert self._round is not None
        return self._learning.strategy.accept(self._round, sender, manifest)

    async def _take(self, update: Update) -> None:
        """Pin, write down, accept: in this order, so that what is answered is durable."""
        manifest = update.signed.manifest
        self._still_wanted(update)
        await self._ipfs.pin(manifest.update)
        try:
            self._still_wanted(update)
        except RefusedError:
            if all(manifest.update != other.signed.manifest.update for other in self._open().updates()):
                await self._ipfs.unpin(manifest.update)
            raise
        self._journal.accept(Taken(update.sender, update.signed))
        self._round = self._open().accept(update)
        self._metrics.counter("shoal_updates_total", outcome="accepted").inc()
        self._events.write(
            "update_accepted",
            round=manifest.round,
            sender=update.sender,
            update=manifest.update,
            examples=manifest.examples,
            bytes=manifest.size_bytes,
            seconds=update.seconds,
            train_s=manifest.train_s,
        )
        self._news.tell()

    def _still_wanted(self, update: Update) -> None:
        against = self._objection(update.sender, update.signed.manifest)
        if against is not None:
            reason, detail = against
            # It was in order when it came, so by now the round is over.
            raise RefusedError("late" if reason == "wrong_round" else reason, detail, update.signed)

    def _refuse(self, refused: Refused) -> None:
        current = self._round
        if current is not None and current.phase == "open" and current.keeps(refused.sender):
            self._journal.refuse(refused)
            self._round = current.refuse(refused)
        self._metrics.counter("shoal_updates_total", outcome=refused.reason).inc()
        number = current.terms.round if current is not None else 0
        self._events.write(
            "update_refused",
            round=number,
            sender=refused.sender,
            reason=refused.reason,
            detail=refused.detail,
        )
        self._news.tell()

    def _open(self) -> Round:
        assert self._round is not None
        return self._round

    # -- the rounds
    async def run(self, make: Callable[[], Learning]) -> None:
        """From wherever the last life ended to the end of the run."""
        with ThreadPoolExecutor(1, thread_name_prefix="learning") as thread:
            loop = asyncio.get_running_loop()

            async def learn(function: Callable[..., _T], *arguments: Any) -> _T:
                return await loop.run_in_executor(thread, function, *arguments)

            self._learn = learn
            self._learning = await learn(make)
            self._intake = Intake(self._ipfs, self._learning.initial, self._job.peers)
            resumed = await self._recover()
            self._news.tell()  # those who wait for the model
            scores = await self._learn(self._learning.evaluate, self._newest.weights)
            self._tell_of_last_life(scores)
            if resumed is None and self._newest.record.attempt == 0:
                await self._wait_ready()
            while not self._complete():
                await self._begin_round(resumed)
                resumed = None
                closed_by = await self._gather()
                scores = await self._end_round(closed_by)
            await self._finish(scores)

    @property
    def _newest(self) -> Model:
        assert self._model is not None
        return self._model

    def _complete(self) -> bool:
        record, rounds = self._newest.record, self._job.workload.rounds
        return record.round >= rounds or record.attempt >= ATTEMPTS_PER_ROUND * rounds

    async def _recover(self) -> OpenRound | None:
        """The newest model; and the open round of the last life, when it was not recorded yet."""
        head = self._chain.head()
        if head is None:
            self._model = await self._first()
            head = self._model.head
        else:
            record = await self._chain.load(head)
            size_bytes = record.size_bytes
            data = await self._ipfs.fetch(record.model, max_bytes=size_bytes, size_bytes=size_bytes)
            weights = encoding.check(data, self._learning.initial)
            state = await self._ipfs.fetch(record.states[STATE], max_bytes=MAX_STATE_BYTES)
            self._model = Model(head, record, weights, state)
        self._found = found = self._journal.read()
        resumed = found if found is not None and found.opening.predecessor == head else None
        needed = {taken.signed.manifest.update for taken in resumed.accepted} if resumed else set()
        await self._keeper.recover(self._chain, needed)
        return resumed

    def _tell_of_last_life(self, scores: Scores) -> None:
        """Of a round whose record is there the end may not have been told: better twice than never."""
        found, record = self._found, self._newest.record
        if found is None or found.opening.predecessor not in record.predecessors:
            return
        accepted = [taken.sender for taken in record.accepted]
        self._events.write(
            "round_closed",
            round=found.opening.terms.round,
            completed=record.completed,
            closed_by=record.closed_by,
            accepted=accepted,
            refused=len(record.refused),
            missing=[name for name in record.asked if name not in accepted],
            record=self._newest.head,
            model=record.model,
            accuracy=scores.accuracy,
            loss=scores.loss,
            aggregate_s=None,  # it died with that life
            seconds=self._chain.written_at() - found.opening.wall,
        )

    async def _first(self) -> Model:
        """The record of the model that training begins with."""
        weights = self._learning.initial
        state = await self._learn(self._learning.strategy.initial_state)
        return await self._store(
            weights,
            state,
            lambda model, size_bytes, states: Record(
                run=self._job.run,
                round=0,
                attempt=0,
                strategy=self._job.aggregation.strategy,
                predecessors=(),
                bases=(),
                model=model,
                size_bytes=size_bytes,
                states=states,
            ),
        )

    async def _store(
        self, weights: Weights, state: bytes, record_of: Callable[[str, int, dict[str, str]], Record]
    ) -> Model:
        """Model, state, record, head: in this order, so that nothing is ever named that is not there."""
        data = encoding.encode(weights)
        model, kept = await self._ipfs.add(data, pin=True), await self._ipfs.add(state, pin=True)
        record = record_of(model, len(data), {STATE: kept})
        return Model(await self._chain.append(record), record, weights, state)

    async def _wait_ready(self) -> None:
        until_s = time.monotonic() + self._job.ready_s
        while not self._ready.issuperset(self._job.trainers) and time.monotonic() < until_s:
            await self._news.wait(until_s - time.monotonic())
        self._events.write("all_ready", trainers=sorted(self._ready))

    async def _begin_round(self, resumed: OpenRound | None) -> None:
        now_s = time.monotonic()
        if resumed is not None:
            opening = resumed.opening
            # It gets its whole deadline again: nobody could deliver while we were away.
            current = opened(opening.terms, now_s, now_s - max(0.0, time.time() - opening.wall))
            self._round = await self._with_journal(current, resumed)
        else:
            terms = self._terms()
            # The event first: a crash in between repeats it, the other way round it would be lost.
            self._events.write(
                "round_opened",
                round=terms.round,
                model=terms.base,
                size_bytes=terms.size_bytes,
                asked=terms.asked,
                deadline_s=terms.deadline_s,
            )
            self._journal.begin(Opening(self._newest.head, time.time(), terms))
            self._round = opened(terms, now_s)
        self._metrics.gauge("shoal_round").set(self._round.terms.round)
        self._news.tell()

    def _terms(self) -> Terms:
        record, aggregation = self._newest.record, self._job.aggregation
        return Terms(
            run=self._job.run,
            round=record.round + 1,
            attempt=record.attempt + 1,
            base=record.model,
            size_bytes=record.size_bytes,
            asked=self._job.trainers,
            needed=needed_of(self._job.trainers, aggregation.quorum),
            deadline_s=aggregation.deadline_s,
        )

    async def _with_journal(self, current: Round, found: OpenRound) -> Round:
        """The round with what was promised in the last life."""
        assert self._intake is not None
        peer_ids = {name: peer_id for peer_id, name in self._job.members.items()}
        for refused in found.refused:
            current = current.refuse(refused)
        for taken in found.accepted:
            try:
                current = current.accept(
                    await self._intake.fetch(peer_ids[taken.sender], taken.sender, taken.signed)
                )
            except RefusedError as err:
                raise ShoalError(f"an update that was accepted before the restart is gone: {err}") from err
        return current

    async def _gather(self) -> ClosedBy:
        """Until the strategy says that it is enough; the round is closed in that very moment."""
        while (by := self._learning.strategy.ready(self._open(), time.monotonic())) is None:
            await self._news.wait(self._open().until_s - time.monotonic())
            if self._failure is not None:
                raise self._failure
        self._round = self._open().close(by)
        return by

    async def _end_round(self, by: ClosedBy) -> Scores:
        """Combine, store, tell."""
        closed = self._open()
        began_s = time.monotonic()
        weights, state = self._newest.weights, self._newest.state
        if closed.completed:
            strategy = self._learning.strategy
            combined = await self._learn(strategy.combine, state, weights, closed.updates())
            weights, state = combined.model, combined.state
            if not all(np.isfinite(array).all() for array in weights.values()):
                raise ShoalError(
                    f"the model of round {closed.terms.round} is not finite", "take a smaller learning rate"
                )
        aggregate_s = time.monotonic() - began_s
        predecessor, strategy_name = self._newest.head, self._job.aggregation.strategy
        self._model = await self._store(
            weights,
            state,
            lambda model, size_bytes, states: Record.of(
                closed, strategy_name, predecessor, model, size_bytes, states
            ),
        )
        seconds = time.monotonic() - closed.opened_at_s
        scores = await self._learn(self._learning.evaluate, weights)
        self._measure(closed, scores, aggregate_s, seconds)
        self._events.write(
            "round_closed",
            round=closed.terms.round,
            completed=closed.completed,
            closed_by=by,
            accepted=[update.sender for update in closed.updates()],
            refused=len(closed.refused),
            missing=closed.missing,
            record=self._model.head,
            model=self._model.record.model,
            accuracy=scores.accuracy,
            loss=scores.loss,
            aggregate_s=aggregate_s,
            seconds=seconds,
        )
        await self._keeper.add(self._model.record)
        await self._keeper.collect()
        return scores

    def _measure(self, closed: Round, scores: Scores, aggregate_s: float, seconds: float) -> None:
        metrics = self._metrics
        if closed.completed:
            metrics.counter("shoal_rounds_completed_total").inc()
            metrics.gauge("shoal_participants").set(len(closed.accepted))
            metrics.histogram("shoal_aggregate_seconds").observe(aggregate_s)
        metrics.gauge("shoal_accuracy").set(scores.accuracy)
        metrics.gauge("shoal_loss").set(scores.loss)
        metrics.histogram("shoal_round_seconds").observe(seconds)

    async def _finish(self, scores: Scores) -> None:
        weights = self._newest.weights
        inference_ms = {
            size: await self._learn(self._learning.inference_ms, weights, size) for size in (1, 32)
        }
        self._events.write(
            "run_finished",
            head=self._newest.head,
            model=self._newest.record.model,
            rounds=self._newest.record.round,
            accuracy=scores.accuracy,
            loss=scores.loss,
            precision=scores.precision,
            recall=scores.recall,
            f1=scores.f1,
            inference_ms_1=inference_ms[1],
            inference_ms_32=inference_ms[32],
        )
        self._finished = True
        self._news.tell()
        until_s = time.monotonic() + self._job.done_s
        hearers = self._ready or set(self._job.trainers)
        while not self._told.issuperset(hearers) and time.monotonic() < until_s:
            await self._news.wait(until_s - time.monotonic())
