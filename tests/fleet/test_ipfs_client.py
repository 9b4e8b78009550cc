"""The client against real daemons, in nodes of the box."""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager

import pytest

from node.ipfs import engine
from node.ipfs.asker import AskerRelay
from node.ipfs.cid import RAW, Cid
from node.ipfs.client import Client
from node.ipfs.dialler import Dialler
from node.ipfs.errors import IpfsError, IpfsTimeoutError, TooLargeError, UnverifiedError
from node.ipfs.fetch import Wanted
from tests.fleet.lab import Member, cut, heal, shape, swarm

MIB = 1 << 20
ECHO = "/x/test/echo/1"


async def wait_until(holds: Callable[[], Awaitable[bool]], timeout_s: float) -> None:
    """Look again and again: a daemon tells nobody of its own accord."""
    async with asyncio.timeout(timeout_s):
        while not await holds():  # noqa: ASYNC110 # there is no event to wait for
            await asyncio.sleep(0.05)


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[Member, Member]]:
    with swarm(engine.find("embedded"), 2) as members:
        yield members[0], members[1]


def test_objects_of_all_sizes_cross_whole_and_nothing_twice(pair: tuple[Member, Member]) -> None:
    one, two = pair
    for size in (0, 1, 1000, 200_000, MIB, MIB + 1, 5 * MIB, 20 * MIB):
        data = secrets.token_bytes(size)
        cid = one.call(lambda client, data=data: client.add(data))  # type: ignore[misc]

        async def fetch(client: Client, cid: str = cid, size: int = size) -> bytes:
            return await client.fetch(cid, max_bytes=size, size_bytes=size, provider=one.peer)

        assert two.call(fetch) == data
    assert two.call(lambda client: client.bitswap())["DupDataReceived"] == 0


def test_many_at_once_both_ways(pair: tuple[Member, Member]) -> None:
    one, two = pair

    async def add(client: Client) -> list[Wanted]:
        blobs = [secrets.token_bytes(100_000) for _ in range(30)]
        return [Wanted(await client.add(blob), 1 << 20, len(blob)) for blob in blobs]

    for giver, taker in ((one, two), (two, one)):
        wanted = giver.call(add)
        got = taker.call(lambda client, wanted=wanted: client.fetch_all(wanted))  # type: ignore[misc]
        assert [str(Cid.of_block(RAW, data)) for data in got] == [item.cid for item in wanted]


def test_what_is_larger_than_allowed_is_not_taken(pair: tuple[Member, Member]) -> None:
    one, two = pair
    cid = one.call(lambda client: client.add(secrets.token_bytes(5 * MIB)))
    with pytest.raises(TooLargeError, match="1048576 allowed"):
        two.call(lambda client: client.fetch(cid, max_bytes=MIB))


def test_a_size_that_is_wrong_is_refused(pair: tuple[Member, Member]) -> None:
    one, two = pair
    cid = one.call(lambda client: client.add(b"twelve bytes"))
    with pytest.raises(UnverifiedError, match="13 were named"):
        two.call(lambda client: client.fetch(cid, max_bytes=100, size_bytes=13))


def test_a_file_of_other_chunks_is_not_what_its_cid_promises_us(pair: tuple[Member, Member]) -> None:
    """Whoever chunks in his own way must say so: we verify against one layout."""
    one, two = pair
    foreign = 5 * MIB
    data = hashlib.shake_128(b"shoal").digest(foreign)

    async def add(client: Client) -> str:
        rows = await client._rpc.call("add", body=data, raw_leaves=True, cid_version=1, chunker="size-262144")
        return str(rows[-1]["Hash"])

    cid = one.call(add)
    assert cid == "bafybeicqe3cixbakuvs473gshydlevz44apfbdbk43mkuz5tqvutgyckny"
    with pytest.raises(UnverifiedError, match="other bytes"):
        two.call(lambda client: client.fetch(cid, max_bytes=foreign))


def test_a_fetch_that_nobody_can_serve_ends_in_time(pair: tuple[Member, Member]) -> None:
    one, two = pair
    cid = str(Cid.of_block(RAW, secrets.token_bytes(9)))
    with pytest.raises(IpfsTimeoutError, match="0 bytes came"):
        two.call(lambda client: client.fetch(cid, max_bytes=9, provider=one.peer, stall_s=1, timeout_s=3))
    assert one.peer.peer_id in two.call(lambda client: client.peers())


def test_keeping_nodes_and_keys(pair: tuple[Member, Member]) -> None:
    one, two = pair

    async def store(client: Client) -> tuple[str, str, str]:
        kept, gone = await client.add(b"kept", pin=True), await client.add(b"gone")
        assert {kept} <= await client.pins()
        assert gone in await client.collect_garbage()
        assert (await client.has_block(kept), await client.has_block(gone)) == (True, False)
        with pytest.raises(IpfsError, match="pinned"):
            await client.remove_block(kept)
        await client.unpin(kept)
        await client.remove_block(kept)
        value = json.dumps({"round": 3, "model": {"/": kept}}).encode()
        block = await client.put_block(b"a block")
        return await client.put_node(value), block, await client.sign(b"manifest")

    async def read(client: Client) -> None:
        assert (await client.get_node(node))["round"] == 3
        assert await client.get_node(node + "/round") == 3
        assert Cid.of_block(0x71, await client.fetch_block(node)) == Cid.parse(node)
        assert await client.fetch_block(block) == b"a block"
        assert await client.verify(b"manifest", signature, one.peer.peer_id)
        assert not await client.verify(b"another", signature, one.peer.peer_id)
        assert not await client.verify(b"manifest", signature, two.peer.peer_id)

    node, block, signature = one.call(store)
    two.call(read)


