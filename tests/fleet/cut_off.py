"""A small fleet with real daemons, tunnels and links, whose workers are cut off and come back.

An aggregator's process and trainers, with a numpy fake in place of the learning.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from node.contract.links import Shape
from node.contract.plan import AggregationPlan, PartitionPlan, Role, WorkloadPlan
from node.contract.schema import to_json
from node.contract.settings import EVENTS_FILE, Neighbour, NodeSettings, ObjectRef
from node.data import shard
from node.data.dataset import Dataset
from node.events import Events
from node.ipfs.cid import FileHasher
from node.ipfs.engine import find
from node.metrics import RoleMetrics
from node.namespace import NodeThread
from node.process import Process
from node.trainer import train
from tests.fleet.lab import Member, swarm
from tests.fleet.recovery import wait_until
from tests.fleet.wires import NS_PER_S, Wires, wired
from tests.unit.aggregator.fake_learning import FakeLearner, FakeOutcome

TOP: Final = Path(__file__).resolve().parents[2]
AGGREGATOR: Final = "agg"
MANY_ROUNDS: Final = 100_000
WAIT_S: Final = 60.0
LOOK_S: Final = 0.02
SYSCTLS: Final = {"prompt": {"tcp_rto_max_ms": 1000, "tcp_retries2": 8}}  # as the driver sets them

Event = dict[str, Any]


class PacedLearner(FakeLearner):
    """Trains for as long as it is told, or once until somebody opens its gate."""

    def __init__(self, step: float, train_s: float) -> None:
        super().__init__(step)
        self.train_s = train_s
        self.held = False
        self.training = threading.Event()  # since the last hold
        self.gate = threading.Event()

    def hold(self) -> None:
        """The next training lasts until the gate is opened, and goes as before after it."""
        self.training.clear()
        self.gate.clear()
        self.held = True

    def train(self, *arguments: Any, **options: Any) -> FakeOutcome:
        held, self.held = self.held, False
        self.training.set()
        self.gate.wait(WAIT_S) if held else time.sleep(self.train_s)
        return super().train(*arguments, **options)


@dataclass
class Recovery:
    """Seconds from the instant of a heal until the worker's request was answered, and its update accepted."""

    answered_s: float
    accepted_s: float
    silent_s: float  # before the answer, by the worker's own account


