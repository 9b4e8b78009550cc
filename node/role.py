"""Running one role of a node: its function, its metrics, and how it is asked to end."""

from __future__ import annotations

import asyncio
import importlib
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, Final

from node.contract import HostError
from node.contract.plan import Role
from node.contract.settings import EVENTS_FILE, NodeSettings
from node.events import Events
from node.ipfs.client import Client
from node.ipfs.errors import IpfsError
from node.metrics import RoleMetrics, role_port

IPFS_READY_S: Final = 30.0
PROBE_S: Final = 0.05

RoleFunction = Callable[[NodeSettings, Events, RoleMetrics, asyncio.Event], Awaitable[None]]

# By name, because the aggregator's package builds upon this one.
ENTRY_POINTS: Final[dict[Role, str]] = {
    "trainer": "node.trainer:train",
    "aggregator": "aggregator.server:serve",
}


def run(settings: NodeSettings, role: Role) -> int:
    """Run a role to its end, from a process that has not touched TensorFlow yet."""
    module, _, name = ENTRY_POINTS[role].partition(":")
    function: RoleFunction = getattr(importlib.import_module(module), name)
    metrics = RoleMetrics(role)
    with metrics.exposed(role_port(settings.roles, role)):
        asyncio.run(_until_ended(function, settings, metrics))
    return 0


async def _until_ended(function: RoleFunction, settings: NodeSettings, metrics: RoleMetrics) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with Client() as client:
        await wait_ipfs(client, IPFS_READY_S)
    events = Events(Path(settings.folder) / EVENTS_FILE, settings.name)
    await function(settings, events, metrics, stop)


async def unless_stopped(life: Coroutine[Any, Any, None], stop: asyncio.Event) -> None:
    """A role's life to its end, or until it is asked to stop; then it is given the time to leave in order."""
    work = asyncio.create_task(life)
    stopped = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            work.result()
    finally:
        for task in (work, stopped):
            task.cancel()
        await asyncio.gather(work, stopped, return_exceptions=True)


async def wait_ipfs(client: Client, timeout_s: float) -> str:
    """Until the node's IPFS daemon answers; its peer ID."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return await client.peer_id()
        except IpfsError as error:
            if time.monotonic() >= deadline:
                raise HostError(
                    f"the node's IPFS daemon does not answer after {timeout_s:g} s: {error.message}",
                    "see ipfs.log in the node's folder",
                ) from error
        await asyncio.sleep(PROBE_S)
