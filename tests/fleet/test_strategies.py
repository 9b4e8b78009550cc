"""A strategy at work in a whole fleet: real daemons, TensorFlow Federated forked from a real zygote."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from node.contract.messages import Work
from node.contract.plan import AggregationPlan, PartitionPlan, Role, WorkloadPlan
from node.contract.settings import EVENTS_FILE, Neighbour, NodeSettings, ObjectRef
from node.control import Control
from node.data.prepare import TEST_FILE, Recipe, prepare
from node.ipfs.cid import FileHasher
from node.ipfs.client import Client
from node.ipfs.engine import find
from node.learning.encoding import Weights
from tests.fleet.lab import Member, swarm
from tests.fleet.test_node_parts import Zygote
from tests.fleet.test_rounds import signed_update
from tests.settings import node_settings

TRAINERS = ("w01", "w02", "w03")
GIANT = "w03"
ROUNDS = 2
WAIT_S = 150.0
FIRST_NORM_BOUND = 1.0  # where TFF's adaptive clipping begins
WORKLOAD = WorkloadPlan("digits", "cnn", PartitionPlan("iid"), ROUNDS, 1, 32, 0.1)
ROBUST = AggregationPlan("robust", "sync", 1.0, 60.0, {})


class Fleet:
    """An aggregator and two trainers from the zygote; the third is the test's own hand."""

    def __init__(self, zygote: Zygote, folder: Path, nodes: list[Member]) -> None:
        self._zygote, self._folder = zygote, folder
        self.members = dict(zip(("agg", *TRAINERS), nodes, strict=True))
        recipe = Recipe(1, WORKLOAD, TRAINERS)
        self._classes = prepare(recipe, folder)["classes"]

    def start(self, name: str) -> None:
        (self._folder / name).mkdir()
        settings = self._settings(name)
        more = {"node": self.members[name].name, "parts": settings.roles}
        answer = self._zygote.start(settings, self._folder / f"{name}.json", **more)
        assert "pid" in answer, answer

    def events(self, name: str, kind: str) -> list[dict[str, Any]]:
        file = self._folder / name / EVENTS_FILE
        lines = file.read_text().splitlines() if file.exists() else []
        return [event for event in map(json.loads, lines) if event["kind"] == kind]

    def wait_event(self, name: str, kind: str) -> dict[str, Any]:
        until_s = time.monotonic() + WAIT_S
        while not (found := self.events(name, kind)):
            assert time.monotonic() < until_s, f"{name}: no {kind}; {self.events(name, 'failed')}"
            time.sleep(0.02)  # a file tells nobody when it grows
        return found[-1]

    def weights(self, cid: str) -> Weights:
        async def fetch(ipfs: Client) -> bytes:
            return await ipfs.fetch(cid, max_bytes=1 << 24, provider=self.members["agg"].peer)

        return self.weights_of(self.members[GIANT].call(fetch))

    def take_part_with_giants(self) -> None:
        """The third trainer: of the right shape, finite, and a hundred thousand times too large."""

        async def update(ipfs: Client, control: Control, work: Work) -> None:
            base = self.weights_of(await ipfs.fetch(work.base, max_bytes=1 << 24, provider=agg))
            giant = {name: np.full_like(array, 1e5) for name, array in base.items()}
            answer = await control.send(await signed_update(ipfs, work, giant))
            assert answer.accepted, answer

        async def life(ipfs: Client) -> None:
            async with asyncio.timeout(WAIT_S), Control(ipfs, agg) as control:
                while (work := await control.work(ready=True)).kind != "done":
                    if work.kind == "train":
                        await update(ipfs, control, work)

        agg = self.members["agg"].peer
        self.members[GIANT].call(life)

    @staticmethod
    def weights_of(data: bytes) -> Weights:
        return dict(sorted(safetensors.numpy.load(data).items()))

    def _settings(self, name: str) -> NodeSettings:
        role: Role = "aggregator" if name == "agg" else "trainer"
        known = {
            other: Neighbour(other, member.peer.peer_id, member.peer.address)
            for other, member in self.members.items()
        }
        files = {one: self._folder / f"{one}.safetensors" for one in TRAINERS}
        return node_settings(
            name,
            self._folder / name,
            run="test-run",
            roles=(role,),
            data_address=self.members[name].address,
            neighbours=tuple(other for one, other in known.items() if one != name),
            members={member.peer.peer_id: one for one, member in self.members.items()},
            aggregator=None if name == "agg" else known["agg"],
            workload=WORKLOAD,
            aggregation=ROBUST,
            shard=None if name == "agg" else reference(files[name]),
            shards={str(file): one for one, file in files.items()} if name == "agg" else {},
            test_file=str(self._folder / TEST_FILE) if name == "agg" else None,
            classes=self._classes,
        )


def reference(file: Path) -> ObjectRef:
    data = file.read_bytes()
    hasher = FileHasher()
    hasher.update(data)
    return ObjectRef(str(hasher.cid()), len(data))


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    zygote = Zygote(tmp_path)
    try:
        with swarm(find("embedded"), 1 + len(TRAINERS)) as nodes:
            yield Fleet(zygote, tmp_path, nodes)
    finally:
        zygote.close()


def norm(weights: Weights) -> float:
    return float(np.sqrt(sum(float((array.astype(np.float64) ** 2).sum()) for array in weights.values())))


def test_robust_counts_a_giant_update_as_nothing(fleet: Fleet) -> None:
    for name in ("agg", "w01", "w02"):
        fleet.start(name)
    fleet.take_part_with_giants()
    finished = fleet.wait_event("agg", "run_finished")
    assert finished["rounds"] == ROUNDS
    assert finished["accuracy"] > 0.5  # chance is a tenth

    opened = fleet.events("agg", "round_opened")
    accepted = [event for event in fleet.events("agg", "update_accepted") if event["round"] == 1]
    assert sorted(event["sender"] for event in accepted) == list(TRAINERS)
    before, after = (fleet.weights(event["model"]) for event in opened[:2])
    # By hand: the honest ones clipped to TFF's first bound, the giant a zero that has its weight all the same.
    moved = {name: np.zeros_like(array) for name, array in before.items()}
    for event in accepted:
        if event["sender"] != GIANT:
            update = fleet.weights(event["update"])
            share = min(1.0, FIRST_NORM_BOUND / norm(update)) * event["examples"]
            moved = {name: moved[name] + share * update[name] for name in moved}
    total = sum(event["examples"] for event in accepted)
    for name in before:
        assert np.allclose(after[name], before[name] - moved[name] / total, rtol=0, atol=1e-5), name