class Fleet:
    """`agg` and workers w01, w02, …"""

    def __init__(
        self, folder: Path, members: dict[str, Member], wires: Wires, deadline_s: float, train_s: float
    ) -> None:
        self.folder, self.members = folder, members
        self.wires = wires
        self._deadline_s = deadline_s
        self.workers = [name for name in members if name != AGGREGATOR]
        self.learners = {
            name: PacedLearner(0.001 * number, train_s) for number, name in enumerate(self.workers, 1)
        }
        self._keeper = NodeThread(members[AGGREGATOR].name)
        self._lives: dict[str, Future[None]] = {}
        self._stops: dict[str, Callable[[], object]] = {}
        self._aggregator: Process | None = None
        for count, name in enumerate(members, 1):
            self.home(name).mkdir()
            data = Dataset(np.zeros((10 * count, 4), np.float32), np.zeros(10 * count, np.int64))
            self._shard(name).write_bytes(shard.to_bytes(data))

    # -- parts
    def start(self) -> None:
        """Aggregator and trainers; all have had an update accepted when this returns."""
        file = self.folder / "agg.json"
        file.write_text(json.dumps(to_json(self._settings(AGGREGATOR))))
        argv = [sys.executable, "-m", "tests.fleet.aggregator_part", str(file)]
        environment = {**os.environ, "PYTHONPATH": str(TOP)}
        self._aggregator = self._keeper.call(
            lambda: Process.start(argv, env=environment, log=self.folder / "agg.log")
        )
        for name in self.workers:
            self._lives[name] = self.members[name].in_node(lambda name=name: asyncio.run(self._life(name)))  # type: ignore[misc]
        for name in self.workers:
            self.wait_event(AGGREGATOR, "update_accepted", sender=name)

    async def _life(self, name: str) -> None:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        self._stops[name] = lambda: loop.call_soon_threadsafe(stop.set)
        events = Events(self.home(name) / EVENTS_FILE, name)
        learner = self.learners[name]
        await train(self._settings(name), events, RoleMetrics("trainer"), stop, make=lambda *_: learner)

    def close(self) -> None:
        for name, stop in self._stops.items():
            if not self._lives[name].done():
                stop()
        for learner in self.learners.values():
            learner.gate.set()
        try:
            for life in self._lives.values():
                life.result(WAIT_S)
        finally:
            if self._aggregator is not None:
                self._aggregator.signal(signal.SIGKILL)
                assert self._aggregator.wait_exit(10.0) is not None
            self._keeper.close()

    def _settings(self, name: str) -> NodeSettings:
        role: Role = "aggregator" if name == AGGREGATOR else "trainer"
        known = {
            other: Neighbour(other, member.peer.peer_id, member.peer.address)
            for other, member in self.members.items()
        }
        reference = None if name == AGGREGATOR else self._reference(name)
        return NodeSettings(
            run="test-run",
            name=name,
            roles=(role,),
            seed=1,
            folder=str(self.home(name)),
            data_address=self.members[name].address,
            ctl_address="",
            engine="embedded",
            engine_path="",
            transport="prompt",
            swarm_key_file="",
            token_file="",
            neighbours=tuple(other for one, other in known.items() if one != name),
            members={member.peer.peer_id: one for one, member in self.members.items()},
            aggregator=None if name == AGGREGATOR else known[AGGREGATOR],
            workload=WorkloadPlan("digits", "cnn", PartitionPlan("iid"), MANY_ROUNDS, 1, 8, 0.1),
            aggregation=AggregationPlan("mean", "sync", 1 / len(self.workers), self._deadline_s, {}),
            task_file=None,
            shard=reference,
            shards={str(self._shard(one)): one for one in self.workers} if reference is None else {},
            test_file=None,
            classes=3,
        )

    def home(self, name: str) -> Path:
        return self.folder / name

    def _shard(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"

    def _reference(self, name: str) -> ObjectRef:
        data = self._shard(name).read_bytes()
        hasher = FileHasher()
        hasher.update(data)
        return ObjectRef(str(hasher.cid()), len(data))

    # -- what they tell
    def events(self, name: str, kind: str, after_s: float = 0.0, **fields: Any) -> list[Event]:
        """Those after a monotonic instant, in order."""
        file = self.home(name) / EVENTS_FILE
        lines = file.read_text().splitlines() if file.exists() else []
        return [
            event
            for event in map(json.loads, lines)
            if event["kind"] == kind
            and event["mono_ns"] >= after_s * NS_PER_S
            and fields.items() <= event.items()
        ]

    def wait_event(
        self, name: str, kind: str, after_s: float = 0.0, timeout_s: float = WAIT_S, **fields: Any
    ) -> Event:
        """The first one after a monotonic instant."""
        until_s = time.monotonic() + timeout_s
        while not (found := self.events(name, kind, after_s, **fields)):
            assert time.monotonic() < until_s, f"{name}: no {kind} {fields}: {self._log()}"
            ended = [life for life in self._lives.values() if life.done()]
            assert not ended, f"a trainer ended: {ended[0].exception()!r}"
            time.sleep(LOOK_S)  # a file tells nobody when it grows
        return found[0]

    def recovery(self, worker: str, healed_s: float) -> Recovery:
        """How soon a worker that was asking was answered again, and had an update accepted."""
        answered = self.wait_event(worker, "control_answered", healed_s)
        accepted = self.wait_event(AGGREGATOR, "update_accepted", healed_s, sender=worker)
        return Recovery(since(answered, healed_s), since(accepted, healed_s), answered["silent_s"])

    def _log(self) -> str:
        return (self.folder / "agg.log").read_text()[-2000:]


def since(event: Event, instant_s: float) -> float:
    return float(event["mono_ns"] / NS_PER_S - instant_s)


@contextmanager
def fleet(
    folder: Path,
    workers: int,
    *,
    transport: str = "prompt",
    shape: Shape | None = None,
    deadline_s: float = 2.0,
    train_s: float = 0.3,
) -> Iterator[Fleet]:
    """A fleet that goes through round after round; `shape` is that of all links, each way."""
    names = (AGGREGATOR, *(f"w{number:02d}" for number in range(1, workers + 1)))
    with ExitStack() as stack:
        nodes = stack.enter_context(swarm(find("embedded"), len(names), transport=transport))
        for node in nodes:
            for name, value in SYSCTLS.get(transport, {}).items():
                node.sh(f"test ! -e /proc/sys/net/ipv4/{name} || echo {value} > /proc/sys/net/ipv4/{name}")
        members = dict(zip(names, nodes, strict=True))
        wires = stack.enter_context(wired(folder, members, shape))
        made = Fleet(folder, members, wires, deadline_s, train_s)
        stack.callback(made.close)
        made.start()
        yield made


def recoveries(
    folder: Path, cuts_s: Sequence[float], *, transport: str = "prompt", shape: Shape | None = None
) -> dict[float, Recovery]:
    """By length of the cut; every cut is another worker's of one fleet, all at the same time."""
    with (
        fleet(folder, len(cuts_s) + 1, transport=transport, shape=shape) as cut_off,
        ThreadPoolExecutor(len(cuts_s)) as pool,
    ):

        def recover(worker: str, cut_s: float) -> Recovery:
            begun_s = cut_off.wires.isolate(worker)
            wait_until(begun_s + cut_s)
            return cut_off.recovery(worker, cut_off.wires.heal(worker))

        return dict(zip(cuts_s, pool.map(recover, cut_off.workers, cuts_s), strict=False))