def test_swarm_and_counters(pair: tuple[Member, Member]) -> None:
    one, two = pair

    async def look(client: Client) -> None:
        assert await client.peer_id() == one.peer.peer_id
        assert await client.version()
        assert two.peer.peer_id in await client.peers()
        assert 0 < await client.ping(two.peer.peer_id) < 5
        assert (await client.repository())["RepoSize"] > 0
        assert (await client.metrics())["process_resident_memory_bytes"] > 1e6
        assert (await client.bandwidth(peer_id=two.peer.peer_id))["TotalOut"] >= 0

    one.call(look)


@asynccontextmanager
async def subscribed(client: Client, topic: str) -> AsyncIterator[asyncio.Task[bytes]]:
    async def first() -> bytes:
        async for message in client.subscribe(topic):
            return message.data
        raise AssertionError("the subscription ended")

    task = asyncio.create_task(first())
    try:
        yield task
    finally:
        task.cancel()


def test_messages(pair: tuple[Member, Member]) -> None:
    one, two = pair

    async def hear(client: Client) -> bytes:
        async with subscribed(client, "rounds") as heard:
            return await asyncio.wait_for(heard, 20)

    async def say(client: Client) -> None:
        async def subscribed() -> bool:
            return two.peer.peer_id in await client.subscribers("rounds")

        await wait_until(subscribed, 20)
        await client.publish("rounds", b"with\nnewline\0")

    hearing = two.begin(hear)
    one.call(say)
    assert hearing.result() == b"with\nnewline\0"


@pytest.mark.parametrize("known", [True, False])
def test_a_tunnels_asker_is_known_and_strangers_are_closed(pair: tuple[Member, Member], known: bool) -> None:
    one, two = pair
    protocol = f"{ECHO}/{known}"
    asked = []

    async def answer(asker: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(asker)
        writer.write((await reader.readexactly(5))[::-1])
        await writer.drain()

    async def serve(client: Client) -> None:
        async with AskerRelay({two.peer.peer_id} if known else set(), answer) as relay:
            await client.listen(protocol, relay.port)
            listening.set_result(None)
            await asyncio.wait_for(asyncio.wrap_future(asking), 30)
            assert dict(relay.refused) == ({} if known else {"stranger": 1})
            assert await client.close_tunnels(protocol) == 1

    async def ask(client: Client) -> bytes:
        await asyncio.wait_for(asyncio.wrap_future(listening), 30)
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", await client.forward(protocol, one.peer.peer_id)
        )
        try:
            writer.write(b"hello")
            return await reader.read(100)
        except ConnectionResetError:
            return b""
        finally:
            writer.close()
            await client.close_tunnels(protocol)

    listening: Future[None] = Future()
    asking = two.begin(ask)
    serving = one.begin(serve)
    assert asking.result() == (b"olleh" if known else b"")
    serving.result()
    assert asked == ([two.peer.peer_id] if known else [])


def test_a_fetch_over_a_link_that_breaks_goes_on_after_it_heals() -> None:
    with swarm(engine.find("embedded"), 2) as (one, two):
        shape(one, "40mbit")
        data = secrets.token_bytes(10 * MIB)
        cid = one.call(lambda client: client.add(data))
        fetching = two.begin(
            lambda client: client.fetch(cid, max_bytes=len(data), provider=one.peer, stall_s=2, timeout_s=90)
        )

        async def wait_half(client: Client) -> None:
            async def half() -> bool:
                return bool((await client.bitswap())["DataReceived"] >= 3 * MIB)

            await wait_until(half, 60)

        two.call(wait_half)
        cut(one, two)
        with pytest.raises(IpfsError):
            two.call(lambda client: client.ping(one.peer.peer_id, timeout_s=4))
        assert not fetching.done()
        heal(one, two)
        assert fetching.result(timeout=60) == data


def test_a_slow_link_is_not_taken_for_a_dead_one() -> None:
    """A block takes many times as long as the patience for no progress."""
    with swarm(engine.find("embedded"), 2) as (one, two):
        shape(one, "1mbit")
        data = secrets.token_bytes(500_000)  # one block: 4 s of line
        cid = one.call(lambda client: client.add(data))

        async def connections(client: Client) -> float:
            return (await client.metrics()).get("libp2p_swarm_connections_closed_total", 0.0)

        before = two.call(connections)
        got = two.call(
            lambda client: client.fetch(cid, max_bytes=len(data), provider=one.peer, stall_s=1, timeout_s=60)
        )
        assert got == data
        assert two.call(connections) == before


def test_the_dialler_connects_again_who_came_back() -> None:
    with swarm(engine.find("embedded"), 2, peered=False) as (one, two):

        async def keep(client: Client) -> None:
            dialling = asyncio.create_task(Dialler(client, [one.peer]).run())

            async def connected() -> bool:
                return one.peer.peer_id in await client.peers()

            await wait_until(connected, 30)
            dialling.cancel()
            await asyncio.gather(dialling, return_exceptions=True)

        two.call(keep)
        one.kill()
        one.start()
        two.call(keep)
