"""HTTP between trainers and aggregator over the daemons' tunnel: the aggregator's end."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Container
from typing import Final, Protocol

import aiohttp
from aiohttp import web

from node.contract import ShoalError
from node.contract.messages import MAX_MANIFEST_BYTES, Answer, Work
from node.contract.schema import to_json
from node.contract.settings import PROTOCOL
from node.ipfs.asker import AskerRelay
from node.ipfs.client import Client
from node.ipfs.errors import IpfsError

MAX_BODY_BYTES: Final = 2 * MAX_MANIFEST_BYTES  # manifest, signature and what is around them
MAX_OPEN: Final = 8  # connections of one member at a time
PIECE_BYTES: Final = 1 << 16
LISTEN_S: Final = 1.0  # how often the listener is made sure of
PULSE_S: Final = 1.0  # an answer that is held back shows at this interval that it is still to come


class Desk(Protocol):
    """What answers members; peer IDs are those that the connection has proved."""

    async def work(self, peer_id: str, ready: bool, has: str = "") -> Work: ...

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
        self._taking: set[asyncio.Task[Answer]] = set()  # goes on without whoever has gone

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
        match (request.method, request.path):
            case ("POST", "/v1/hello"):
                return web.json_response({})
            case ("POST", "/v1/update"):
                # What is too long is handed on as it came so far: it is refused, and that recorded.
                taking = asyncio.create_task(self._desk.update(peer_id, body))
                self._taking.add(taking)
                taking.add_done_callback(self._taken)
                return await _held(request, taking)
            case ("POST", "/v1/work"):
                question = _question(body)
                if question is None:
                    return web.Response(status=400, text='expected {"ready": true or false, "has": a CID}')
                asked = asyncio.create_task(self._desk.work(peer_id, *question))
                try:
                    return await _held(request, asked)
                finally:
                    asked.cancel()  # who has gone hears nothing any more
            case _:
                known = "known are POST /v1/work, POST /v1/update and POST /v1/hello"
                return web.Response(status=404, text=known)

    def _taken(self, taking: asyncio.Task[Answer]) -> None:
        self._taking.discard(taking)
        if not taking.cancelled():
            taking.exception()  # nobody may be left to be told of it


async def _held(
    request: web.BaseRequest, answer: asyncio.Task[Work] | asyncio.Task[Answer]
) -> web.StreamResponse:
    """The answer as JSON when it is there; blanks before it, while it is not."""
    response: web.StreamResponse | None = None
    while not (await asyncio.wait({answer}, timeout=PULSE_S))[0]:
        if response is None:
            response = web.StreamResponse(headers={"Content-Type": "application/json"})
            await response.prepare(request)
        await response.write(b" ")
    try:
        text, status = json.dumps(to_json(answer.result())), 200
    except ShoalError as err:  # no fault of the asker's
        text, status = err.message, 503
    if response is None:
        return web.Response(status=status, text=text, content_type="application/json")
    if status == 200:  # else there is no answer behind the blanks, and that is no JSON
        await response.write(text.encode())
    await response.write_eof()
    return response


def _question(body: bytes) -> tuple[bool, str] | None:
    """Whether the asker is ready, and which model it has."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        return None
    match data:
        case {"ready": bool(ready), "has": str(has)}:
            return ready, has
        case {"ready": bool(ready), **others} if "has" not in others:
            return ready, ""
        case _:
            return None


async def _bounded(content: aiohttp.StreamReader, max_bytes: int) -> bytes:
    """The body, or as much of it as says that it is longer than allowed."""
    body = bytearray()
    async for piece in content.iter_any():
        body += piece
        if len(body) > max_bytes:
            break
    return bytes(body[: max_bytes + 1])
