"""The near end of a tunnel: learns who asks, turns strangers away, hands the rest to a handler.

The daemon proves the asker's identity by the connection's handshake and writes it as the first
line of each connection (p2p/listen with report-peer-id). Any process that can reach our port
could write such a line itself, so the port is on loopback, in a node that is ours alone.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Container
from types import TracebackType
from typing import Final

from node.ipfs.config import LOOPBACK
from node.ipfs.peer_id import is_peer_id

LINE_S: Final = 5.0
BUFFER_BYTES: Final = 1 << 16  # also the longest line that is read

Handler = Callable[[str, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class AskerRelay:
    """A loopback server for `listen`; `allowed` may grow while it runs.

    `handle` gets the asker's peer ID, reader and writer; the connection is closed when it returns.
    """

    def __init__(self, allowed: Container[str], handle: Handler) -> None:
        self._allowed = allowed
        self._handle = handle
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()
        self.refused: Counter[str] = Counter()  # by reason

    async def __aenter__(self) -> AskerRelay:
        self._server = await asyncio.start_server(self._serve, LOOPBACK, 0, limit=BUFFER_BYTES)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    @property
    def port(self) -> int:
        """The target port to give to `listen`."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            asker = await self._asker(reader)
            if asker is not None:
                await self._handle(asker, reader, writer)
        except asyncio.CancelledError:
            pass  # closing: the end of this task is what was asked for
        except OSError:
            self.refused["broke off"] += 1
        finally:
            self._open.discard(task)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _asker(self, reader: asyncio.StreamReader) -> str | None:
        """The peer ID in the first line when its owner may come in; else nothing."""
        try:
            async with asyncio.timeout(LINE_S):
                line = await reader.readuntil(b"\n")  # bounded by the reader's own limit
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            self.refused["no line"] += 1
            return None
        asker = line[:-1].decode("ascii", errors="replace")
        reason = "no peer ID" if not is_peer_id(asker) else "stranger" if asker not in self._allowed else None
        if reason is not None:
            self.refused[reason] += 1
            return None
        return asker
