from __future__ import annotations

import asyncio
import hashlib

import pytest
from aiohttp import web

from node.ipfs.client import Client
from node.ipfs.config import Peer
from node.ipfs.errors import CidError, IpfsTimeoutError, TooLargeError, UnverifiedError
from node.ipfs.fetch import WIRE_PROGRESS_BYTES, Wanted
from tests.unit.node.ipfs.fake_rpc import OTHER, changed, cut, fake_daemon, stuck, whole

SMALL = hashlib.shake_128(b"small").digest(1000)
LARGE = hashlib.shake_128(b"large").digest((1 << 20) + 777)
PROVIDER = Peer(OTHER, "/ip4/10.77.0.2/tcp/4001")
STALL_S = 0.1  # of a fake; a busy machine only makes a fake's pause longer
NEVER_S = 30.0
EMPTY = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"


@pytest.mark.parametrize("data", [SMALL, LARGE])
async def test_a_file_comes_whole(data: bytes) -> None:
    async with fake_daemon() as fake, Client(fake.port) as client:
        cid = fake.add(data)
        assert await client.fetch(cid, max_bytes=1 << 30, size_bytes=len(data)) == data
        assert await client.fetch(cid, max_bytes=len(data)) == data
        assert fake.called("swarm/disconnect", "swarm/connect") == []


async def test_an_empty_file_needs_nobody() -> None:
    async with fake_daemon() as fake, Client(fake.port) as client:
        assert await client.fetch(EMPTY, max_bytes=10, timeout_s=1) == b""
        assert fake.calls == []


@pytest.mark.parametrize("data", [SMALL, LARGE])
async def test_other_bytes_under_this_name_are_refused(data: bytes) -> None:
    async with fake_daemon() as fake, Client(fake.port) as client:
        cid = fake.add(data)
        fake.cats = [changed]
        with pytest.raises(UnverifiedError, match="other bytes"):
            await client.fetch(cid, max_bytes=1 << 30)


async def test_another_size_than_named_is_refused() -> None:
    async with fake_daemon() as fake, Client(fake.port) as client:
        cid = fake.add(SMALL)
        with pytest.raises(UnverifiedError, match="1001 were named"):
            await client.fetch(cid, max_bytes=1 << 30, size_bytes=1001)
        with pytest.raises(TooLargeError, match="999"):
            await client.fetch(cid, max_bytes=1 << 30, size_bytes=999)


async def test_what_announces_too_much_is_not_begun() -> None:
    async with fake_daemon() as fake, Client(fake.port) as client:
        cid = fake.add(LARGE)
        fake.cats = [stuck(1)]
        with pytest.raises(TooLargeError, match=f"has {len(LARGE)} bytes, 1000 allowed"):
            await client.fetch(cid, max_bytes=1000, stall_s=NEVER_S)


async def test_what_announces_little_and_sends_too_much_is_stopped() -> None:
    async def endless(request: web.Request, response: web.StreamResponse, data: bytes) -> None:
        response.headers["X-Content-Length"] = "10"
        await response.prepare(request)
        while True:  # until the reader hangs up
            await response.write(bytes(100_000))

    async with fake_daemon() as fake, Client(fake.port) as client:
        fake.cats = [endless]
        with pytest.raises(TooLargeError, match="more than the 1000000 bytes allowed"):
            await client.fetch(fake.add(LARGE), max_bytes=1_000_000)


async def test_a_reply_that_is_cut_short_is_taken_up_where_it_ended() -> None:
    async with fake_daemon() as fake, Client(fake.port) as client:
        cid = fake.add(LARGE)
        fake.cats = [cut(1000), cut(500_000), whole]
        assert await client.fetch(cid, max_bytes=1 << 30) == LARGE
        offsets = [options.get("offset") for command, _, options in fake.calls if command == "cat"]
        assert offsets == [None, "1000", "501000"]


async def test_a_reply_that_is_cut_at_the_same_place_is_an_error() -> None:
    async with fake_daemon() as fake, Client(fake.port) as client:
        cid = fake.add(LARGE)
        fake.cats = [cut(1000), cut(0)]
        with pytest.raises(UnverifiedError, match=f"ended after 1000 of {len(LARGE)} bytes"):
            await client.fetch(cid, max_bytes=1 << 30)


@pytest.mark.parametrize("count", [0, 1000])
async def test_a_fetch_without_progress_renews_the_connection_and_asks_for_the_rest(count: int) -> None:
    async with fake_daemon() as fake, Client(fake.port) as client:
        cid = fake.add(LARGE)
        fake.connected.add(OTHER)
        fake.cats = [stuck(count), whole]
        assert await client.fetch(cid, max_bytes=1 << 30, provider=PROVIDER, stall_s=STALL_S) == LARGE
        assert fake.called("cat", "swarm/disconnect", "swarm/connect") == [
            "cat",
            "swarm/disconnect",
            "swarm/connect",
            "cat",
        ]
        arguments = {command: args for command, args, _ in fake.calls}
        assert arguments["swarm/disconnect"] == [f"/p2p/{OTHER}"]
        assert arguments["swarm/connect"] == [f"/ip4/10.77.0.2/tcp/4001/p2p/{OTHER}"]
        last = [options for command, _, options in fake.calls if command == "cat"][-1]
        assert last.get("offset", "0") == str(count)


