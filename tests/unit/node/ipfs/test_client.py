from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web

from node.contract import ShoalError
from node.ipfs import library, rpc
from node.ipfs.client import Client, Message, from_multibase, multibase
from node.ipfs.config import Peer
from node.ipfs.errors import IpfsError, IpfsTimeoutError, UnreachableError, UnverifiedError
from tests.unit.node.ipfs.fake_rpc import ME, OTHER, FakeDaemon, fake_daemon

Call = Callable[[Client], Awaitable[object]]
BOTH_WAYS: list[Call] = [
    lambda client: client.version(),
    lambda client: client.topics(),
]  # the library, and aiohttp


async def test_add_gives_the_cid_and_pins_when_told() -> None:
    async with fake_daemon() as fake, Client(fake.port) as client:
        data = bytes(3 << 20)
        cid = await client.add(data)
        assert fake.files == {cid: data}
        assert await client.pins() == set()
        assert await client.add(data, pin=True) == cid
        assert await client.pins() == {cid}


async def test_a_cid_that_we_compute_otherwise_is_refused() -> None:
    async with fake_daemon() as fake, Client(fake.port) as client:

        async def wrong(request: web.Request) -> web.Response:
            return web.json_response({"Name": "", "Hash": fake.add(b"other"), "Size": "5"})

        fake.overrides["add"] = wrong
        with pytest.raises(UnverifiedError, match="the daemon calls the file"):
            await client.add(b"mine")


async def test_the_node() -> None:
    async with fake_daemon() as fake, Client(fake.port) as client:
        assert (await client.version(), await client.peer_id()) == ("0.43.1", ME)
        fake.connected.add(OTHER)
        assert await client.ping(OTHER) == 0.0025  # neither the first row nor the average
        assert await client.metrics() == {"a": 5.0, "b": 1500.0}
        await client.shutdown()
        assert fake.called("shutdown") == ["shutdown"]


async def test_a_ping_without_echo_is_an_error() -> None:
    async with fake_daemon() as fake, Client(fake.port) as client:

        async def silent(request: web.Request) -> web.Response:
            return web.Response(text='{"Success":true,"Text":"PING","Time":0}\n')

        fake.overrides["ping"] = silent
        with pytest.raises(IpfsError, match="no echo"):
            await client.ping(OTHER)


async def test_keeping() -> None:
    async with fake_daemon() as fake, Client(fake.port) as client:
        kept, gone = fake.add(b"kept"), fake.add(b"gone")
        await client.pin(kept)
        assert await client.collect_garbage() == [gone]
        assert await client.collect_garbage() == []
        assert await client.repository() == {"RepoSize": 4, "NumObjects": 1}
        await client.unpin(kept)
        with pytest.raises(IpfsError, match="not pinned"):
            await client.unpin(kept)


async def test_blocks() -> None:
    async with fake_daemon() as fake, Client(fake.port) as client:
        cid = await client.put_block(b"x")
        assert await client.has_block(cid)
        fake.pins.add(cid)
        with pytest.raises(IpfsError, match="pinned"):  # said with status 200
            await client.remove_block(cid)
        fake.pins.clear()
        await client.remove_block(cid)
        assert not await client.has_block(cid)
        with pytest.raises(IpfsError, match="at most"):
            await client.put_block(bytes((2 << 20) + 1))


async def test_nodes() -> None:
    async with fake_daemon() as fake, Client(fake.port) as client:
        assert (await client.put_node(b'{"round": 3}', pin=True)).startswith("bafyrei")
        assert await client.get_node("bafy/round") == {"round": 3}


async def test_the_swarm() -> None:
    async with fake_daemon() as fake, Client(fake.port) as client:
        assert await client.peers() == set()
        peer = Peer(OTHER, "/ip4/10.77.0.2/tcp/4001")
        await client.connect(peer)
        await client.keep_connected(peer)
        assert [a for c, a, _ in fake.calls if c != "swarm/peers"] == [[peer.full_address]] * 2
        assert await client.peers() == {OTHER}
        assert await client.disconnect(OTHER) is True
        assert await client.disconnect(OTHER) is False


async def test_tunnels() -> None:
    async with fake_daemon() as fake, Client(fake.port) as client:
        await client.listen("/x/a/1", 9000)
        command, args, options = fake.calls[-1]
        assert (command, args) == ("p2p/listen", ["/x/a/1", "/ip4/127.0.0.1/tcp/9000"])
        assert options["report-peer-id"] == "true"
        ports = await asyncio.gather(*(client.forward("/x/a/1", peer) for peer in (OTHER, OTHER, ME)))
        assert len(set(ports)) == 3
        by_port = {int(row["ListenAddress"].rsplit("/", 1)[1]): row["TargetAddress"] for row in fake.forwards}
        assert [by_port[port] for port in ports] == [f"/p2p/{OTHER}", f"/p2p/{OTHER}", f"/p2p/{ME}"]
        assert await client.close_tunnels("/x/a/1") == 3


async def test_counters() -> None:
    async with fake_daemon() as fake, Client(fake.port) as client:
        fake.received_bytes = 77
        assert (await client.bitswap())["DataReceived"] == 77
        assert (await client.bandwidth(protocol="/ipfs/bitswap/1.2.0"))["TotalIn"] == 77
        assert fake.calls[-1][2]["proto"] == "/ipfs/bitswap/1.2.0"
        with pytest.raises(IpfsError, match="not by both"):
            await client.bandwidth(protocol="/x/a", peer_id=OTHER)


async def test_signatures() -> None:
    async with fake_daemon() as fake, Client(fake.port) as client:
        signature = await client.sign(b"manifest")
        assert await client.verify(b"manifest", signature, ME)
        assert not await client.verify(b"another", signature, ME)
        assert not await client.verify(b"manifest", signature, OTHER)


