"""HTTP between trainers and aggregator over the daemons' tunnel: both of its ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Container, Mapping
from typing import Any, Final, Protocol

import aiohttp
from aiohttp import web

from node.contract import ShoalError
from node.contract.messages import LONG_POLL_S, MAX_MANIFEST_BYTES, Answer, Signed, Work
from node.contract.schema import from_json, to_json
from node.contract.settings import PROTOCOL
from node.ipfs.asker import AskerRelay
from node.ipfs.client import Client
from node.ipfs.config import LOOPBACK, Peer
from node.ipfs.errors import IpfsError

MAX_BODY_BYTES: Final = 2 * MAX_MANIFEST_BYTES  # manifest, signature and what is around them
MAX_REPLY_BYTES: Final = 1 << 16
MAX_OPEN: Final = 8  # connections of one member at a time
PIECE_BYTES: Final = 1 << 16
LISTEN_S: Final = 1.0  # how often the listener is made sure of
PATIENCE_S: Final = 300.0  # how long the aggregator may be away
CALL_S: Final = LONG_POLL_S + 10.0
SEND_S: Final = 150.0
PAUSES_S: Final = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)


class Desk(Protocol):
    """What answers members; peer IDs are those that the connection has proved."""

    async def work(self, peer_id: str, ready: bool) -> Work: ...

    async def update(self, peer_id: str, body: bytes) -> Answer: ...

    def stranger(self, peer_id: str) -> None: ...


class _Everybody:
    """Lets the relay pass on every proved peer ID, since a stranger is to be recorded before he is closed."""

    def __contains__(self, peer_id: object) -> bool:
        return True


class ControlServer:
    """aiohttp behind the relay that knows who asks; `open()` it before trainers ask."""

    def __init__(self, ipfs: Client, members: Container[str], desk: Desk) -> None:
        self._ipfs = ipfs
        self._members = members
        self._desk = desk
        self._http = web.Server(self._answer, access_log=None)
        self._askers: dict[object, str] = {}  # protocol of a connection → who is at its other end
        self._open: Counter[str] = Counter()

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        async with AskerRelay(_Everybody(), self._serve) as relay:
            await self._ipfs.close_tunnels(PROTOCOL)  # one of an earlier life leads nowhere
            await self._ipfs.listen(PROTOCOL, relay.port)
            keeper = asyncio.create_task(self._keep_listening(relay.port))
            try:
                yield
            finally:
                keeper.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await keeper
                with contextlib.suppress(IpfsError):  # the daemon may be gone before us
                    await self._ipfs.close_tunnels(PROTOCOL)
                await self._http.shutdown(1.0)

    async def _keep_listening(self, port: int) -> None:
        """A daemon that was restarted has forgotten the listener; only asking for it again tells."""
        while True:
            await asyncio.sleep(LISTEN_S)
            with contextlib.suppress(IpfsError):  # `already registered` mostly, or the daemon is away
                await self._ipfs.listen(PROTOCOL, port)

    async def _serve(self, peer_id: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection; aiohttp's protocol is fed by hand, for the relay has read the beginning."""
        if peer_id not in self._members:
            self._desk.stranger(peer_id)
            return
        if self._open[peer_id] >= MAX_OPEN:
            return
        protocol = self._http()
        self._open[peer_id] += 1
        self._askers[protocol] = peer_id
        protocol.connection_made(writer.transport)
        try:
            while data := await reader.read(PIECE_BYTES):
                protocol.data_received(data)
            protocol.eof_received()
        finally:
            protocol.connection_lost(None)
            del self._askers[protocol]
            self._open[peer_id] -= 1

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        peer_id = self._askers.get(request.protocol)
        if peer_id is None:  # the connection has broken off
            return web.Response(status=403)
        body = await _bounded(request.content, MAX_BODY_BYTES)
        try:
            if (request.method, request.path) == ("POST", "/v1/update"):
                # What is too long is handed on as it came so far: it is refused, and that recorded.
                return web.json_response(to_json(await self._desk.update(peer_id, body)))
            if (request.method, request.path) != ("POST", "/v1/work"):
                return web.Response(status=404, text="known are POST /v1/work and POST /v1/update")
            ready = _ready(body)
            if ready is None:
                return web.Response(status=400, text='expected {"ready": true or false}')
            return web.json_response(to_json(await self._desk.work(peer_id, ready)))
        except ShoalError as err:
            return web.Response(status=503, text=err.message)  # no fault of the asker's