async def test_a_provider_that_cannot_be_reached_is_tried_again() -> None:
    refusals = 2

    async def unreachable(request: web.Request) -> web.Response:
        if fake.called("swarm/connect").count("swarm/connect") > refusals:
            del fake.overrides["swarm/connect"]
        return web.json_response(
            {"Message": "connect failure: no route", "Code": 0, "Type": "error"}, status=500
        )

    async with fake_daemon() as fake, Client(fake.port) as client:
        cid = fake.add(SMALL)
        fake.overrides["swarm/connect"] = unreachable
        fake.cats = [stuck(0), stuck(0), stuck(0), whole]
        assert await client.fetch(cid, max_bytes=1 << 30, provider=PROVIDER, stall_s=STALL_S) == SMALL
        assert fake.called("swarm/connect") == ["swarm/connect"] * 3


async def test_bytes_on_the_wire_are_progress_though_none_reach_us() -> None:
    """A block of 1 MiB over a slow link: nothing for a long time, then all at once."""
    seen = asyncio.Event()

    async def slow(request: web.Request, response: web.StreamResponse, data: bytes) -> None:
        await seen.wait()
        await whole(request, response, data)

    async def counting(request: web.Request) -> web.Response:
        fake.received_bytes += WIRE_PROGRESS_BYTES
        if len(fake.called("stats/bw")) >= 12:  # three stalls' worth of looks
            seen.set()
        return web.json_response({"TotalIn": fake.received_bytes})

    async with fake_daemon() as fake, Client(fake.port) as client:
        cid = fake.add(SMALL)
        fake.cats = [slow]
        fake.overrides["stats/bw"] = counting
        assert await client.fetch(cid, max_bytes=1 << 30, provider=PROVIDER, stall_s=STALL_S) == SMALL
        assert fake.called("swarm/disconnect") == []
        which = next(options for command, _, options in fake.calls if command == "stats/bw")
        assert which["peer"] == OTHER


async def test_fetches_that_stall_together_renew_once() -> None:
    async with fake_daemon() as fake, Client(fake.port) as client:
        blobs = [bytes([n]) * 100 for n in range(1, 9)]
        cids = [fake.add(blob) for blob in blobs]
        fake.cats = [stuck(0)] * len(blobs)
        wanted = [Wanted(cid, 1000, provider=PROVIDER) for cid in cids]
        assert await client.fetch_all(wanted, stall_s=0.5) == blobs
        assert fake.called("swarm/disconnect", "swarm/connect") == ["swarm/disconnect", "swarm/connect"]


async def test_nobody_has_it() -> None:
    async with fake_daemon() as fake, Client(fake.port) as client:
        cid = fake.add(SMALL)
        fake.cats = [stuck(10), *[stuck(0)] * 20]
        with pytest.raises(IpfsTimeoutError, match=r"10 bytes came within 0\.4 s"):
            await client.fetch(cid, max_bytes=1 << 30, provider=PROVIDER, stall_s=STALL_S, timeout_s=0.4)
        assert len(fake.called("cat")) >= 2


async def test_all_of_them_in_order() -> None:
    async with fake_daemon() as fake, Client(fake.port) as client:
        blobs = [bytes([n]) * (n * 1000) for n in range(1, 40)]
        wanted = [Wanted(fake.add(blob), 1 << 20, len(blob)) for blob in blobs]
        assert await client.fetch_all(wanted, at_once=7) == blobs


async def test_no_more_at_once_than_allowed() -> None:
    running, most = 0, 0
    full = asyncio.Event()

    async def counted(request: web.Request, response: web.StreamResponse, data: bytes) -> None:
        nonlocal running, most
        running, most = running + 1, max(most, running + 1)
        if running == 3:
            full.set()
        await full.wait()
        running -= 1
        await whole(request, response, data)

    async with fake_daemon() as fake, Client(fake.port) as client:
        wanted = [Wanted(fake.add(bytes([n])), 10) for n in range(12)]
        fake.cats = [counted] * 12
        await client.fetch_all(wanted, at_once=3)
        assert most == 3


async def test_the_first_failure_ends_the_others() -> None:
    hung_up = asyncio.Event()

    async def watched(request: web.Request, response: web.StreamResponse, data: bytes) -> None:
        if data == SMALL:
            return await whole(request, response, data)
        try:
            await asyncio.Event().wait()
        finally:
            hung_up.set()
        return None

    async with fake_daemon() as fake, Client(fake.port) as client:
        waiting, bad = Wanted(fake.add(LARGE), 1 << 30), Wanted(fake.add(SMALL), 10)
        fake.cats = [watched, watched]
        with pytest.raises(TooLargeError):
            await client.fetch_all([waiting, bad], stall_s=NEVER_S)
        await asyncio.wait_for(hung_up.wait(), 10)


async def test_what_is_no_cid() -> None:
    async with fake_daemon() as fake, Client(fake.port) as client:
        with pytest.raises(CidError):
            await client.fetch("bafyoops", max_bytes=10)
        assert fake.calls == []


async def test_a_block_is_checked_by_its_hash() -> None:
    async with fake_daemon() as fake, Client(fake.port) as client:
        cid = await client.put_block(b"a block")
        assert await client.fetch_block(cid) == b"a block"
        fake.files[cid] = b"another"
        with pytest.raises(UnverifiedError, match="other bytes"):
            await client.fetch_block(cid)
        fake.files[cid] = bytes((2 << 20) + 1)
        with pytest.raises(UnverifiedError, match="more than"):
            await client.fetch_block(cid)
