"""HTTP between trainers and aggregator over the daemons' tunnel: both of its ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Container, Mapping
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
CALL_S: Final = LONG_POLL_S + 10.0
SEND_S: Final = 150.0
DIAL_S: Final = 5.0
PAUSES_S: Final = (0.05, 0.1, 0.2, 0.5)  # a heal may come in any of them
PULSE_S: Final = 1.0  # an answer that is held back shows at this interval that it is still to come
SILENT_S: Final = 2.5  # without a pulse; then somebody may be cut off, or the link be busy


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
                ready = _ready(body)
                if ready is None:
                    return web.Response(status=400, text='expected {"ready": true or false}')
                asked = asyncio.create_task(self._desk.work(peer_id, ready))
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
    """A trainer's calls; the tunnel is made anew whenever a call did not get through.

    Whether a connection is dead is for the daemon and the kernel to say. A call that is only silent is left
    as it is, for the link may be busy; a short one beside it is answered as soon as anything is.
    """

    def __init__(
        self,
        ipfs: Client,
        aggregator: Peer,
        patience_s: float = math.inf,
        answered: Callable[[str, float], None] = lambda *_: None,
    ) -> None:
        """`answered` hears of each answer that came after a silence, and how long that was."""
        self._ipfs = ipfs
        self._aggregator = aggregator
        self._patience_s = patience_s
        self._answered = answered
        self._port: int | None = None
        self._session: aiohttp.ClientSession | None = None
        self._heard_s = 0.0  # when a byte came last, or the first call of several was made
        self._silent_since_s: float | None = None
        self.repeated = 0  # calls that had to be made again

    async def __aenter__(self) -> Control:
        self._session = aiohttp.ClientSession()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def work(self, *, ready: bool) -> Work:
        answer, was_silent = await self._post("/v1/work", {"ready": ready}, CALL_S)
        if was_silent:  # it may have been on its way for long, and be of a round that is over
            answer, _ = await self._post("/v1/work", {"ready": ready}, CALL_S)
        return from_json(Work, answer)

    async def send(self, signed: Signed) -> Answer:
        """The answer; `replayed` after a call that broke off means that it had been taken."""
        before = self.repeated
        answer = from_json(Answer, (await self._post("/v1/update", to_json(signed), SEND_S))[0])
        if answer.reason == "replayed" and self.repeated > before:
            return Answer(accepted=True, detail="known already")
        return answer

    async def _post(self, path: str, body: Mapping[str, Any], timeout_s: float) -> tuple[Any, bool]:
        """The answer, and whether the last try was silent before it came."""
        self._heard_s = time.monotonic()
        deadline = self._heard_s + self._patience_s
        looking = asyncio.create_task(self._look())
        try:
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
                self._fall_silent()
                self.repeated += 1
                await asyncio.sleep(PAUSES_S[min(tries, len(PAUSES_S) - 1)])
                tries += 1
                await self._reconnect()
        finally:
            looking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await looking

    async def _try(self, path: str, body: Mapping[str, Any], timeout_s: float) -> tuple[Any, bool]:
        if self._port is None:
            self._port = await self._ipfs.forward(PROTOCOL, self._aggregator.peer_id)
        began_s = time.monotonic()
        data, was_silent = await self._exchange(self._port, path, body, timeout_s)
        try:
            return json.loads(data), was_silent
        except ValueError as err:
            raise ValueError(f"no answer after {time.monotonic() - began_s:.1f} s") from err

    async def _exchange(
        self, port: int, path: str, body: Mapping[str, Any], timeout_s: float
    ) -> tuple[bytes, bool]:
        """What is answered to one request, and whether that was silent for a while."""
        assert self._session is not None, "use it in `async with`"
        url = f"http://{LOOPBACK}:{port}{path}"
        heard_s, was_silent = time.monotonic(), False
        data = bytearray()
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        async with self._session.post(url, json=body, timeout=timeout) as response:
            async for piece in response.content.iter_any():
                was_silent |= time.monotonic() - heard_s >= SILENT_S
                self._heard_s = heard_s = time.monotonic()
                if len(data) < MAX_REPLY_BYTES:
                    data += piece
            self._hear(path)
            if response.status != 200:
                raise ValueError(f"HTTP {response.status}: {data[:200].decode(errors='replace')}")
            return bytes(data), was_silent

    async def _look(self) -> None:
        """While a call is made: when nothing comes for a while, ask whether anything is answered."""
        while True:
            await asyncio.sleep(max(PAUSES_S[0], self._heard_s + SILENT_S - time.monotonic()))
            if time.monotonic() - self._heard_s < SILENT_S:
                continue
            self._fall_silent()
            if self._port is not None:
                with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError, ValueError):
                    await self._exchange(self._port, "/v1/hello", {}, CALL_S)
                    continue
            await asyncio.sleep(PAUSES_S[-1])  # the call itself sees to the tunnel

    def _fall_silent(self) -> None:
        if self._silent_since_s is None:
            self._silent_since_s = self._heard_s

    def _hear(self, path: str) -> None:
        """A request was answered."""
        self._heard_s = time.monotonic()
        if self._silent_since_s is not None:
            silent_s, self._silent_since_s = self._heard_s - self._silent_since_s, None
            self._answered(path, silent_s)

    async def _reconnect(self) -> None:
        """Forget the tunnel, which a restarted daemon has forgotten too, and dial."""
        self._port = None
        with contextlib.suppress(IpfsError):
            await self._ipfs.close_tunnels(PROTOCOL)
        with contextlib.suppress(IpfsError):
            await self._ipfs.connect(self._aggregator, timeout_s=DIAL_S)
