"""Keeps a daemon connected that does not redial soon enough by itself (Kubo's own pause is 10 s and more)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterable, Mapping
from typing import Final

from node.ipfs.client import Client
from node.ipfs.config import Peer
from node.ipfs.errors import IpfsError

LOOK_S: Final = 0.5
DIAL_S: Final = 5.0  # one dial lives this long, the kernel repeats the SYN in it every second
PAUSE_S: Final = 5.0  # go-libp2p allows 0.2 connections a second and address, failed dials included
PING_S: Final = 2.5


def due(
    now: float, connected: Iterable[str], peers: Iterable[str], dialled_at: Mapping[str, float]
) -> set[str]:
    """Who is to be dialled: missing, and not dialled for a while."""
    missing = set(peers) - set(connected)
    return {peer for peer in missing if now - dialled_at.get(peer, -PAUSE_S) >= PAUSE_S}


class Dialler:
    """Dials missing peers and keeps bytes in flight to the others, until cancelled."""

    def __init__(self, client: Client, peers: Iterable[Peer]) -> None:
        self._client = client
        self._peers = {peer.peer_id: peer for peer in peers}
        self._dialled_at: dict[str, float] = {}
        self._pinged_at = -PING_S

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            while True:
                for call in await self._calls(time.monotonic()):
                    tasks.create_task(call)
                await asyncio.sleep(LOOK_S)

    async def _calls(self, now: float) -> list[Coroutine[None, None, None]]:
        try:
            connected = await self._client.peers()
        except IpfsError:  # the daemon restarts; its owner watches over that
            return []
        dials = due(now, connected, self._peers, self._dialled_at)
        self._dialled_at.update(dict.fromkeys(dials, now))
        calls = [self._dial(self._peers[peer_id]) for peer_id in dials]
        if now - self._pinged_at >= PING_S:
            self._pinged_at = now
            calls += [self._ping(peer_id) for peer_id in connected & set(self._peers)]
        return calls

    async def _dial(self, peer: Peer) -> None:
        try:
            await self._client.connect(peer, timeout_s=DIAL_S)
        except IpfsError:
            return  # it is dialled again as long as it is missing

    async def _ping(self, peer_id: str) -> None:
        """So that the kernel has bytes by which to judge the link; the answer would only judge the queue."""
        try:
            await self._client.ping(peer_id, timeout_s=PING_S)
        except IpfsError:
            return
