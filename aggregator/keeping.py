"""Lets go of old models and updates, so that the repository does not grow with the rounds."""

from __future__ import annotations

import contextlib
from typing import Final, Protocol

from aggregator.records import KEPT_RECORDS, Chain, Record
from node.ipfs.errors import IpfsError

COLLECT_EVERY: Final = 5  # records


class Objects(Protocol):
    """The calls of an IPFS client that this makes."""

    async def unpin(self, cid: str) -> None: ...

    async def pins(self) -> set[str]: ...

    async def collect_garbage(self) -> list[str]: ...


class Keeper:
    """Knows the newest records; records and states themselves stay for ever."""

    def __init__(self, ipfs: Objects) -> None:
        self._ipfs = ipfs
        self._kept: list[Record] = []
        self._since_collection = 0

    async def recover(self, chain: Chain, needed: set[str]) -> None:
        """After a restart: let go of what the last life did not get to, but not of what is `needed` still."""
        gone = (await chain.passed() - needed) & await self._ipfs.pins()
        for passed in sorted(gone):
            await self._ipfs.unpin(passed)
        self._kept = []
        cid: str | None = chain.head()
        while cid is not None and len(self._kept) < KEPT_RECORDS:
            self._kept.insert(0, await chain.load(cid))
            cid = next(iter(self._kept[0].predecessors), None)

    async def add(self, record: Record) -> None:
        """One more record: the oldest of those before passes."""
        self._kept.append(record)
        if len(self._kept) > KEPT_RECORDS:
            old = self._kept.pop(0)
            for cid in sorted(old.passing().difference(*(kept.passing() for kept in self._kept))):
                with contextlib.suppress(IpfsError):  # not pinned any more; or the next start gets to it
                    await self._ipfs.unpin(cid)
        self._since_collection += 1

    async def collect(self) -> None:
        """Free the space, now and then."""
        if self._since_collection >= COLLECT_EVERY:
            self._since_collection = 0
            with contextlib.suppress(IpfsError):  # there will be another time
                await self._ipfs.collect_garbage()
