"""The part `aggregator` of a node: puts together what it is made of, seeds the data, serves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final

from aggregator.barrier import Barrier
from aggregator.coordinator import Coordinator
from aggregator.desk import Job
from aggregator.learning import Learning, TffLearning
from node.contract.settings import IPFS_PORT, RELEASE_FILE, NodeSettings
from node.control_server import ControlServer
from node.events import Events
from node.ipfs.client import Client
from node.ipfs.config import Peer
from node.metrics import RoleMetrics
from node.role import unless_stopped

FOLDER: Final = "aggregator"  # in the node's folder: head and open round


async def serve(
    settings: NodeSettings,
    events: Events,
    metrics: RoleMetrics,
    stop: asyncio.Event,
    *,
    make: Callable[[NodeSettings], Learning] = TffLearning,
) -> None:
    """Aggregate until the run is over or `stop` is set."""
    await unless_stopped(_aggregate(settings, events, metrics, make), stop)


async def _aggregate(
    settings: NodeSettings, events: Events, metrics: RoleMetrics, make: Callable[[NodeSettings], Learning]
) -> None:
    folder = Path(settings.folder) / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    async with Client(IPFS_PORT) as ipfs:
        barrier = Barrier(Path(settings.folder) / RELEASE_FILE, settings.pauses, events)
        coordinator = Coordinator(job_of(settings), ipfs, folder, events, metrics, barrier)
        async with ControlServer(ipfs, settings.members, coordinator.desk).open():
            await _seed(ipfs, settings, events)
            await coordinator.run(lambda: make(settings))


def job_of(settings: NodeSettings) -> Job:
    """Trainers are those for whom there are data; on a node that does not seed, all other members."""
    others = set(settings.members.values()) - {settings.name}
    trainers = set(settings.shards.values()) & others if settings.shards else others
    return Job(
        run=settings.run,
        trainers=tuple(sorted(trainers)),
        members=settings.members,
        peers={n.peer_id: Peer(n.peer_id, n.address) for n in settings.neighbours},
        workload=settings.workload,
        aggregation=settings.aggregation,
    )


async def _seed(ipfs: Client, settings: NodeSettings, events: Events) -> None:
    """Put the trainers' data on IPFS, where they fetch them by CID."""
    count_bytes = 0
    for file in settings.shards:
        data = await asyncio.to_thread(Path(file).read_bytes)
        await ipfs.add(data, pin=True)
        count_bytes += len(data)
    if settings.shards:
        events.write("shards_added", count=len(settings.shards), bytes=count_bytes)
