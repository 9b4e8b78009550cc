"""One member of the demonstration swarm; lines of JSON on standard input and output.

    python -m node.ipfs.exercise

Starts a daemon, adds an object of its own, fetches everybody else's, opens a tunnel to each and
echoes through it. What it is told: a first line (name, engine, transport, data_address,
swarm_key, folder, object_bytes), then {"peers": […]}, then {"objects": […]}. What it says: events
ready, added, fetched, tunnelled, done, and failed with message and hint. At the end of its input
it stops the daemon and exits.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
import sys
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

from node.contract import ExitCode, HostError, ShoalError, UsageError
from node.ipfs import engine as engines
from node.ipfs.asker import AskerRelay
from node.ipfs.client import Client
from node.ipfs.config import LOOPBACK, Peer, Settings
from node.ipfs.daemon import Daemon
from node.ipfs.dialler import Dialler
from node.ipfs.errors import IpfsError, UnverifiedError

ECHO: Final = "/x/shoal/echo/1"
ECHO_BYTES: Final = 200
MAX_LINE_BYTES: Final = 1 << 20
LONGEST_FETCH_S: Final = 60.0
CONNECT_S: Final = 30.0
TUNNEL_S: Final = 30.0


class Member:
    """What one member does, step by step."""

    def __init__(self, order: Mapping[str, Any]) -> None:
        self.name = _take(order, "name", str)
        self.object = deterministic_bytes(self.name, _take(order, "object_bytes", int))
        folder = Path(_take(order, "folder", str))
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as err:
            raise HostError(f"cannot make the folder {folder}: {err.strerror}") from err
        self.settings = Settings(
            data_address=_take(order, "data_address", str), transport=_take(order, "transport", str)
        )
        engine = engines.find(_take(order, "engine", str))
        self.daemon = Daemon(engine, folder, self.settings, _take(order, "swarm_key", str))
        self.peer_id = ""
        self.client = Client(self.settings.api_port)
        self.allowed: set[str] = set()
        self.background: list[asyncio.Task[None]] = []

    async def start(self) -> dict[str, Any]:
        self.peer_id = self.daemon.prepare()
        began = time.monotonic()
        self.daemon.start()  # in the main thread, with which the daemon ends
        await asyncio.to_thread(self.daemon.wait_ready)
        return {
            "event": "ready",
            "engine": self.daemon.engine.name,
            "version": self.daemon.engine.version,
            "peer_id": self.peer_id,
            "address": Peer(self.peer_id, self.settings.swarm_address).full_address,
            "start_ms": _since_ms(began),
        }

    async def join(self, peers: list[Peer], relay: AskerRelay) -> None:
        """Connect to everybody and let everybody ask."""
        self.allowed.update(peer.peer_id for peer in peers)
        await self.client.listen(ECHO, relay.port)
        await asyncio.gather(*(self._connect(peer) for peer in peers))
        if self.daemon.engine.capabilities.needs_dialler:
            self.background.append(asyncio.create_task(Dialler(self.client, peers).run()))

    async def _connect(self, peer: Peer) -> None:
        await self.client.keep_connected(peer)
        await self.client.connect(peer, timeout_s=CONNECT_S)

    async def add(self) -> dict[str, Any]:
        began = time.monotonic()
        cid = await self.client.add(self.object, pin=True)
        return {"event": "added", "cid": cid, "size_bytes": len(self.object), "add_ms": _since_ms(began)}

    async def fetch(self, told: Mapping[str, Any]) -> dict[str, Any]:
        began = time.monotonic()
        cid, size_bytes = _take(told, "cid", str), _take(told, "size_bytes", int)
        await self.client.fetch(
            cid, max_bytes=size_bytes, size_bytes=size_bytes, provider=_peer(told), timeout_s=LONGEST_FETCH_S
        )
        taken_ms = _since_ms(began)
        return {
            "event": "fetched",
            "name": told["name"],
            "cid": cid,
            "size_bytes": size_bytes,
            "ms": taken_ms,
        }

    async def tunnel(self, told: Mapping[str, Any]) -> dict[str, Any]:
        """Echo random bytes; the far end prefixes them with who it took us for."""
        port = await self.client.forward(ECHO, _peer(told).peer_id)
        sent = secrets.token_bytes(ECHO_BYTES)
        expected = self.peer_id.encode() + b"\n" + sent
        began = time.monotonic()
        try:
            async with asyncio.timeout(TUNNEL_S):
                got = await _exchange(port, sent, len(expected))
        except (OSError, asyncio.IncompleteReadError) as err:  # a timeout is an OSError too
            raise IpfsError(f"the tunnel to {told['name']} broke: {err!r}") from err
        taken_ms = _since_ms(began)
        if got != expected:
            raise UnverifiedError(f"the tunnel to {told['name']} gave back other bytes, or another asker")
        return {"event": "tunnelled", "name": told["name"], "round_trip_ms": taken_ms, "asker_verified": True}

    async def done(self) -> dict[str, Any]:
        bitswap, metrics = await self.client.bitswap(), await self.client.metrics()
        return {
            "event": "done",
            "bytes_received": bitswap["DataReceived"],
            "duplicate_bytes": bitswap["DupDataReceived"],
            "resident_bytes": int(metrics["process_resident_memory_bytes"]),
        }

    async def leave(self) -> None:
        for task in self.background:
            task.cancel()
        await asyncio.gather(*self.background, return_exceptions=True)

    async def stop(self) -> None:
        if self.daemon.process is not None:
            await asyncio.to_thread(self.daemon.stop)


async def echo(asker: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say who asks, then give back whatever comes."""
    writer.write(asker.encode() + b"\n")
    while piece := await reader.read(1 << 16):
        writer.write(piece)
        await writer.drain()


