"""Fetching by CID: bounded, verified, and going on after a link was lost."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from node.ipfs.cid import MAX_BLOCK_BYTES, RAW, Cid, Verifier
from node.ipfs.config import Peer
from node.ipfs.errors import IpfsError, IpfsTimeoutError, TooLargeError, UnverifiedError
from node.ipfs.rpc import Rpc, announced_bytes

STALL_S: Final = 5.0
TIMEOUT_S: Final = 120.0
AT_ONCE: Final = 32  # a fetch mostly waits: 32 together take about as long as three in a row
TICKS_PER_STALL: Final = 4
EMPTY: Final = Cid.of_block(RAW, b"")
WIRE_PROGRESS_BYTES: Final = 1024  # more than pings and keepalives make in a tick


@dataclass(frozen=True)
class Wanted:
    """One object to fetch; a size that is known must be met exactly."""

    cid: str
    max_bytes: int
    size_bytes: int | None = None
    provider: Peer | None = None

    @property
    def bound_bytes(self) -> int:
        return self.max_bytes if self.size_bytes is None else min(self.max_bytes, self.size_bytes)


@dataclass
class _Partial:
    """What has come so far; survives the asks, so that the next one begins where this ended."""

    verifier: Verifier
    content: bytearray = field(default_factory=bytearray)
    announced_bytes: int | None = None
    problem: str = "nobody answered"


class Fetcher:
    """Fetches through one daemon, and renews connections for all of its fetches together."""

    def __init__(self, rpc: Rpc) -> None:
        self._rpc = rpc
        self._renewals: dict[str, _Renewal] = {}

    async def fetch(self, wanted: Wanted, stall_s: float = STALL_S, timeout_s: float = TIMEOUT_S) -> bytes:
        """The bytes of a file.

        Bytes are counted as they come and not taken beyond the bound. After `stall_s` without
        progress the provider is disconnected and connected again, since Bitswap sends a lost want
        again only after 30 s or more, and the daemon is asked for the rest.
        """
        asked = Cid.parse(wanted.cid)
        if asked == EMPTY:  # Bitswap does not carry a block of no bytes, and its name says all
            return b""
        partial = _Partial(Verifier(asked))
        deadline = time.monotonic() + timeout_s
        while (left_s := deadline - time.monotonic()) > 0:
            had_bytes = len(partial.content)
            ended = await self._ask(wanted, partial, stall_s, left_s)
            if ended and self._complete(wanted, partial):
                return bytes(partial.content)
            if ended and len(partial.content) == had_bytes:  # the daemon gave up for a reason of its own
                raise UnverifiedError(
                    f"{wanted.cid} ended after {had_bytes} of {partial.announced_bytes} bytes"
                )
            if not ended and wanted.provider is not None:
                await self._renew(wanted.provider, stall_s, partial, max(deadline - time.monotonic(), 0.1))
        raise IpfsTimeoutError(
            f"{wanted.cid}: {len(partial.content)} bytes came within {timeout_s} s; last: {partial.problem}"
        )

    async def fetch_all(
        self,
        wanted: Sequence[Wanted],
        stall_s: float = STALL_S,
        timeout_s: float = TIMEOUT_S,
        at_once: int = AT_ONCE,
    ) -> list[bytes]:
        """All of them, in parallel and in order; the first that fails ends the others."""
        gate = asyncio.Semaphore(at_once)

        async def one(item: Wanted) -> bytes:
            async with gate:
                return await self.fetch(item, stall_s, timeout_s)

        tasks = [asyncio.create_task(one(item)) for item in wanted]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def fetch_block(self, cid: str, timeout_s: float = 30.0) -> bytes:
        """One block, of any codec, checked by its hash."""
        asked = Cid.parse(cid)
        block = await self._rpc.data("block/get", cid, max_bytes=MAX_BLOCK_BYTES, timeout_s=timeout_s)
        if Cid.of_block(asked.codec, block) != asked:
            raise UnverifiedError(f"block {cid} came with other bytes than its name says")
        return block

    async def _ask(self, wanted: Wanted, partial: _Partial, stall_s: float, left_s: float) -> bool:
        """Read on from where the content ends; False when it stalls or time is up."""
        reader = asyncio.create_task(self._read(wanted, partial, left_s))
        watch = _Watch(self._rpc, wanted.provider, partial, stall_s)
        try:
            while not reader.done():
                await asyncio.wait({reader}, timeout=stall_s / TICKS_PER_STALL)
                if not reader.done() and await watch.stalled():
                    partial.problem = f"no progress for {stall_s} s"
                    return False
            try:
                reader.result()
            except IpfsTimeoutError as err:  # of the whole fetch, which the caller's loop reports
                partial.problem = err.message
                return False
            return True
        finally:
            reader.cancel()
            with contextlib.suppress(asyncio.CancelledError, IpfsError):
                await reader

    async def _read(self, wanted: Wanted, partial: _Partial, left_s: float) -> None:
        offset = len(partial.content)
        options: dict[str, Any] = {"offset": offset} if offset else {}
        async with self._rpc.reply("cat", wanted.cid, timeout_s=left_s, **options) as response:
            if not offset:
                partial.announced_bytes = announced_bytes(response)
                if (partial.announced_bytes or 0) > wanted.bound_bytes:
                    raise TooLargeError(
                        f"{wanted.cid} has {partial.announced_bytes} bytes, {wanted.bound_bytes} allowed"
                    )
            async for piece in response.content.iter_any():
                if len(partial.content) + len(piece) > wanted.bound_bytes:
                    raise TooLargeError(f"{wanted.cid} has more than the {wanted.bound_bytes} bytes allowed")
                partial.content += piece
                partial.verifier.update(piece)

    @staticmethod
    def _complete(wanted: Wanted, partial: _Partial) -> bool:
        """Whether all has come; bytes that are complete but wrong are an error."""
        count = len(partial.content)
        if partial.announced_bytes is not None and count < partial.announced_bytes:
            return False  # cut short: the error stood in a trailer that no client shows
        if wanted.size_bytes is not None and count != wanted.size_bytes:
            raise UnverifiedError(f"{wanted.cid} has {count} bytes, {wanted.size_bytes} were named")
        if not partial.verifier.holds():
            raise UnverifiedError(f"{wanted.cid} came with other bytes than its name says")
        return True

    async def _renew(self, provider: Peer, stall_s: float, partial: _Partial, left_s: float) -> None:
        renewal = self._renewals.setdefault(provider.peer_id, _Renewal())
        try:
            await renewal.run(self._rpc, provider, stall_s, min(left_s, 2 * stall_s))
        except IpfsError as err:
            partial.problem = err.message  # the link may still be down; the next ask waits again


class _Watch:
    """Judges whether a running ask makes progress: bytes that we got, or bytes on the wire.

    A block arrives whole: over a slow link nothing reaches us for half a minute though all is
    well. Then what the daemon has received from the provider tells.
    """

    def __init__(self, rpc: Rpc, provider: Peer | None, partial: _Partial, stall_s: float) -> None:
        self._rpc, self._provider, self._partial, self._stall_s = rpc, provider, partial, stall_s
        self._seen_bytes = len(partial.content)
        self._wire_bytes: int | None = None
        self._progress_at = time.monotonic()

    async def stalled(self) -> bool:
        now = time.monotonic()
        if len(self._partial.content) > self._seen_bytes:
            self._seen_bytes, self._progress_at = len(self._partial.content), now
            return False
        wire_bytes = await self._received()
        if wire_bytes is not None:
            if self._wire_bytes is None:
                self._wire_bytes = wire_bytes
            elif wire_bytes - self._wire_bytes >= WIRE_PROGRESS_BYTES:
                self._wire_bytes, self._progress_at = wire_bytes, now
        return now - self._progress_at >= self._stall_s

    async def _received(self) -> int | None:
        if self._provider is None:
            return None
        try:
            totals = await self._rpc.value("stats/bw", peer=self._provider.peer_id, timeout_s=2.0)
        except IpfsError:
            return None
        return int(totals["TotalIn"])


class _Renewal:
    """Disconnect and connect, once for all fetches that stall on one peer together."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._began_at = -float("inf")

    async def run(self, rpc: Rpc, provider: Peer, pause_s: float, timeout_s: float) -> None:
        async with self._lock:
            if time.monotonic() - self._began_at < pause_s:
                return  # somebody has just done it: another would only tear the new connection
            self._began_at = time.monotonic()
            # All connections: a half-open one that stays behind would swallow the wants again.
            await rpc.call("swarm/disconnect", f"/p2p/{provider.peer_id}", timeout_s=timeout_s)
            await rpc.call("swarm/connect", provider.full_address, timeout_s=timeout_s)
