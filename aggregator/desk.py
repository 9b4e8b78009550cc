"""Answers members: hands out work, takes updates in or refuses them."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from typing import Final, Protocol

from aggregator.intake import FETCH_S, Intake, RefusedError
from aggregator.intake import Objects as IntakeObjects
from aggregator.journal import Journal
from aggregator.news import News
from aggregator.records import Record, Taken
from aggregator.rounds import Refused, Round, Update
from aggregator.strategies import Strategy
from node.contract import HostError, ShoalError
from node.contract.messages import LONG_POLL_S, Answer, Manifest, Refusal, Work
from node.contract.plan import AggregationPlan, WorkloadPlan
from node.events import Events
from node.ipfs.config import Peer
from node.learning.encoding import Weights
from node.metrics import RoleMetrics

READY_S: Final = 240.0  # how long the first round waits for trainers
DONE_S: Final = 10.0  # how long they are given to hear that there is no more
MAX_STRANGERS: Final = 64


class Objects(IntakeObjects, Protocol):
    """The calls of an IPFS client that this makes."""

    async def pin(self, cid: str, *, recursive: bool = True) -> None: ...

    async def unpin(self, cid: str) -> None: ...


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


class Desk:
    """What the coordinator says stands in the open attributes; `news` tells when one has changed."""

    def __init__(
        self, job: Job, ipfs: Objects, journal: Journal, events: Events, metrics: RoleMetrics
    ) -> None:
        self._job = job
        self._ipfs = ipfs
        self._journal = journal
        self._events = events
        self._metrics = metrics
        self._strangers: Counter[str] = Counter()
        self._newest: dict[str, Manifest] = {}  # by sender, of the update that was accepted last
        self.news = News()
        self.ready: set[str] = set()
        self.told: set[str] = set()  # who has heard that there is no more
        self.failure: ShoalError | None = None
        self.finished = False
        self.strategy: Strategy | None = None
        self.intake: Intake | None = None
        self.model: Model | None = None
        self.round: Round | None = None

    async def work(self, peer_id: str, ready: bool, has: str = "") -> Work:
        """What a member is to do, as soon as there is something."""
        name = self._job.members[peer_id]
        if ready and name in self._job.trainers:
            self.ready.add(name)
            self.news.tell()
        until_s = time.monotonic() + LONG_POLL_S
        while (work := self._work_for(name, ready, has)) is None:
            if time.monotonic() >= until_s:
                return self._waiting()
            await self.news.wait(until_s - time.monotonic())
        return work

    def _work_for(self, name: str, ready: bool, has: str) -> Work | None:
        if self.finished:
            self.told.add(name)
            self.news.tell()
            return Work("done")
        if not ready:  # it needs the model to become ready
            return self._waiting() if self.model is not None else None
        current = self.round
        if current is None or not current.wants(name):
            return self._waiting() if has and self._is_coming(has) else None
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

    def _is_coming(self, has: str) -> bool:
        """Whether a round will want another model than that."""
        record = self.model.record if self.model is not None else None
        return record is not None and record.model != has and record.round < self._job.workload.rounds

    def _waiting(self) -> Work:
        if self.model is None:
            return Work("wait")
        record, deadline_s = self.model.record, self._job.aggregation.deadline_s
        return Work("wait", base=record.model, size_bytes=record.size_bytes, deadline_s=deadline_s)

    async def update(self, peer_id: str, body: bytes) -> Answer:
        """Take a member's update, or refuse it; a ShoalError means: try again, it is not your fault."""
        if self.intake is None or self.round is None:
            raise ShoalError("no round has been opened yet")
        sender = self._job.members[peer_id]
        async with self.intake.turn(peer_id):
            try:
                if not self.round.keeps(sender):
                    return Answer(False, "malformed", "too many were refused in this round")
                update = await self.intake.examine(peer_id, sender, body, self._objection, self._patience_s())
                await self._take(update)
            except RefusedError as err:
                self._refuse(Refused(sender, err.reason, err.detail, err.signed))
                return Answer(False, err.reason, err.detail)
            except HostError as err:  # our own disk: the round cannot go on
                self.failure = err
                self.news.tell()
                raise
        return Answer(True)

    def stranger(self, peer_id: str) -> None:
        """Somebody asked who is no member."""
        if self._strangers.total() < MAX_STRANGERS and self._strangers[peer_id] < 1:
            self._strangers[peer_id] += 1
            self._refuse(Refused(peer_id, "stranger", "asked over the tunnel, and is no member"))

    def _patience_s(self) -> float:
        return min(FETCH_S, max(1.0, self.open_round.until_s - time.monotonic()))

    def _objection(self, sender: str, manifest: Manifest) -> tuple[Refusal, str] | None:
        assert self.strategy is not None
        against = self.strategy.accept(self.open_round, sender, manifest)
        if against is not None and against[0] == "late" and manifest == self._newest.get(sender):
            return "replayed", "it was accepted in its round"  # the answer was lost, and that took long
        return against

    async def _take(self, update: Update) -> None:
        """Pin, write down, accept: in this order, so that what is answered is durable."""
        manifest = update.signed.manifest
        await self._ipfs.pin(manifest.update)
        try:
            self._still_wanted(update)
        except RefusedError:
            if all(manifest.update != other.signed.manifest.update for other in self.open_round.updates()):
                await self._ipfs.unpin(manifest.update)
            raise
        self._journal.accept(Taken(update.sender, update.signed))
        self.round = self.open_round.accept(update)
        self._newest[update.sender] = manifest
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
        self.news.tell()

    def _still_wanted(self, update: Update) -> None:
        against = self._objection(update.sender, update.signed.manifest)
        if against is not None:
            reason, detail = against
            # It was in order when it came, so by now the round is over.
            raise RefusedError("late" if reason == "wrong_round" else reason, detail, update.signed)

    def _refuse(self, refused: Refused) -> None:
        current = self.round
        if current is not None and current.phase == "open" and current.keeps(refused.sender):
            self._journal.refuse(refused)
            self.round = current.refuse(refused)
        self._metrics.counter("shoal_updates_total", outcome=refused.reason).inc()
        number = current.terms.round if current is not None else 0
        self._events.write(
            "update_refused",
            round=number,
            sender=refused.sender,
            reason=refused.reason,
            detail=refused.detail,
        )
        self.news.tell()

    @property
    def open_round(self) -> Round:
        """The round, which there is by now."""
        assert self.round is not None
        return self.round