def _ready(body: bytes) -> bool | None:
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        return None
    ready = data.get("ready") if isinstance(data, dict) else None
    return ready if isinstance(ready, bool) else None


async def _bounded(content: aiohttp.StreamReader, max_bytes: int) -> bytes:
    """The body, or as much of it as says that it is longer than allowed."""
    body = bytearray()
    async for piece in content.iter_any():
        body += piece
        if len(body) > max_bytes:
            break
    return bytes(body[: max_bytes + 1])


class UnansweredError(ShoalError):
    """The aggregator was away for longer than we are willing to wait."""


class Control:
    """A trainer's calls; the tunnel is made anew whenever a call did not get through."""

    def __init__(self, ipfs: Client, aggregator: Peer, patience_s: float = PATIENCE_S) -> None:
        self._ipfs = ipfs
        self._aggregator = aggregator
        self._patience_s = patience_s
        self._port: int | None = None
        self._session: aiohttp.ClientSession | None = None
        self.repeated = 0  # calls that had to be made again

    async def __aenter__(self) -> Control:
        self._session = aiohttp.ClientSession()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def work(self, *, ready: bool) -> Work:
        return from_json(Work, await self._post("/v1/work", {"ready": ready}, CALL_S))

    async def send(self, signed: Signed) -> Answer:
        """The answer; `replayed` after a call that broke off means that it had been taken."""
        before = self.repeated
        answer = from_json(Answer, await self._post("/v1/update", to_json(signed), SEND_S))
        if answer.reason == "replayed" and self.repeated > before:
            return Answer(accepted=True, detail="known already")
        return answer

    async def _post(self, path: str, body: Mapping[str, Any], timeout_s: float) -> Any:
        deadline = time.monotonic() + self._patience_s
        tries = 0
        while True:
            try:
                return await self._try(path, body, timeout_s)
            except (aiohttp.ClientError, TimeoutError, OSError, IpfsError, ValueError) as err:
                last = f"{type(err).__name__}: {err}"
            if time.monotonic() >= deadline:
                raise UnansweredError(
                    f"the aggregator did not answer for {self._patience_s:g} s; last: {last}",
                    "see the aggregator's log",
                )
            self.repeated += 1
            await asyncio.sleep(PAUSES_S[min(tries, len(PAUSES_S) - 1)])
            tries += 1
            await self._reconnect()

    async def _try(self, path: str, body: Mapping[str, Any], timeout_s: float) -> Any:
        assert self._session is not None, "use it in `async with`"
        if self._port is None:
            self._port = await self._ipfs.forward(PROTOCOL, self._aggregator.peer_id)
        url = f"http://{LOOPBACK}:{self._port}{path}"
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        async with self._session.post(url, json=body, timeout=timeout) as response:
            data = await _bounded(response.content, MAX_REPLY_BYTES)
            if response.status != 200:
                raise ValueError(f"HTTP {response.status}: {data[:200].decode(errors='replace')}")
            return json.loads(data)

    async def _reconnect(self) -> None:
        """Forget the tunnel, which a restarted daemon has forgotten too, and dial."""
        self._port = None
        with contextlib.suppress(IpfsError):
            await self._ipfs.close_tunnels(PROTOCOL)
        with contextlib.suppress(IpfsError):
            await self._ipfs.connect(self._aggregator, timeout_s=5.0)
