"""The daemon's life with the real program, in the box's own namespace."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import select
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread

import pytest

from node.contract import UsageError
from node.ipfs import engine
from node.ipfs.client import Client
from node.ipfs.config import Peer, Settings
from node.ipfs.daemon import Daemon
from node.ipfs.engine import Engine
from node.ipfs.errors import DaemonError, IpfsError

KEY = secrets.token_hex(32)
Make = Callable[..., Daemon]


@pytest.fixture(scope="module")
def embedded() -> Engine:
    return engine.find("embedded")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        return int(unused.getsockname()[1])


@pytest.fixture
def make(tmp_path: Path, embedded: Engine) -> Iterator[Make]:
    made: list[Daemon] = []

    def one(
        name: str = "one", key: str = KEY, api_port: int | None = None, transport: str = "prompt"
    ) -> Daemon:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        settings = Settings("127.0.0.1", free_port(), api_port or free_port(), transport)
        made.append(Daemon(embedded, folder, settings, key))
        return made[-1]

    yield one
    for daemon in made:
        if daemon.process is not None:
            daemon.kill()


def peer_of(daemon: Daemon) -> Peer:
    return Peer(daemon.prepare(), daemon.settings.swarm_address)


@pytest.mark.parametrize("transport", ["prompt", "stock", "patient"])
def test_start_restart_stop(make: Make, transport: str) -> None:
    async def scenario() -> None:
        daemon = make(transport=transport)
        peer_id = daemon.prepare()
        daemon.start()
        daemon.wait_ready()
        async with Client(daemon.settings.api_port) as client:
            assert await client.peer_id() == peer_id
            cid = await client.add(b"kept over the restart", pin=True)
            daemon.restart()
            assert await client.peer_id() == peer_id
            assert await client.pins() >= {cid}
            assert await client.fetch(cid, max_bytes=100) == b"kept over the restart"
        assert daemon.stop() == 0
        assert daemon.log.read_text().count("== ") == 2

    asyncio.run(scenario())


def test_nothing_acknowledged_is_lost_by_a_kill(make: Make) -> None:
    async def scenario() -> None:
        daemon = make()
        daemon.start()
        daemon.wait_ready()
        async with Client(daemon.settings.api_port) as client:
            data = os.urandom(3 << 20)
            cid = await client.add(data, pin=True)
            assert daemon.kill() == -9
            with pytest.raises(IpfsError):
                await client.peer_id()
            daemon.start()
            daemon.wait_ready()
            assert await client.fetch(cid, max_bytes=len(data)) == data

    asyncio.run(scenario())


def test_another_swarm_key_cannot_connect(make: Make) -> None:
    async def scenario() -> None:
        one, stranger = make("one"), make("stranger", key=secrets.token_hex(32))
        for daemon in (one, stranger):
            daemon.start()
            daemon.wait_ready()
        async with Client(stranger.settings.api_port) as client:
            with pytest.raises(IpfsError):
                await client.connect(peer_of(one), timeout_s=10)
            assert await client.peers() == set()

    asyncio.run(scenario())


def test_a_port_in_use_is_told(make: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        daemon = make(api_port=taken.getsockname()[1])
        daemon.start()
        with pytest.raises(DaemonError, match="address already in use") as caught:
            daemon.wait_ready()
    assert "other ports" in caught.value.hint


def test_a_folder_in_use_is_told_and_the_first_daemon_lives_on(make: Make) -> None:
    first, second = make("same"), make("same")
    first.start()
    first.wait_ready()
    second.start()
    with pytest.raises(DaemonError, match="ended at its start") as caught:
        second.wait_ready()
    assert "another daemon uses this folder" in caught.value.hint
    assert first.process is not None
    assert first.process.id.is_alive()


def test_a_damaged_configuration_is_told(make: Make) -> None:
    daemon = make()
    daemon.prepare()
    file = daemon.repository / "config"
    file.write_text(file.read_text()[:100])
    with pytest.raises(UsageError, match=r"config:\d+: no valid JSON"):
        daemon.start()


def test_a_key_of_the_wrong_type_is_told_by_name(make: Make) -> None:
    daemon = make()
    daemon.prepare()
    file = daemon.repository / "config"
    config = json.loads(file.read_text())
    file.write_text(json.dumps({**config, "Import": {"CidVersion": "one"}}))
    daemon.start()
    with pytest.raises(DaemonError, match="CidVersion"):
        daemon.wait_ready()


def test_it_ends_with_the_thread_that_started_it(make: Make) -> None:
    daemon = make()

    def start() -> None:
        daemon.start()
        daemon.wait_ready()  # the signal is armed only after the start, by setpriv

    starter = Thread(target=start)
    starter.start()
    starter.join()
    assert daemon.process is not None
    assert daemon.process.wait_exit(20) is not None


def test_its_death_shows_at_once(make: Make) -> None:
    daemon = make()
    daemon.start()
    daemon.wait_ready()
    assert daemon.process is not None
    descriptor = os.pidfd_open(daemon.process.id.pid)
    daemon.kill()
    assert select.select([descriptor], [], [], 0)[0]
    os.close(descriptor)
    assert not daemon.process.id.is_alive()
