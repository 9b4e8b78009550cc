"""The part `trainer` of a node: fetches its data and models by CID, trains, hands in signed updates."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

from node.accounts import received_bytes
from node.contract import ShoalError, UsageError
from node.contract.messages import ENCODING, NOT_HANDED_IN, Manifest, Signed, Work
from node.contract.schema import canonical
from node.contract.settings import DATA_INTERFACE, IPFS_PORT, NodeSettings, ObjectRef
from node.control import Control
from node.data import shard
from node.data.dataset import Dataset
from node.events import Events
from node.ipfs.client import Client
from node.ipfs.config import Peer
from node.ipfs.errors import IpfsError
from node.learning import encoding
from node.learning.encoding import Weights
from node.metrics import RoleMetrics
from node.role import unless_stopped

START_S: Final = 300.0  # how long data and first model may take to come
MODEL_S: Final = 300.0
CONNECT_S: Final = 5.0
KEPT_UPDATES: Final = 2
MOST_UPDATES: Final = 4  # where there is never time between rounds
TRAINING_NICENESS: Final = 10  # a tenth of a share
COLLECT_EVERY: Final = 5  # updates
BREATH_S: Final = 1.0  # after a failure, before the same is tried again

_T = TypeVar("_T")


class Outcome(Protocol):
    @property
    def update(self) -> Weights: ...

    @property
    def examples(self) -> int: ...

    @property
    def loss(self) -> float: ...


class Learner(Protocol):
    """What a trainer needs of node.learning; made and called in one thread of its own."""

    def initial_weights(self, seed: int) -> Weights: ...

    def trace(self) -> None: ...

    def train(
        self,
        weights: Weights,
        data: Dataset,
        *,
        local_epochs: int,
        batch_size: int,
        learning_rate: float,
        seed: int,
    ) -> Outcome: ...


Make = Callable[[NodeSettings, Dataset], Learner]


def tff_learner(settings: NodeSettings, data: Dataset) -> Learner:
    """The real one."""
    if settings.classes < 1:
        raise UsageError(f"{settings.name}: a trainer's settings need classes")
    from node.learning.tff import Learner as TffLearner  # here, because it loads TensorFlow

    shape = data.features.shape[1:]
    return TffLearner(settings.workload, shape, settings.classes, settings.task_file)


async def train(
    settings: NodeSettings,
    events: Events,
    metrics: RoleMetrics,
    stop: asyncio.Event,
    *,
    make: Make = tff_learner,
) -> None:
    """Train until the aggregator says that there is no more, or `stop` is set."""
    await unless_stopped(_train(settings, events, metrics, make), stop)


async def _train(settings: NodeSettings, events: Events, metrics: RoleMetrics, make: Make) -> None:
    if settings.aggregator is None or settings.shard is None:
        raise UsageError(f"{settings.name}: a trainer's settings need an aggregator and a shard")
    aggregator = Peer(settings.aggregator.peer_id, settings.aggregator.address)
    metrics.gauge("shoal_accepted_round").set(0)
    with learning_thread() as thread:

        def answered(path: str, silent_s: float) -> None:
            events.write("control_answered", path=path, silent_s=silent_s)
            metrics.histogram("shoal_control_silent_seconds").observe(silent_s)

        async with Client(IPFS_PORT) as ipfs, Control(ipfs, aggregator, answered=answered) as control:
            # Where it is no neighbour nothing else dials it, and the first fetch would stall before it does.
            with contextlib.suppress(IpfsError):  # the link may be down; the fetch tries again and again
                await ipfs.connect(aggregator, timeout_s=CONNECT_S)
            trainer = Trainer(settings, ipfs, control, aggregator, events, metrics, thread)
            await trainer.prepare(make, settings.shard)
            await trainer.run()


def learning_thread() -> ThreadPoolExecutor:
    """Gives way to all that moves models and measures it, though nodes share too few processors.

    TensorFlow starts its own threads in this one, and they are as nice.
    """
    return ThreadPoolExecutor(1, "learning", initializer=os.nice, initargs=(TRAINING_NICENESS,))


@dataclass(frozen=True)
class _Model:
    """The newest model, and what it took to fetch it."""

    cid: str
    weights: Weights
    seconds: float
    received_bytes: int  # what had come in before


@dataclass(frozen=True)
class _Done:
    """The newest update: a round that is opened again wants the same one."""

    round: int
    base: str
    signed: Signed


class Trainer:
    def __init__(
        self,
        settings: NodeSettings,
        ipfs: Client,
        control: Control,
        aggregator: Peer,
        events: Events,
        metrics: RoleMetrics,
        thread: ThreadPoolExecutor,
    ) -> None:
        self._settings = settings
        self._ipfs = ipfs
        self._control = control
        self._aggregator = aggregator
        self._events = events
        self._metrics = metrics
        self._thread = thread
        self._template: Weights = {}
        self._model: _Model | None = None
        self._newest: _Done | None = None
        self._kept: list[str] = []
        self._since_collection = 0
        self._failed_in = 0  # the last round to which nothing could be handed in

    async def prepare(self, make: Make, reference: ObjectRef) -> None:
        """All that the first round needs: the data, the learner, the model's shape, the traced graphs."""
        began_s = time.monotonic()
        self._peer_id = await self._ipfs.peer_id()
        content, _ = await self._fetch("shard", reference, START_S)
        self._data = shard.from_bytes(content)
        self._learner = await self._learn(make, self._settings, self._data)
        self._template = await self._learn(self._learner.initial_weights, self._settings.seed)
        await self._learn(self._learner.trace)
        work = await self._control.work(ready=False)
        until_s = time.monotonic() + START_S
        while work.kind == "wait" and not work.base:
            if time.monotonic() >= until_s:
                raise ShoalError(f"the aggregator has had no model for {START_S:g} s", "see its log")
            work = await self._control.work(ready=False)
        if work.base:
            await self._fetch_model(work, MODEL_S)
        self._events.write(
            "trainer_ready",
            shard_bytes=len(content),
            examples=len(self._data),
            seconds=time.monotonic() - began_s,
        )

    async def run(self) -> None:
        """Round after round, until there are no more."""
        while (work := await self._ask()).kind != "done":
            if work.kind == "train":
                await self._take_part(work)
            elif work.base:
                await self._prepare_round(work)

    async def _ask(self) -> Work:
        return await self._control.work(ready=True, has=self._model.cid if self._model is not None else "")

    async def _prepare_round(self, work: Work) -> None:
        """While the aggregator evaluates a model: tidy up, and have the model before its round is opened.

        In this order: what is collected must not be what others fetch from us.
        """
        await self._let_go(KEPT_UPDATES)
        try:
            await self._fetch_model(work, min(MODEL_S, work.deadline_s))
        except IpfsError:  # the round that wants it will say so
            await asyncio.sleep(BREATH_S)

    async def _take_part(self, work: Work) -> None:
        done = self._newest
        if done is None or (done.round, done.base) != (work.round, work.base):
            try:
                done = await self._update(work)
            except IpfsError as err:
                # The round goes on without us; the next ask says whether it still does.
                if self._failed_in != work.round:  # told once: it is tried until the round is over
                    self._answered(work.round, False, f"{NOT_HANDED_IN}: {err.message}")
                    self._failed_in = work.round
                await asyncio.sleep(BREATH_S)  # our daemon may be full: not to train in circles
                return
            self._newest = done
        answer = await self._control.send(done.signed)
        if answer.accepted:
            self._metrics.gauge("shoal_accepted_round").set(work.round)
        self._answered(work.round, answer.accepted, answer.reason)
        await self._let_go(MOST_UPDATES)

    def _answered(self, number: int, accepted: bool, reason: str | None) -> None:
        self._events.write("update_answered", round=number, accepted=accepted, reason=reason)

    async def _update(self, work: Work) -> _Done:
        """Fetch the model, train, store and sign the update."""
        settings = self._settings
        # Beyond the deadline another model is wanted, and this one may be with nobody any more.
        model = await self._fetch_model(work, min(MODEL_S, work.deadline_s))
        began_s = time.monotonic()
        outcome = await self._learn(
            lambda: self._learner.train(
                model.weights,
                self._data,
                local_epochs=work.local_epochs,
                batch_size=work.batch_size,
                learning_rate=work.learning_rate,
                seed=seed_of(settings.seed, settings.name, work.round),
            )
        )
        train_s = time.monotonic() - began_s
        began_s = time.monotonic()
        data = encoding.encode(outcome.update)
        cid = await self._ipfs.add(data, pin=True)
        manifest = Manifest(
            run=settings.run,
            round=work.round,
            sender=self._peer_id,
            base=work.base,
            update=cid,
            size_bytes=len(data),
            encoding=ENCODING,
            examples=outcome.examples,
            fetch_s=round(model.seconds, 6),
            train_s=round(train_s, 6),
            loss=float(outcome.loss),
        )
        signed = Signed(manifest, await self._ipfs.sign(canonical(manifest)))
        upload_s = time.monotonic() - began_s
        self._metrics.histogram("shoal_train_seconds").observe(train_s)
        self._metrics.histogram("shoal_upload_seconds").observe(upload_s)
        self._metrics.gauge("shoal_train_loss").set(outcome.loss)
        self._events.write(
            "trained",
            round=work.round,
            fetch_s=model.seconds,
            train_s=train_s,
            upload_s=upload_s,
            examples=outcome.examples,
            loss=outcome.loss,
            update=cid,
            size_bytes=len(data),
            received_bytes=model.received_bytes,
        )
        if cid not in self._kept:
            self._kept.append(cid)
            self._since_collection += 1
        return _Done(work.round, work.base, signed)

    async def _fetch_model(self, work: Work, timeout_s: float) -> _Model:
        """The model that the work names, if it is not there yet."""
        model = self._model
        if model is None or model.cid != work.base:
            received = received_bytes(DATA_INTERFACE)
            data, seconds = await self._fetch("model", ObjectRef(work.base, work.size_bytes), timeout_s)
            model = _Model(work.base, encoding.check(data, self._template), seconds, received)
            self._model = model
        return model

    async def _fetch(self, what: str, reference: ObjectRef, timeout_s: float) -> tuple[bytes, float]:
        """An object and the seconds that it took; asked for again and again, until it is there."""
        began_s = time.monotonic()
        try:
            data = await self._ipfs.fetch(
                reference.cid,
                max_bytes=reference.size_bytes,
                size_bytes=reference.size_bytes,
                provider=self._aggregator,
                timeout_s=timeout_s,
            )
        except IpfsError as err:
            raise type(err)(f"{what} {err.message}", err.hint) from err
        seconds = time.monotonic() - began_s
        self._metrics.histogram("shoal_fetch_seconds", what=what).observe(seconds)
        return data, seconds

    async def _let_go(self, most: int) -> None:
        """Once there are too many updates keep the newest only; free the space of others now and then."""
        if len(self._kept) <= most:
            return
        with contextlib.suppress(IpfsError):  # there will be another time
            while len(self._kept) > KEPT_UPDATES:
                await self._ipfs.unpin(self._kept.pop(0))
            if self._since_collection >= COLLECT_EVERY:
                self._since_collection = 0
                await self._ipfs.collect_garbage()

    async def _learn(self, function: Callable[..., _T], *arguments: Any) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)


def seed_of(seed: int, name: str, number: int) -> int:
    """A node's own random numbers in a round: other nodes do not change them."""
    digest = hashlib.sha256(f"{seed}/{name}/{number}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1