async def test_messages() -> None:
    async with fake_daemon() as fake, Client(fake.port) as client:
        await client.publish("rounds", b"with\nnewline\0")
        assert fake.published == [(multibase(b"rounds"), b"with\nnewline\0")]
        assert await client.topics() == {"rounds"}
        assert await client.subscribers("rounds") == set()
        got: list[Message] = []
        stream = client.subscribe("rounds")
        async for message in stream:
            got.append(message)
            if len(got) == 2:
                break
        await stream.aclose()  # type: ignore[attr-defined] # an async generator
        assert [(m.sender, m.data) for m in got] == [(OTHER, b"message 0"), (OTHER, b"message 1")]
        assert got[0].sequence != got[1].sequence


def test_multibase() -> None:
    assert from_multibase(multibase(b"\xff\xfe")) == b"\xff\xfe"
    with pytest.raises(UnverifiedError):
        from_multibase("zabc")


# ---- what goes wrong, on both ways


def answering(fake: FakeDaemon, status: int, text: str, kind: str = "application/json") -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=status, text=text, content_type=kind)

    fake.overrides.update({"version": answer, "pubsub/ls": answer})


@pytest.mark.parametrize("call", BOTH_WAYS)
async def test_the_daemons_own_words(call: Call) -> None:
    async with fake_daemon() as fake, Client(fake.port) as client:
        answering(fake, 500, '{"Message":"pin: it rains","Code":0,"Type":"error"}')
        with pytest.raises(IpfsError, match="pin: it rains") as caught:
            await call(client)
        assert type(caught.value) is IpfsError


@pytest.mark.parametrize("call", BOTH_WAYS)
async def test_the_daemons_deadline(call: Call) -> None:
    async with fake_daemon() as fake, Client(fake.port) as client:
        answering(fake, 500, '{"Message":"pin: context deadline exceeded","Code":0,"Type":"error"}')
        with pytest.raises(IpfsTimeoutError):
            await call(client)


@pytest.mark.parametrize("call", BOTH_WAYS)
async def test_plain_text_errors(call: Call) -> None:
    async with fake_daemon() as fake, Client(fake.port) as client:
        answering(fake, 400, 'argument "x" is required', "text/plain")
        with pytest.raises(IpfsError, match="400"):
            await call(client)


@pytest.mark.parametrize("call", BOTH_WAYS)
async def test_what_is_no_json(call: Call) -> None:
    async with fake_daemon() as fake, Client(fake.port) as client:
        answering(fake, 200, "<html>")
        with pytest.raises(IpfsError):
            await call(client)


@pytest.mark.parametrize("call", BOTH_WAYS)
async def test_nobody_there(call: Call) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    async with Client(port) as client:
        with pytest.raises(UnreachableError):
            await call(client)


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.pin("bafy", timeout_s=0.1),
        lambda client: client.get_node("bafy", timeout_s=0.1),
        lambda client: client.ping(ME, timeout_s=0.1),
    ],
)
async def test_a_daemon_that_never_answers(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was told the timeout and does not obey: our own patience ends the call."""
    monkeypatch.setattr(rpc, "GRACE_S", 0.05)
    monkeypatch.setattr(library, "GRACE_S", 0.05)

    async def deaf(request: web.Request) -> web.Response:
        await asyncio.Event().wait()
        return web.Response()

    async with fake_daemon() as fake, Client(fake.port) as client:
        fake.overrides.update({"pin/add": deaf, "dag/get": deaf, "ping": deaf})
        with pytest.raises(IpfsTimeoutError):
            await call(client)


async def test_a_short_body_is_noticed() -> None:
    async def short(request: web.Request) -> web.Response:
        return web.Response(body=b"123", headers={"X-Content-Length": "5"})

    async with fake_daemon() as fake, Client(fake.port) as client:
        fake.overrides["block/get"] = short
        with pytest.raises(UnverifiedError, match="3 of 5"):
            await client.fetch_block(await client.put_block(b"x"))


async def test_a_body_that_breaks_off_is_noticed() -> None:
    async def torn(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b'{"Keys": [')
        assert request.transport is not None
        request.transport.close()
        return response

    async with fake_daemon() as fake, Client(fake.port) as client:
        fake.overrides["dag/get"] = torn
        with pytest.raises(UnverifiedError, match="broke off"):
            await client.get_node("bafy")


async def test_garbage_collection_reports_its_errors() -> None:
    async def failing(request: web.Request) -> web.Response:
        return web.Response(text='{"Key":{"/":"bafy"}}\n{"Error":"disk full"}\n')

    async with fake_daemon() as fake, Client(fake.port) as client:
        fake.overrides["repo/gc"] = failing
        with pytest.raises(IpfsError, match="disk full"):
            await client.collect_garbage()


async def test_a_proxy_of_the_environment_sees_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    async with fake_daemon() as fake, Client(fake.port) as client:
        for call in BOTH_WAYS:
            await call(client)


async def test_the_library_too_is_held_to_the_table() -> None:
    async with fake_daemon() as fake, Client(fake.port) as client:
        with pytest.raises(ShoalError, match="not in the table"):
            await client._library.call("bootstrap", lambda c, **o: c.bootstrap.list(**o), timeout_s=1)
        with pytest.raises(ShoalError, match="trickle"):
            await client._library.call(
                "add", lambda c, **o: c.add_bytes(b"", opts={"trickle": "true"}, **o), timeout_s=1
            )
        assert fake.calls == []


async def test_a_client_must_be_open() -> None:
    with pytest.raises(IpfsError, match="not open"):
        await Client(1).topics()
