"""The aggregator's life: round after round, from wherever the last life ended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import numpy as np

from aggregator.barrier import Barrier
from aggregator.desk import Desk, Job, Model
from aggregator.desk import Objects as DeskObjects
from aggregator.intake import Intake, RefusedError
from aggregator.journal import Journal, Opening, OpenRound
from aggregator.keeping import Keeper
from aggregator.keeping import Objects as KeeperObjects
from aggregator.learning import Learning
from aggregator.records import Chain, Record
from aggregator.records import Objects as ChainObjects
from aggregator.rounds import ClosedBy, Round, Terms, needed_of, opened
from node.accounts import received_bytes
from node.contract import ShoalError
from node.contract.settings import DATA_INTERFACE
from node.events import Events
from node.ipfs.errors import UnreachableError
from node.learning import encoding
from node.learning.encoding import Weights
from node.learning.scores import Scores
from node.metrics import RoleMetrics

MAX_STATE_BYTES: Final = 1 << 30  # of our own objects: no limit that anybody meets
DAEMON_S: Final = 60.0  # how long our own daemon may be away
LOOK_S: Final = 0.2
ATTEMPTS_PER_ROUND: Final = 2
STATE: Final = "strategy"  # the one name under which a record links to a state

_T = TypeVar("_T")


class Objects(DeskObjects, ChainObjects, KeeperObjects, Protocol):
    """The calls of an IPFS client that the aggregator makes."""

    async def add(self, data: bytes, *, pin: bool = False) -> str: ...


class Coordinator:
    """Goes through the rounds, while its desk answers those who ask."""

    def __init__(
        self,
        job: Job,
        ipfs: Objects,
        folder: Path,
        events: Events,
        metrics: RoleMetrics,
        barrier: Barrier | None = None,
    ) -> None:
        self._job = job
        self._barrier = barrier
        self._ipfs = ipfs
        self._events = events
        self._metrics = metrics
        self._chain = Chain(folder, ipfs)
        self._journal = Journal(folder)
        self._keeper = Keeper(ipfs)
        self.desk = Desk(job, ipfs, self._journal, events, metrics)
        self._found: OpenRound | None = None

    async def run(self, make: Callable[[], Learning]) -> None:
        """From wherever the last life ended to the end of the run."""
        with ThreadPoolExecutor(1, thread_name_prefix="learning") as thread:
            loop = asyncio.get_running_loop()

            async def learn(function: Callable[..., _T], *arguments: Any) -> _T:
                return await loop.run_in_executor(thread, function, *arguments)

            self._learn = learn
            self._learning = await learn(make)
            self.desk.strategy = self._learning.strategy
            self.desk.intake = Intake(self._ipfs, self._learning.initial, self._job.peers)
            resumed = await self._recover()
            self.desk.news.tell()  # those who wait for the model
            scores = await self._learn(self._learning.evaluate, self._newest.weights)
            self._tell_of_last_life(scores)
            if resumed is None and self._newest.record.attempt == 0:
                await self._wait_ready()
            while not self._complete():
                if resumed is None and self._barrier is not None:
                    await self._barrier.wait_released(self._newest.record.round + 1)
                await self._begin_round(resumed)
                resumed = None
                closed_by = await self._gather()
                scores = await self._end_round(closed_by)
            await self._finish(scores)

    @property
    def _newest(self) -> Model:
        assert self.desk.model is not None
        return self.desk.model

    def _complete(self) -> bool:
        record, rounds = self._newest.record, self._job.workload.rounds
        return record.round >= rounds or record.attempt >= ATTEMPTS_PER_ROUND * rounds

    async def _recover(self) -> OpenRound | None:
        """The newest model; and the open round of the last life, when it was not recorded yet."""
        head = self._chain.head()
        if head is None:
            self.desk.model = await self._first()
            head = self.desk.model.head
        else:
            record = await self._chain.load(head)
            size_bytes = record.size_bytes
            data = await self._ipfs.fetch(record.model, max_bytes=size_bytes, size_bytes=size_bytes)
            weights = encoding.check(data, self._learning.initial)
            state = await self._ipfs.fetch(record.states[STATE], max_bytes=MAX_STATE_BYTES)
            self.desk.model = Model(head, record, weights, state)
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
        """The same as `_store_once`, which does no harm twice, however often our daemon is away."""
        until_s = time.monotonic() + DAEMON_S
        while True:
            try:
                return await self._store_once(weights, state, record_of)
            except UnreachableError:
                if time.monotonic() >= until_s:
                    raise
            await asyncio.sleep(LOOK_S)

    async def _store_once(
        self, weights: Weights, state: bytes, record_of: Callable[[str, int, dict[str, str]], Record]
    ) -> Model:
        """Model, state, record, head: in this order, so that nothing is ever named that is not there."""
        data = encoding.encode(weights)
        model, kept = await self._ipfs.add(data, pin=True), await self._ipfs.add(state, pin=True)
        record = record_of(model, len(data), {STATE: kept})
        return Model(await self._chain.append(record), record, weights, state)

    async def _wait_ready(self) -> None:
        until_s = time.monotonic() + self._job.ready_s
        while not self.desk.ready.issuperset(self._job.trainers) and time.monotonic() < until_s:
            await self.desk.news.wait(until_s - time.monotonic())
        self._events.write("all_ready", trainers=sorted(self.desk.ready))

    async def _begin_round(self, resumed: OpenRound | None) -> None:
        now_s = time.monotonic()
        if resumed is not None:
            opening = resumed.opening
            # It gets its whole deadline again: nobody could deliver while we were away.
            current = opened(opening.terms, now_s, now_s - max(0.0, time.time() - opening.wall))
            self.desk.round = await self._with_journal(current, resumed)
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
                received_bytes=received_bytes(DATA_INTERFACE),
            )
            self._journal.begin(Opening(self._newest.head, time.time(), terms))
            self.desk.round = opened(terms, now_s)
        self._metrics.gauge("shoal_round").set(self.desk.round.terms.round)
        self._metrics.gauge("shoal_model_bytes").set(self.desk.round.terms.size_bytes)
        self.desk.news.tell()

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
        assert self.desk.intake is not None
        peer_ids = {name: peer_id for peer_id, name in self._job.members.items()}
        for refused in found.refused:
            current = current.refuse(refused)
        for taken in found.accepted:
            try:
                current = current.accept(
                    await self.desk.intake.fetch(peer_ids[taken.sender], taken.sender, taken.signed)
                )
            except RefusedError as err:
                raise ShoalError(f"an update that was accepted before the restart is gone: {err}") from err
        return current

    async def _gather(self) -> ClosedBy:
        """Until the strategy says that it is enough; the round is closed in that very moment."""
        while (by := self._learning.strategy.ready(self.desk.open_round, time.monotonic())) is None:
            await self.desk.news.wait(self.desk.open_round.until_s - time.monotonic())
            if self.desk.failure is not None:
                raise self.desk.failure
        self.desk.round = self.desk.open_round.close(by)
        return by

    async def _end_round(self, by: ClosedBy) -> Scores:
        """Combine, store, tell."""
        closed = self.desk.open_round
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
        self.desk.model = await self._store(
            weights,
            state,
            lambda model, size_bytes, states: Record.of(
                closed, strategy_name, predecessor, model, size_bytes, states
            ),
        )
        seconds = time.monotonic() - closed.opened_at_s
        self.desk.news.tell()  # trainers fetch the model while it is looked at here
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
            record=self.desk.model.head,
            model=self.desk.model.record.model,
            accuracy=scores.accuracy,
            loss=scores.loss,
            aggregate_s=aggregate_s,
            seconds=seconds,
        )
        await self._keeper.add(self.desk.model.record)
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
        self.desk.finished = True
        self.desk.news.tell()
        until_s = time.monotonic() + self._job.done_s
        hearers = self.desk.ready or set(self._job.trainers)
        while not self.desk.told.issuperset(hearers) and time.monotonic() < until_s:
            await self.desk.news.wait(until_s - time.monotonic())
