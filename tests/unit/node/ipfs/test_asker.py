from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from node.ipfs import asker
from node.ipfs.asker import AskerRelay
from tests.unit.node.ipfs.fake_rpc import ME, OTHER

HELLO = f"{OTHER}\n".encode()


async def answer(peer_id: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say who asked and give back what came."""
    writer.write(f"{peer_id} said ".encode() + await reader.read(100))
    await writer.drain()


@asynccontextmanager
async def connected(relay: AskerRelay) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def reply(relay: AskerRelay, sent: bytes, eof: bool = False) -> bytes:
    """Everything the relay says until it closes."""
    async with connected(relay) as (reader, writer):
        writer.write(sent)
        if eof:
            writer.write_eof()
        try:
            return await reader.read(-1)
        except ConnectionResetError:
            return b""  # closed with our bytes unread: a refusal too


async def test_the_asker_is_known_and_the_rest_untouched() -> None:
    async with AskerRelay({OTHER}, answer) as relay:
        assert await reply(relay, HELLO + b"POST /round") == f"{OTHER} said POST /round".encode()
        assert not relay.refused


async def test_the_line_may_come_in_pieces() -> None:
    async with AskerRelay({OTHER}, answer) as relay, connected(relay) as (reader, writer):
        for byte in HELLO:
            writer.write(bytes([byte]))
            await writer.drain()
        writer.write(b"x")
        assert await reader.read(-1) == f"{OTHER} said x".encode()


async def test_strangers_are_closed_until_they_are_allowed() -> None:
    allowed = {ME}
    async with AskerRelay(allowed, answer) as relay:
        assert await reply(relay, HELLO + b"x") == b""
        assert relay.refused == {"stranger": 1}
        allowed.add(OTHER)
        assert await reply(relay, HELLO + b"x") != b""


@pytest.mark.parametrize(
    "line", [b"\n", b"me\n", HELLO.lower(), b" " + HELLO, HELLO[:-1] + b"\r\n", b"\xff" * 52 + b"\n"]
)
async def test_what_is_no_peer_id_is_closed(line: bytes) -> None:
    async with AskerRelay({OTHER, "me", ""}, answer) as relay:
        assert await reply(relay, line + b"x") == b""
        assert relay.refused == {"no peer ID": 1}


async def test_a_line_without_end_is_closed() -> None:
    async with AskerRelay({OTHER}, answer) as relay:
        assert await reply(relay, b"1" * (2 * asker.BUFFER_BYTES)) == b""
        assert relay.refused == {"no line": 1}


async def test_an_end_before_the_line_is_closed() -> None:
    async with AskerRelay({OTHER}, answer) as relay:
        assert await reply(relay, HELLO[:-1], eof=True) == b""
        assert relay.refused == {"no line": 1}


async def test_silence_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asker, "LINE_S", 0.1)
    async with AskerRelay({OTHER}, answer) as relay:
        assert await reply(relay, b"") == b""
        assert relay.refused == {"no line": 1}


async def test_one_bad_asker_disturbs_no_other() -> None:
    async with AskerRelay({OTHER}, answer) as relay, connected(relay) as (_, silent):
        silent.write(b"12D3")
        replies = await asyncio.gather(*(reply(relay, HELLO + b"%d" % n) for n in range(50)))
        assert replies == [f"{OTHER} said {n}".encode() for n in range(50)]


async def test_leaving_ends_what_is_open() -> None:
    begun = asyncio.Event()

    async def forever(peer_id: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        begun.set()
        await asyncio.Event().wait()

    async with AskerRelay({OTHER}, forever) as relay:
        asked = asyncio.create_task(reply(relay, HELLO))
        await begun.wait()
    assert await asked == b""


@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.binary(max_size=200))
def test_no_first_line_gets_in_or_breaks_it(garbage: bytes) -> None:
    async def scenario() -> None:
        async with AskerRelay({OTHER}, answer) as relay:
            assert await reply(relay, garbage, eof=True) == b""
            assert relay.refused.total() == 1
            assert await reply(relay, HELLO + b"x") != b""

    asyncio.run(scenario())
