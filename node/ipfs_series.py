"""What the IPFS daemon tells only when it is asked: its payload by protocol, and its repository."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import Final, Protocol

from node.contract.series import SERIES
from node.contract.settings import PROTOCOL
from node.exposition import Samples, exposed
from node.ipfs.errors import IpfsError

ASK_EVERY_S: Final = 5.0  # four calls, of which one counts the repository's blocks
ASK_S: Final = 0.5  # within a scrape
PROTOCOLS: Final = {"bitswap": "/ipfs/bitswap/1.2.0", "rounds": PROTOCOL}
OTHER: Final = "other"
DIRECTIONS: Final = {"in": "TotalIn", "out": "TotalOut"}


class Daemon(Protocol):
    """What is asked; Client does it."""

    async def repository(self, *, timeout_s: float) -> dict[str, float]: ...

    async def bandwidth(self, *, protocol: str | None = None, timeout_s: float) -> dict[str, float]: ...


class IpfsSeries:
    """Asks seldom; what a daemon that does not answer has done nobody knows, so then there is nothing."""

    def __init__(self, daemon: Daemon, clock: Callable[[], float] = time.monotonic) -> None:
        self._daemon = daemon
        self._clock = clock
        self._asked_at = -math.inf
        self._samples: Samples = {}
        self._text = b""

    async def text(self) -> bytes:
        if self._clock() - self._asked_at >= ASK_EVERY_S:
            try:
                async with asyncio.timeout(ASK_S):
                    await self._ask()
            except (IpfsError, TimeoutError):
                self._text = b""
            else:
                self._asked_at = self._clock()
        return self._text

    async def _ask(self) -> None:
        repository, total, *by_protocol = await asyncio.gather(
            self._daemon.repository(timeout_s=ASK_S),
            self._daemon.bandwidth(timeout_s=ASK_S),
            *(self._daemon.bandwidth(protocol=name, timeout_s=ASK_S) for name in PROTOCOLS.values()),
        )
        named = dict(zip(PROTOCOLS, by_protocol, strict=True))
        self._samples = samples(repository, total, named, self._samples)
        self._text = exposed(self._samples)


def samples(
    repository: dict[str, float],
    total: dict[str, float],
    by_protocol: dict[str, dict[str, float]],
    before: Samples,
) -> Samples:
    """The figures of each series; the answers are of slightly different moments."""
    made: Samples = {name: [] for name, series in SERIES.items() if series.by == "ipfs"}
    made["shoal_repository_bytes"].append(((), repository["RepoSize"]))
    made["shoal_repository_blocks"].append(((), repository["NumObjects"]))
    known = dict(before.get("shoal_stream_bytes_total", []))
    for direction, key in DIRECTIONS.items():
        rows = {(name, direction): bandwidth[key] for name, bandwidth in by_protocol.items()}
        rest = max(0.0, total[key] - sum(rows.values()))
        if all(figure >= known.get(labels, 0.0) for labels, figure in rows.items()):
            rest = max(rest, known.get((OTHER, direction), 0.0))  # a counter falls with its daemon only
        made["shoal_stream_bytes_total"] += [*rows.items(), ((OTHER, direction), rest)]
    return made
