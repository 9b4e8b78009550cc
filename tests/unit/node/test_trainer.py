from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from node import trainer
from node.contract.messages import Answer, Signed, Work
from node.contract.schema import canonical
from node.contract.settings import NodeSettings, ObjectRef
from node.control import Control
from node.data import shard
from node.data.dataset import Dataset
from node.events import Events
from node.ipfs.client import Client
from node.ipfs.config import Peer
from node.ipfs.errors import IpfsError, IpfsTimeoutError
from node.learning import encoding
from node.learning.encoding import Weights
from node.metrics import RoleMetrics
from node.trainer import Trainer, seed_of
from tests.settings import node_settings
from tests.unit.aggregator.fake_learning import FakeLearner, FakeOutcome, filled
from tests.unit.aggregator.fake_objects import cid_of

AGGREGATOR = Peer("peer-agg", "/ip4/10.0.0.1/tcp/4001")
SHARD = shard.to_bytes(Dataset(np.zeros((20, 4), np.float32), np.zeros(20, np.int64)))
MODELS = [
    encoding.encode(filled(0.01 * number)) for number in range(12)
]  # by round; the first is there before
MODEL = MODELS[0]


class FakeIpfs:
    """Files that are there, and pins; strict about sizes."""

    def __init__(self) -> None:
        self.files = {cid_of(data): data for data in (SHARD, *MODELS)}
        self.pinned: list[str] = []
        self.collections = 0
        self.failures: list[IpfsError] = []
        self.fetched: list[str] = []

    async def peer_id(self) -> str:
        return "peer-w1"

    async def fetch(
        self, cid: str, *, max_bytes: int, size_bytes: int, provider: Peer, timeout_s: float
    ) -> bytes:
        assert provider == AGGREGATOR
        assert timeout_s <= 300
        if self.failures:
            raise self.failures.pop()
        assert len(self.files[cid]) == size_bytes == max_bytes
        self.fetched.append(cid)
        return self.files[cid]

    async def add(self, data: bytes, *, pin: bool = False) -> str:
        assert pin, "garbage collection must not take an update that nobody has fetched yet"
        self.files[cid_of(data)] = data
        if cid_of(data) not in self.pinned:
            self.pinned.append(cid_of(data))
        return cid_of(data)

    async def unpin(self, cid: str) -> None:
        self.pinned.remove(cid)

    async def collect_garbage(self) -> list[str]:
        self.collections += 1
        self.fetched.append("collected")
        return []

    async def sign(self, data: bytes) -> str:
        return "u" + cid_of(data)


class FakeControl:
    """Says what it is told to say."""

    def __init__(self, *works: Work) -> None:
        self.works = list(works)
        self.asked: list[bool] = []
        self.had: list[str] = []
        self.sent: list[Signed] = []
        self.answer = Answer(True)

    async def work(self, *, ready: bool, has: str = "") -> Work:
        self.asked.append(ready)
        self.had.append(has)
        return self.works.pop(0)

    async def send(self, signed: Signed) -> Answer:
        self.sent.append(signed)
        return self.answer


class FailingOnce(FakeControl):
    """Once the trainer is ready, the first model that it asks for does not come."""

    def __init__(self, ipfs: FakeIpfs, *works: Work) -> None:
        super().__init__(*works)
        self._ipfs = ipfs

    async def work(self, *, ready: bool, has: str = "") -> Work:
        if len(self.asked) == 1:
            self._ipfs.failures.append(IpfsTimeoutError("nothing came"))
        return await super().work(ready=ready, has=has)


