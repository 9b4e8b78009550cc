"""The daemon's RPC over aiohttp: the one way in which calls that ipfshttpclient cannot do are made."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Final

import aiohttp

from node.ipfs import commands
from node.ipfs.config import LOOPBACK
from node.ipfs.errors import IpfsError, IpfsTimeoutError, UnreachableError, UnverifiedError, from_message

GRACE_S: Final = 2.0  # our own patience beyond the timeout that the daemon was told
CONNECT_S: Final = 5.0
MAX_REPLY_BYTES: Final = 64 << 20
MAX_LINE_BYTES: Final = 4 << 20


class Rpc:
    """POST and GET to one daemon; every call is bounded and checked against the table."""

    def __init__(self, api_port: int, host: str = LOOPBACK) -> None:
        self.host = host
        self.api_port = api_port
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Rpc:
        # Proxies of the environment are ignored (aiohttp's default): the daemon is on loopback.
        connector = aiohttp.TCPConnector(limit=0)  # whoever calls in parallel bounds it himself
        self._session = aiohttp.ClientSession(f"http://{self.host}:{self.api_port}", connector=connector)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def call(
        self,
        command: str,
        *args: str,
        body: bytes | None = None,
        timeout_s: float = 30.0,
        **options: commands.Value,
    ) -> list[Any]:
        """The JSON values of a reply, which may be none."""
        async with self.reply(command, *args, body=body, timeout_s=timeout_s, **options) as response:
            data = await read_bounded(response, MAX_REPLY_BYTES)
        return parse_lines(command, data)

    async def value(
        self,
        command: str,
        *args: str,
        body: bytes | None = None,
        timeout_s: float = 30.0,
        **options: commands.Value,
    ) -> Any:
        """The one JSON value of a reply."""
        values = await self.call(command, *args, body=body, timeout_s=timeout_s, **options)
        if len(values) != 1:
            raise IpfsError(f"{command}: expected one JSON value, got {len(values)}")
        return values[0]

    async def data(
        self, command: str, *args: str, max_bytes: int, timeout_s: float, **options: commands.Value
    ) -> bytes:
        """The bytes of a reply, all of them and not beyond `max_bytes`."""
        async with self.reply(command, *args, body=None, timeout_s=timeout_s, **options) as response:
            return await read_bounded(response, max_bytes)

    async def lines(self, command: str, *args: str) -> AsyncIterator[Any]:
        """The JSON values of a reply without end, as they come."""
        async with self.reply(command, *args, timeout_s=None) as response:
            pending = bytearray()
            async for piece in response.content.iter_any():
                pending += piece
                while (end := pending.find(b"\n")) >= 0:
                    line, pending = bytes(pending[:end]), pending[end + 1 :]
                    for value in parse_lines(command, line):
                        yield value
                if len(pending) > MAX_LINE_BYTES:
                    raise UnverifiedError(f"{command}: a line of more than {MAX_LINE_BYTES} bytes")

    @contextlib.asynccontextmanager
    async def reply(
        self,
        command: str,
        *args: str,
        body: bytes | None = None,
        timeout_s: float | None,
        **options: commands.Value,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """A reply of status 200 whose body has not been read; errors while reading are mapped as well."""
        query = commands.query(command, args, options, timeout_s)
        total_s = None if timeout_s is None else timeout_s + GRACE_S
        timeout = aiohttp.ClientTimeout(total=total_s, sock_connect=CONNECT_S)
        form = None
        if body is not None:
            form = aiohttp.FormData(default_to_multipart=True)
            # As a file: of plain bytes beyond 1 MiB aiohttp warns that writing them holds up the loop.
            content = io.BytesIO(body)
            form.add_field("file", content, filename="data", content_type="application/octet-stream")
        with mapped_errors(command, timeout_s):
            async with self._open.post(
                f"/api/v0/{command}", params=query, data=form, timeout=timeout
            ) as response:
                if response.status != 200:
                    raise error_of(command, response.status, await read_bounded(response, 1 << 16))
                yield response

    async def get(self, path: str, timeout_s: float = 10.0) -> bytes:
        """A page that is no command, such as the metrics."""
        timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=CONNECT_S)
        with mapped_errors(path, timeout_s):
            async with self._open.get(path, timeout=timeout) as response:
                data = await read_bounded(response, MAX_REPLY_BYTES)
                if response.status != 200:
                    raise error_of(path, response.status, data)
                return data

    @property
    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise IpfsError("the client is not open", "use it in `async with`")
        return self._session


@contextlib.contextmanager
def mapped_errors(what: str, timeout_s: float | None) -> Any:
    """aiohttp's errors as ours."""
    try:
        yield
    except TimeoutError as err:
        raise IpfsTimeoutError(f"{what}: no answer within {timeout_s} s") from err
    except aiohttp.ClientConnectorError as err:
        raise UnreachableError(f"{what}: no daemon answers: {err}") from err
    except aiohttp.ClientPayloadError as err:
        raise UnverifiedError(f"{what}: the reply broke off: {err}") from err
    except (aiohttp.ClientError, OSError) as err:
        raise UnreachableError(f"{what}: {type(err).__name__}: {err}") from err


def error_of(command: str, status: int, data: bytes) -> IpfsError:
    """Kubo's error JSON, or the plain text that it sends when it did not even begin."""
    text = data.decode(errors="replace").strip()
    try:
        parsed = json.loads(text)
    except ValueError:
        parsed = None
    message = parsed.get("Message") if isinstance(parsed, dict) else None
    if isinstance(message, str) and message:
        return from_message(f"{command}: {message}")
    return IpfsError(f"{command}: HTTP {status}: {text[:300]}")


def announced_bytes(response: aiohttp.ClientResponse) -> int | None:
    """What X-Content-Length claims the whole body to be."""
    text = response.headers.get("X-Content-Length", "")
    return int(text) if text.isdecimal() else None


async def read_bounded(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    """The whole body; more than `max_bytes`, or less than announced, is an error.

    The daemon reports a failure in mid-stream in a trailer, which no client shows: the status is
    200 and the body short, so its length must be compared.
    """
    out = bytearray()
    async for piece in response.content.iter_any():
        out += piece
        if len(out) > max_bytes:
            raise UnverifiedError(f"a reply of more than {max_bytes} bytes")
    announced = announced_bytes(response)
    if announced is not None and response.status == 200 and len(out) != announced:
        raise UnverifiedError(f"the reply ended after {len(out)} of {announced} bytes")
    return bytes(out)


def parse_lines(command: str, data: bytes) -> list[Any]:
    try:
        return [json.loads(line) for line in data.splitlines() if line.strip()]
    except ValueError as err:
        raise UnverifiedError(f"{command}: the reply is no JSON: {data[:100]!r}") from err
