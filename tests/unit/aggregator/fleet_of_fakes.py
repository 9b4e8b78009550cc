"""An aggregator over objects in memory, and trainers that are calls to it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

from aggregator.coordinator import Coordinator
from aggregator.desk import Job
from node.contract.messages import ENCODING, Answer, Manifest, Signed, Work
from node.contract.plan import AggregationPlan, PartitionPlan, WorkloadPlan
from node.contract.schema import canonical, to_json
from node.events import Events
from node.learning import encoding
from node.learning.encoding import Weights
from node.metrics import RoleMetrics
from tests.unit.aggregator.fake_learning import FakeLearning, filled
from tests.unit.aggregator.fake_objects import FakeObjects, sign

RUN = "run-1"


def workload(rounds: int) -> WorkloadPlan:
    partition = PartitionPlan("iid")
    return WorkloadPlan("digits", "cnn", partition, rounds, 1, 8, 0.1)


def job(
    *names: str, rounds: int = 2, quorum: float = 1.0, deadline_s: float = 30.0, ready_s: float = 30.0
) -> Job:
    aggregation = AggregationPlan("mean", "sync", quorum, deadline_s, {})
    members = {f"peer-{name}": name for name in names}
    return Job(RUN, tuple(sorted(names)), members, {}, workload(rounds), aggregation, ready_s, done_s=0.2)


class Fleet:
    """One folder and one set of objects through several lives of the aggregator."""

    def __init__(self, folder: Path, the_job: Job, objects: FakeObjects | None = None) -> None:
        self.folder = folder
        self.job = the_job
        self.objects = objects or FakeObjects()
        self.accepted: set[tuple[int, str]] = set()  # what trainers were promised
        self.coordinator = self._coordinator()

    def _coordinator(self) -> Coordinator:
        events = Events(self.folder / "events.jsonl", "agg")
        return Coordinator(self.job, self.objects, self.folder, events, RoleMetrics("aggregator"))

    def events(self, kind: str) -> list[dict[str, Any]]:
        file = self.folder / "events.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        return [event for event in map(json.loads, lines) if event["kind"] == kind]

    def signed(self, name: str, work: Work, weights: Weights | bytes | None = None, **changes: Any) -> Signed:
        """An update of a trainer, stored elsewhere; honest unless told otherwise."""
        value = -0.1 * (1 + int(name[1:]))
        data = weights if isinstance(weights, bytes) else encoding.encode(weights or filled(value))
        manifest = Manifest(
            run=RUN,
            round=work.round,
            sender=f"peer-{name}",
            base=work.base,
            update=self.objects.offer(data),
            size_bytes=len(data),
            encoding=ENCODING,
            examples=10 * int(name[1:]),
            fetch_s=0.1,
            train_s=0.2,
            loss=0.3,
        )
        manifest = replace(manifest, **changes)
        return Signed(manifest, sign(canonical(manifest), manifest.sender))

    async def hand_in(self, name: str, signed: Signed) -> Answer:
        return await self.coordinator.desk.update(f"peer-{name}", json.dumps(to_json(signed)).encode())

    async def ask(self, name: str) -> Work:
        return await self.coordinator.desk.work(f"peer-{name}", True)

    async def train(self, name: str) -> None:
        """An honest trainer's life."""
        while (work := await self.ask(name)).kind != "done":
            if work.kind == "train":
                answer = await self.hand_in(name, self.signed(name, work))
                if answer.accepted:
                    self.accepted.add((work.round, name))

    async def live(
        self, *trainers: str, beside: Callable[[], Coroutine[Any, Any, None]] | None = None
    ) -> None:
        """One life of the aggregator, from wherever the last one ended; raises what ends it early."""
        self.coordinator = self._coordinator()
        run = asyncio.create_task(self.coordinator.run(FakeLearning))
        tasks = {run, *(asyncio.create_task(self.train(name)) for name in trainers)}
        if beside is not None:
            tasks.add(asyncio.create_task(beside()))
        try:
            while tasks:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
                tasks -= done
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def soon(holds: Callable[[], bool]) -> None:
    """Let other tasks run until something holds."""
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 # the event loop itself is what is waited for
            await asyncio.sleep(0)
