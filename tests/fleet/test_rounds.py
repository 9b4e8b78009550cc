"""Rounds over real daemons and tunnels, with a numpy fake in place of TFF: what is tested is all but the learning."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from node.contract.messages import ENCODING, Answer, Manifest, Signed, Work
from node.contract.plan import AggregationPlan, PartitionPlan, Role, WorkloadPlan
from node.contract.schema import canonical, to_json
from node.contract.settings import EVENTS_FILE, Neighbour, NodeSettings, ObjectRef
from node.control import Control, UnansweredError
from node.data import shard
from node.data.dataset import Dataset
from node.events import Events
from node.ipfs.cid import FileHasher
from node.ipfs.client import Client
from node.ipfs.config import Peer
from node.ipfs.engine import find
from node.learning import encoding
from node.metrics import RoleMetrics
from node.namespace import NodeThread
from node.process import Process
from node.trainer import train
from tests.fleet.lab import Member, cut, heal, swarm
from tests.settings import node_settings
from tests.unit.aggregator.fake_learning import FakeLearner, FakeOutcome, filled, template

TOP = Path(__file__).resolve().parents[2]
TRAINERS = ("w01", "w02", "w03")
ROUNDS = 3
WAIT_S = 60.0
# Examples are 10, 20 and 30; in the first round the third says 30 by hand. The second moves twice as far.
ACCURACY = ROUNDS * (10 * 0.1 + 20 * 0.2 + 30 * 0.1) / 60
WORKLOAD = WorkloadPlan("digits", "cnn", PartitionPlan("iid"), ROUNDS, 1, 8, 0.1)
AGGREGATION = AggregationPlan("mean", "sync", 1.0, 45.0, {})


class GatedLearner(FakeLearner):
    """Trains when the test lets it."""

    def __init__(self, gate: threading.Event) -> None:
        super().__init__(step=0.2)  # an update of its own, which nobody else has
        self._gate = gate

    def train(self, *arguments: Any, **options: Any) -> FakeOutcome:
        assert self._gate.wait(WAIT_S), "nobody opened the gate"
        return super().train(*arguments, **options)


@dataclass
class Lab:
    """An aggregator's process, trainers' threads, and somebody with the swarm's key who is no member."""

    folder: Path
    members: dict[str, Member]
    stranger: Member
    keeper: NodeThread

    def peer(self, name: str) -> Peer:
        return self.members[name].peer

    def home(self, name: str) -> Path:
        return self.folder / name

    def settings(self, name: str) -> NodeSettings:
        role: Role = "aggregator" if name == "agg" else "trainer"
        known = {
            other: Neighbour(other, member.peer.peer_id, member.peer.address)
            for other, member in self.members.items()
        }
        shards = {} if name != "agg" else {str(self.shard(one)): one for one in TRAINERS}
        return node_settings(
            name,
            self.home(name),
            run="test-run",
            roles=(role,),
            data_address=self.members[name].address,
            neighbours=tuple(other for one, other in known.items() if one != name),
            members={member.peer.peer_id: one for one, member in self.members.items()},
            aggregator=None if name == "agg" else known["agg"],
            workload=WORKLOAD,
            aggregation=AGGREGATION,
            shard=None if name == "agg" else self.reference(name),
            shards=shards,
            classes=3,
        )

    def shard(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"

    def reference(self, name: str) -> ObjectRef:
        data = self.shard(name).read_bytes()
        hasher = FileHasher()
        hasher.update(data)
        return ObjectRef(str(hasher.cid()), len(data))

    def start_aggregator(self) -> Process:
        file = self.folder / "agg.json"
        file.write_text(json.dumps(to_json(self.settings("agg"))))
        argv = [sys.executable, "-m", "tests.fleet.aggregator_part", str(file)]
        environment = {**os.environ, "PYTHONPATH": str(TOP)}
        log = self.folder / "agg.log"
        return self.keeper.call(lambda: Process.start(argv, env=environment, log=log))

    def start_trainer(self, name: str, learner: FakeLearner) -> Future[None]:
        settings = self.settings(name)
        events = Events(self.home(name) / EVENTS_FILE, name)

        async def life() -> None:
            # It ends by itself at the run's end; a run that does not end must not hold up the test's end.
            async with asyncio.timeout(WAIT_S):
                await train(
                    settings, events, RoleMetrics("trainer"), asyncio.Event(), make=lambda *_: learner
                )

        return self.members[name].in_node(lambda: asyncio.run(life()))

    def events(self, name: str, kind: str) -> list[dict[str, Any]]:
        file = self.home(name) / EVENTS_FILE
        lines = file.read_text().splitlines() if file.exists() else []
        return [event for event in map(json.loads, lines) if event["kind"] == kind]

    def wait_events(self, name: str, kind: str, count: int) -> list[dict[str, Any]]:
        until_s = time.monotonic() + WAIT_S
        while len(found := self.events(name, kind)) < count:
            assert time.monotonic() < until_s, f"{name}: {len(found)} x {kind}: {self.log()}"
            time.sleep(0.02)  # a file tells nobody when it grows
        return found

    def log(self) -> str:
        return (self.folder / "agg.log").read_text()[-3000:]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with swarm(find("embedded"), 5) as nodes:
        members = dict(zip(("agg", *TRAINERS), nodes, strict=False))
        with NodeThread(members["agg"].name) as keeper:
            lab = Lab(tmp_path, members, nodes[4], keeper)
            for count, name in enumerate(TRAINERS, 1):
                lab.home(name).mkdir()
                data = Dataset(np.zeros((10 * count, 4), np.float32), np.zeros(10 * count, np.int64))
                lab.shard(name).write_bytes(shard.to_bytes(data))
            lab.home("agg").mkdir()
            yield lab


@contextmanager
def aggregator(lab: Lab) -> Iterator[Process]:
    process = lab.start_aggregator()
    try:
        yield process
    finally:
        process.signal(signal.SIGKILL)
        assert process.wait_exit(10.0) is not None


async def signed_update(
    ipfs: Client, work: Work, weights: encoding.Weights | bytes, **changes: Any
) -> Signed:
    data = weights if isinstance(weights, bytes) else encoding.encode(weights)
    manifest = Manifest(
        run="test-run",
        round=work.round,
        sender=await ipfs.peer_id(),
        base=work.base,
        update=await ipfs.add(data),
        size_bytes=len(data),
        encoding=ENCODING,
        examples=30,
        fetch_s=0.0,
        train_s=0.0,
        loss=0.0,
    )
    manifest = replace(manifest, **changes)
    return Signed(manifest, await ipfs.sign(canonical(manifest)))


Bad = Callable[[Client, Work], Any]
GOOD = filled(-0.1)
SIZE_BYTES = encoding.size_bytes(template())
BAD: list[tuple[str, Bad]] = [
    ("wrong_base", lambda ipfs, work: signed_update(ipfs, work, GOOD, base="bafkreie" + "a" * 51)),
    ("wrong_round", lambda ipfs, work: signed_update(ipfs, replace(work, round=7), GOOD)),
    ("not_finite", lambda ipfs, work: signed_update(ipfs, work, filled(float("nan")))),
    ("misshapen", lambda ipfs, work: signed_update(ipfs, work, {"kernel": np.zeros((9, 9), np.float32)})),
    ("too_large", lambda ipfs, work: signed_update(ipfs, work, bytes(10 * SIZE_BYTES))),
    (
        "too_large",
        lambda ipfs, work: signed_update(ipfs, work, bytes(10 * SIZE_BYTES), size_bytes=SIZE_BYTES),
    ),
]


def misbehave(lab: Lab) -> None:
    """The third trainer by hand: everything that is refused, and one good update, twice."""

    async def behave(ipfs: Client) -> None:
        async with Control(ipfs, lab.peer("agg")) as control:
            work = await control.work(ready=True)
            while work.kind != "train":
                work = await control.work(ready=True)
            good = await signed_update(ipfs, work, GOOD)
            forged = replace(good, signature=await ipfs.sign(b"something else"))
            assert await control.send(forged) == Answer(
                False, "forged", "the signature is not the asker's over this manifest"
            )
            for reason, make in BAD:
                answer = await control.send(await make(ipfs, work))
                assert (answer.accepted, answer.reason) == (False, reason)
            assert await control.send(good) == Answer(True)
            assert (await control.send(good)).reason == "replayed"

    lab.members["w03"].call(behave)


def intrude(lab: Lab) -> None:
    async def ask(ipfs: Client) -> None:
        async with Control(ipfs, lab.peer("agg"), patience_s=1.0) as control:
            with pytest.raises(UnansweredError):
                await control.work(ready=True)

    lab.stranger.call(ask)


def test_rounds_go_on_through_bad_updates_and_a_kill(lab: Lab) -> None:
    gate = threading.Event()
    with aggregator(lab) as first:
        lives = [lab.start_trainer("w01", FakeLearner()), lab.start_trainer("w02", GatedLearner(gate))]
        misbehave(lab)
        intrude(lab)
        lab.wait_events("agg", "update_accepted", 2)  # of the first and the third
        assert first.exit_status is None, lab.log()
        first.signal(signal.SIGKILL)
        assert first.wait_exit(10.0) == -signal.SIGKILL
    with aggregator(lab) as second:
        gate.set()
        lives.append(lab.start_trainer("w03", FakeLearner()))
        for life in lives:
            life.result(WAIT_S)
        assert second.wait_exit(20.0) == 0, lab.log()

    closed = lab.events("agg", "round_closed")
    assert [(event["round"], event["completed"], event["closed_by"]) for event in closed] == [
        (number, True, "all") for number in range(1, ROUNDS + 1)
    ]
    assert closed[0]["accepted"] == list(TRAINERS)
    reasons = ["forged", *(reason for reason, _ in BAD), "replayed", "stranger"]
    assert [event["reason"] for event in lab.events("agg", "update_refused")] == reasons
    assert closed[0]["refused"] == len(reasons)  # those of before the kill
    assert closed[1]["refused"] == closed[2]["refused"] == 0
    assert len(lab.events("agg", "update_accepted")) == 3 * ROUNDS
    (finished,) = lab.events("agg", "run_finished")
    assert finished["rounds"] == ROUNDS
    assert finished["accuracy"] == pytest.approx(ACCURACY, rel=1e-5)
    for name in ("w01", "w02"):
        assert [event["round"] for event in lab.events(name, "update_answered") if event["accepted"]] == [
            1,
            2,
            3,
        ]
    check_chain(lab, finished["head"], reasons)


def test_a_trainer_that_is_cut_off_hands_in_after_the_heal(lab: Lab) -> None:
    gate = threading.Event()
    with aggregator(lab) as process:
        lives = [lab.start_trainer(name, FakeLearner()) for name in TRAINERS[1:]]
        lives.append(lab.start_trainer("w01", GatedLearner(gate)))
        lab.wait_events("agg", "update_accepted", 2)
        cut(lab.members["w01"])
        try:
            gate.set()
            lab.wait_events("w01", "trained", 1)
            lab.members["agg"].call(lambda ipfs: wait_gone(ipfs, lab.peer("w01").peer_id))
            assert len(lab.events("agg", "update_accepted")) == 2
        finally:
            heal(lab.members["w01"])
        for life in lives:
            life.result(WAIT_S)
        assert process.wait_exit(20.0) == 0, lab.log()
    closed = lab.events("agg", "round_closed")
    assert [(event["round"], event["closed_by"], event["accepted"]) for event in closed] == [
        (number, "all", list(TRAINERS)) for number in range(1, ROUNDS + 1)
    ]
    assert [event["round"] for event in lab.events("w01", "trained")] == [1, 2, 3]  # each once


async def wait_gone(ipfs: Client, peer_id: str) -> None:
    """Until the daemon has noticed that a peer is away."""
    async with asyncio.timeout(WAIT_S):
        while peer_id in await ipfs.peers():  # noqa: ASYNC110 # a daemon tells nobody of its own accord
            await asyncio.sleep(0.05)


def check_chain(lab: Lab, head: str, reasons: list[str]) -> None:
    """From the newest record alone, through links, on another node's daemon."""

    async def walk(ipfs: Client) -> list[Any]:
        nodes = [await ipfs.get_node(head)]
        while nodes[-1]["predecessors"]:
            nodes.append(await ipfs.get_node(nodes[-1]["predecessors"][0]["/"]))
        for node in nodes:
            for row in node["accepted"]:
                manifest = json.loads(row["manifest"])
                assert await ipfs.verify(row["manifest"].encode(), row["signature"], manifest["sender"])
        return nodes[::-1]

    nodes = lab.members["w02"].call(walk)
    assert [node["round"] for node in nodes] == [0, 1, 2, 3]
    assert [node["bases"] for node in nodes[1:]] == [[node["model"]] for node in nodes[:-1]]
    assert [row["reason"] for row in nodes[1]["refused"]] == reasons
    assert [row["sender"] for row in nodes[1]["accepted"]] == list(TRAINERS)
