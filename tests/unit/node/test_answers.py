"""Whether parts answer on loopback, asked of real sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aiohttp import web
from aiohttp.test_utils import TestServer

from node.agent import Sources
from node.answers import answers
from tests.unit.node.test_agent import GIVEN, agent_of

BRIEF_S = 0.2


@contextmanager
def listener() -> Iterator[int]:
    """The kernel takes connections for it, as for a process that is stopped."""
    with socket.create_server(("127.0.0.1", 0)) as opened:
        yield opened.getsockname()[1]


def closed_port() -> int:
    with listener() as port:
        return port


async def _speak(_: web.Request) -> web.Response:
    return web.Response(status=404)


async def test_who_answers_who_is_silent_and_who_is_not_there() -> None:
    app = web.Application()
    app.router.add_get("/", _speak)
    async with TestServer(app) as server:
        assert server.port is not None
        with listener() as silent:
            ports = {"ipfs": server.port, "trainer": silent, "aggregator": closed_port()}
            told = await answers(ports, BRIEF_S)
    assert told == {"ipfs": "spoke", "trainer": "silent", "aggregator": "refused"}


async def test_who_hangs_up_without_a_word_does_not_answer() -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert await answers({"ipfs": port}, BRIEF_S) == {"ipfs": "refused"}


async def test_the_agent_asks_its_nodes_parts(tmp_path: Path) -> None:
    sources = Sources({"ipfs": f"http://127.0.0.1:{closed_port()}/debug/metrics/prometheus"})
    async with agent_of(tmp_path, sources) as client:
        async with client.get("/answers", headers=GIVEN) as reply:
            assert (reply.status, await reply.json()) == (200, {"ipfs": "refused"})
        async with client.get("/answers") as reply:
            assert reply.status == 401