async def _exchange(port: int, sent: bytes, count: int) -> bytes:
    """Send on a new connection, read so many bytes, close."""
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    try:
        writer.write(sent)
        await writer.drain()
        return await reader.readexactly(count)
    finally:
        writer.close()


async def exercise(lines: asyncio.StreamReader) -> None:
    """The whole protocol; the end of the input ends it at any point."""
    told: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    work = asyncio.create_task(_work(told))
    pump = asyncio.create_task(_pump(lines, told))
    try:
        await asyncio.wait({work, pump}, return_when=asyncio.FIRST_COMPLETED)
        (work if work.done() else pump).result()
    finally:
        work.cancel()
        pump.cancel()
        await asyncio.gather(work, pump, return_exceptions=True)


async def _work(told: asyncio.Queue[dict[str, Any]]) -> None:
    member = Member(await told.get())
    async with AsyncExitStack() as stack:
        stack.push_async_callback(member.stop)
        _say(await member.start())
        await stack.enter_async_context(member.client)
        stack.push_async_callback(member.leave)
        relay = await stack.enter_async_context(AskerRelay(member.allowed, echo))
        await member.join([_peer(peer) for peer in _take(await told.get(), "peers", list)], relay)
        _say(await member.add())
        objects = _take(await told.get(), "objects", list)
        for step in (member.fetch, member.tunnel):
            await _say_each([asyncio.create_task(step(other)) for other in objects])
        _say(await member.done())
        await told.get()
        raise UsageError("nothing more was expected after done", "close the input")


async def _say_each(tasks: list[asyncio.Task[dict[str, Any]]]) -> None:
    """Say each result as it comes; the first failure ends the others."""
    try:
        for task in asyncio.as_completed(tasks):
            _say(await task)
    finally:
        for left in tasks:
            left.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pump(lines: asyncio.StreamReader, told: asyncio.Queue[dict[str, Any]]) -> None:
    """Hand on the input's objects until it ends."""
    while True:
        try:
            line = await lines.readline()
            if not line:
                return
            value = json.loads(line)
        except ValueError as err:
            raise UsageError(f"standard input: {err}", "one JSON object in each line") from err
        if not isinstance(value, dict):
            raise UsageError(f"standard input: no object: {line[:80]!r}", "one JSON object in each line")
        told.put_nowait(value)


def deterministic_bytes(name: str, count: int) -> bytes:
    """The object of a member: its name alone decides it."""
    return hashlib.shake_128(f"shoal object of {name}".encode()).digest(count)


def _take(source: Mapping[str, Any], key: str, kind: type) -> Any:
    value = source.get(key)
    if not isinstance(value, kind):
        raise UsageError(f"standard input: key {key} must be there, of type {kind.__name__}")
    return value


def _peer(told: Any) -> Peer:
    return Peer(_take(told, "peer_id", str), _take(told, "address", str))


def _say(event: Mapping[str, Any]) -> None:
    print(json.dumps(event), flush=True)


def _since_ms(began: float) -> float:
    return round((time.monotonic() - began) * 1000, 2)


async def _main() -> None:
    lines = asyncio.StreamReader(limit=MAX_LINE_BYTES)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    try:
        await exercise(lines)
    finally:
        transport.close()


def main() -> int:
    if sys.argv[1:]:
        print(__doc__)
        return int(ExitCode.HELD if sys.argv[1:] == ["--help"] else ExitCode.USAGE)
    try:
        asyncio.run(_main())
    except ShoalError as err:
        _say({"event": "failed", "message": err.message, "hint": err.hint})
        return int(err.exit_code)
    except KeyboardInterrupt:
        return 130
    return int(ExitCode.HELD)


if __name__ == "__main__":
    sys.exit(main())