class CountingLearner(FakeLearner):
    """Its updates differ; what it was told is kept."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[dict[str, Any]] = []

    def train(self, weights: Weights, data: Dataset, **options: Any) -> FakeOutcome:
        self.told.append(options)
        return FakeOutcome(filled(-0.1 * len(self.told)), len(data), 0.5)


def train_on(number: int) -> Work:
    return Work(
        "train",
        round=number,
        base=cid_of(MODELS[number]),
        size_bytes=len(MODELS[number]),
        deadline_s=60.0,
        local_epochs=2,
        batch_size=8,
        learning_rate=0.5,
    )


def wait_with(number: int) -> Work:
    """Until there is a round for that model."""
    return Work("wait", base=cid_of(MODELS[number]), size_bytes=len(MODELS[number]), deadline_s=60.0)


WAIT = wait_with(0)
DONE = Work("done")


def settings(folder: Path) -> NodeSettings:
    shard = ObjectRef(cid_of(SHARD), len(SHARD))
    return node_settings("w1", folder, run="run", roles=("trainer",), seed=7, shard=shard)


async def life(folder: Path, ipfs: FakeIpfs, control: FakeControl) -> CountingLearner:
    """A trainer from its start to the end of the run."""
    learner = CountingLearner()
    own = settings(folder)
    with ThreadPoolExecutor(1) as thread:
        trainer = Trainer(
            own,
            cast(Client, ipfs),
            cast(Control, control),
            AGGREGATOR,
            Events(folder / "events.jsonl", "w1"),
            RoleMetrics("trainer"),
            thread,
        )
        assert own.shard is not None
        await trainer.prepare(lambda *_: learner, own.shard)
        await trainer.run()
    return learner


def events(folder: Path, kind: str) -> list[dict[str, Any]]:
    lines = (folder / "events.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["kind"] == kind]


async def test_a_trainer_gets_ready_trains_and_hands_in(tmp_path: Path) -> None:
    ipfs, control = FakeIpfs(), FakeControl(Work("wait"), WAIT, WAIT, train_on(1), DONE)
    learner = await life(tmp_path, ipfs, control)
    assert control.asked == [False, False, True, True, True]  # only ready when it has the model
    (signed,) = control.sent
    assert signed.signature == "u" + cid_of(canonical(signed.manifest))
    manifest = signed.manifest
    assert (manifest.run, manifest.round, manifest.sender, manifest.base) == (
        "run",
        1,
        "peer-w1",
        cid_of(MODELS[1]),
    )
    assert ipfs.files[manifest.update] == encoding.encode(filled(-0.1))
    assert (manifest.examples, manifest.size_bytes) == (20, len(ipfs.files[manifest.update]))
    (told,) = learner.told
    assert told == {"local_epochs": 2, "batch_size": 8, "learning_rate": 0.5, "seed": seed_of(7, "w1", 1)}
    (ready,) = events(tmp_path, "trainer_ready")
    assert (ready["examples"], ready["shard_bytes"]) == (20, len(SHARD))
    assert [event["round"] for event in events(tmp_path, "trained")] == [1]
    assert [event["accepted"] for event in events(tmp_path, "update_answered")] == [True]


async def test_a_model_is_fetched_before_there_is_a_round_for_it(tmp_path: Path) -> None:
    ipfs = FakeIpfs()
    control = FakeControl(WAIT, wait_with(1), wait_with(1), train_on(1), wait_with(2), train_on(2), DONE)
    await life(tmp_path, ipfs, control)
    names = [cid_of(model) for model in MODELS[:3]]
    assert ipfs.fetched[1:] == names  # behind the shard, each once
    assert control.had == ["", *(names[place] for place in (0, 1, 1, 1, 2, 2))]
    assert [event["fetch_s"] > 0 for event in events(tmp_path, "trained")] == [True, True]


async def test_bytes_are_counted_from_before_the_rounds_model_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ipfs = FakeIpfs()
    monkeypatch.setattr(trainer, "received_bytes", lambda _: len(ipfs.fetched))
    await life(tmp_path, ipfs, FakeControl(WAIT, wait_with(1), train_on(1), train_on(2), DONE))
    shard_and_first = 2
    counted = [event["received_bytes"] for event in events(tmp_path, "trained")]
    assert counted == [shard_and_first, shard_and_first + 1]  # fetched ahead, and in its round


async def test_a_model_that_does_not_come_ahead_is_fetched_in_its_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "BREATH_S", 0.0)
    ipfs = FakeIpfs()

    control = FailingOnce(ipfs, WAIT, wait_with(1), train_on(1), DONE)
    await life(tmp_path, ipfs, control)
    assert [event["accepted"] for event in events(tmp_path, "update_answered")] == [True]


async def test_a_round_opened_again_gets_the_same_update(tmp_path: Path) -> None:
    control = FakeControl(WAIT, train_on(1), WAIT, train_on(1), train_on(2), DONE)
    learner = await life(tmp_path, FakeIpfs(), control)
    assert len(learner.told) == 2
    assert control.sent[0] == control.sent[1] != control.sent[2]


async def test_a_round_that_is_tried_in_vain_again_and_again_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "BREATH_S", 0.0)
    ipfs = FakeIpfs()

    class Failing(FakeControl):
        async def work(self, *, ready: bool, has: str = "") -> Work:
            if 1 <= len(self.asked) <= 3:
                ipfs.failures.append(IpfsTimeoutError("nothing came"))
            return await super().work(ready=ready, has=has)

    await life(tmp_path, ipfs, Failing(WAIT, train_on(1), train_on(1), train_on(2), train_on(3), DONE))
    told = [(event["round"], event["accepted"]) for event in events(tmp_path, "update_answered")]
    assert told == [(1, False), (2, False), (3, True)]


async def test_a_model_that_does_not_come_costs_one_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "BREATH_S", 0.1)
    ipfs = FakeIpfs()

    control = FailingOnce(ipfs, WAIT, train_on(1), train_on(2), DONE)
    await life(tmp_path, ipfs, control)
    first, second = events(tmp_path, "update_answered")
    assert (first["accepted"], first["reason"]) == (False, "not handed in: model nothing came")
    assert second["accepted"]
    assert second["mono_ns"] - first["mono_ns"] >= 0.1e9, "it takes a breath before it tries again"


async def test_a_refusal_is_told_and_the_next_round_goes_on(tmp_path: Path) -> None:
    control = FakeControl(WAIT, train_on(1), train_on(2), DONE)
    control.answer = Answer(False, "late", "the round is closed")
    await life(tmp_path, FakeIpfs(), control)
    assert [event["reason"] for event in events(tmp_path, "update_answered")] == ["late", "late"]


@pytest.mark.parametrize(
    "waits", [True, False], ids=["between rounds", "where there is no time between them"]
)
async def test_old_updates_are_let_go(tmp_path: Path, waits: bool) -> None:
    ipfs = FakeIpfs()
    rounds = [[wait_with(number), train_on(number)][1 - waits :] for number in range(1, 12)]
    pinned: list[int] = []

    class Looking(FakeControl):
        async def send(self, signed: Signed) -> Answer:
            pinned.append(len(ipfs.pinned))
            return await super().send(signed)

    control = Looking(WAIT, *(work for works in rounds for work in works), WAIT, DONE)
    await life(tmp_path, ipfs, control)
    assert ipfs.pinned == [signed.manifest.update for signed in control.sent[-2:]]
    assert ipfs.collections == 2
    assert max(pinned) == (3 if waits else 5)
    # Never between a model and the end of its round: others may be fetching it from us.
    place = ipfs.fetched.index("collected")
    assert [ipfs.fetched[place - 1], ipfs.fetched[place + 1]] == [cid_of(MODELS[5]), cid_of(MODELS[6])]


def test_only_the_thread_that_trains_gives_way() -> None:
    def niceness() -> int:
        return os.getpriority(os.PRIO_PROCESS, 0)

    before = niceness()
    with trainer.learning_thread() as thread:
        assert thread.submit(niceness).result() == min(before + 10, 19)
    assert niceness() == before


@pytest.mark.parametrize("other", [(8, "w1", 1), (7, "w2", 1), (7, "w1", 2)])
def test_seeds_differ_by_run_node_and_round(other: tuple[int, str, int]) -> None:
    assert seed_of(7, "w1", 1) != seed_of(*other)
    assert 0 <= seed_of(*other) < 1 << 31
