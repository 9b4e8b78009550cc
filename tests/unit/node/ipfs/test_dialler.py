from __future__ import annotations

import asyncio

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from node.ipfs import dialler
from node.ipfs.client import Client
from node.ipfs.config import Peer
from node.ipfs.dialler import PAUSE_S, Dialler, due
from tests.unit.node.ipfs.fake_rpc import ME, OTHER, fake_daemon

PEERS = [Peer(peer_id, f"/ip4/10.77.0.{n}/tcp/4001") for n, peer_id in enumerate((ME, OTHER), 1)]
names = st.sets(st.sampled_from("abcdef"))


@given(names, names, st.dictionaries(st.sampled_from("abcdef"), st.floats(0, 20)), st.floats(0, 20))
def test_who_is_dialled(
    connected: set[str], peers: set[str], dialled_at: dict[str, float], now: float
) -> None:
    got = due(now, connected, peers, dialled_at)
    assert got <= peers - connected
    for peer in peers - connected:
        assert (peer in got) == (peer not in dialled_at or now - dialled_at[peer] >= PAUSE_S)


async def stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_the_missing_are_dialled_and_the_connected_pinged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialler, "LOOK_S", 0.01)
    monkeypatch.setattr(dialler, "PING_S", 0.05)
    async with fake_daemon() as fake, Client(fake.port) as client:
        fake.connected.add(ME)
        task = asyncio.create_task(Dialler(client, PEERS).run())
        await fake.wait_called(4, "ping")
        await stop(task)
        dials = [args for command, args, _ in fake.calls if command == "swarm/connect"]
        assert dials == [[PEERS[1].full_address]]
        assert {args[0] for command, args, _ in fake.calls if command == "ping"} == {ME, OTHER}


async def test_a_failing_dial_waits_before_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialler, "LOOK_S", 0.01)

    async def refuse(request: web.Request) -> web.Response:
        return web.json_response({"Message": "connect failure", "Code": 0, "Type": "error"}, status=500)

    async with fake_daemon() as fake, Client(fake.port) as client:
        fake.overrides["swarm/connect"] = refuse
        task = asyncio.create_task(Dialler(client, PEERS).run())
        await fake.wait_called(30, "swarm/peers")
        assert len(fake.called("swarm/connect")) == len(PEERS)
        monkeypatch.setattr(dialler, "PAUSE_S", 0.0)
        await fake.wait_called(len(PEERS) + 4, "swarm/connect")
        assert not task.done()
        await stop(task)


async def test_a_daemon_that_is_away_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialler, "LOOK_S", 0.01)

    async def away(request: web.Request) -> web.Response:
        return web.Response(status=500, text="shutting down")

    async with fake_daemon() as fake, Client(fake.port) as client:
        fake.overrides["swarm/peers"] = away
        task = asyncio.create_task(Dialler(client, PEERS).run())
        await fake.wait_called(3, "swarm/peers")
        assert fake.called("swarm/connect") == []
        del fake.overrides["swarm/peers"]
        await fake.wait_called(2, "swarm/connect")
        await stop(task)
