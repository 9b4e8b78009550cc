"""Both ends of the control tunnel, with a tunnel on loopback in place of two daemons."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import aiohttp
import pytest

from node import control, control_server
from node.contract import ShoalError
from node.contract.messages import ENCODING, Answer, Manifest, Signed, Work
from node.control import Control, UnansweredError
from node.control_server import MAX_BODY_BYTES, MAX_OPEN, ControlServer
from node.ipfs.client import Client
from node.ipfs.config import Peer
from node.ipfs.errors import IpfsError
from tests.unit.node.ipfs.fake_rpc import ME, OTHER

AGGREGATOR = Peer("aggregator", "/ip4/10.0.0.1/tcp/4001")
SIGNED = Signed(Manifest("run", 1, ME, "base", "update", 100, ENCODING, 50, 0.1, 0.2, 0.3), "uAAAA")


class FakeTunnel:
    """The calls that both ends make of their daemons; strict about who may make them when."""

    def __init__(self, asker: str = ME) -> None:
        self.asker = asker
        self.target: int | None = None
        self.dialled = 0
        self.flows = asyncio.Event()  # while it is cleared, what is said waits on its way
        self.flows.set()
        self._servers: list[asyncio.Server] = []
        self._writers: set[asyncio.StreamWriter] = set()
        self._pipes: set[asyncio.Task[None]] = set()

    # the aggregator's end
    async def listen(self, protocol: str, target_port: int, *, report_peer_id: bool = True) -> None:
        assert report_peer_id, "the relay needs the asker's line"
        if self.target is not None:
            raise IpfsError("p2p/listen: listener already registered")
        self.target = target_port

    # the trainer's end
    async def forward(self, protocol: str, peer_id: str) -> int:
        assert peer_id == AGGREGATOR.peer_id
        self._servers.append(await asyncio.start_server(self._accept, "127.0.0.1", 0))
        return int(self._servers[-1].sockets[0].getsockname()[1])

    async def connect(self, peer: Peer, *, timeout_s: float) -> None:
        assert peer == AGGREGATOR
        self.dialled += 1

    async def close_tunnels(self, protocol: str) -> int:
        count = len(self._servers)
        while self._servers:
            self._servers.pop().close()
        return count

    def forget(self) -> None:
        """The aggregator's daemon was restarted."""
        self.target = None
        self.break_off()

    def break_off(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def close(self) -> None:
        self.break_off()
        for server in self._servers:
            server.close()
        for pipe in self._pipes:
            pipe.cancel()
        await asyncio.gather(*self._pipes, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.target is None:
            writer.close()
            return
        there, back = await asyncio.open_connection("127.0.0.1", self.target)
        back.write(self.asker.encode() + b"\n")
        self._writers |= {writer, back}
        self._pipes |= {
            asyncio.create_task(_pipe(reader, back, self.flows)),
            asyncio.create_task(_pipe(there, writer, self.flows)),
        }


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flows: asyncio.Event) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            await flows.wait()
            writer.write(data)
            await writer.drain()
    writer.close()


class FakeDesk:
    def __init__(self) -> None:
        self.asked: list[tuple[str, bool]] = []
        self.have: list[str] = []
        self.bodies: list[bytes] = []
        self.strangers: list[str] = []
        self.answers: list[Callable[[], Answer]] = []
        self.gives = asyncio.Event()  # while it is cleared, nobody is given work
        self.gives.set()

    async def work(self, peer_id: str, ready: bool, has: str = "") -> Work:
        self.asked.append((peer_id, ready))
        self.have.append(has)
        await self.gives.wait()
        return Work("train", round=3, base="base", size_bytes=100)

    async def update(self, peer_id: str, body: bytes) -> Answer:
        self.bodies.append(body)
        return self.answers.pop(0)() if self.answers else Answer(True)

    def stranger(self, peer_id: str) -> None:
        self.strangers.append(peer_id)


@asynccontextmanager
async def connected(
    tunnel: FakeTunnel,
    desk: FakeDesk,
    patience_s: float = 20.0,
    answered: Callable[[str, float], None] = lambda *_: None,
) -> AsyncIterator[Control]:
    ipfs = cast(Client, tunnel)
    try:
        async with (
            ControlServer(ipfs, {ME}, desk).open(),
            Control(ipfs, AGGREGATOR, patience_s, answered) as control,
        ):
            yield control
    finally:
        await tunnel.close()


async def test_a_member_asks_and_hands_in() -> None:
    desk = FakeDesk()
    async with connected(FakeTunnel(), desk) as trainer:
        assert await trainer.work(ready=True) == Work("train", round=3, base="base", size_bytes=100)
        assert await trainer.send(SIGNED) == Answer(True)
    assert desk.asked == [(ME, True)]
    assert b'"update"' in desk.bodies[0]


async def test_a_stranger_is_closed_and_named() -> None:
    desk = FakeDesk()
    async with connected(FakeTunnel(asker=OTHER), desk, patience_s=0.1) as trainer:
        with pytest.raises(UnansweredError, match=r"0\.1 s"):
            await trainer.work(ready=True)
    assert set(desk.strangers) == {OTHER}
    assert not desk.asked


async def test_a_daemon_that_forgot_the_tunnel_is_told_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_server, "LISTEN_S", 0.01)
    desk, tunnel = FakeDesk(), FakeTunnel()
    async with connected(tunnel, desk) as trainer:
        await trainer.work(ready=True)
        tunnel.forget()
        await trainer.work(ready=True)
        assert tunnel.dialled == trainer.repeated > 0
    assert len(desk.asked) == 2


async def test_an_update_whose_answer_was_lost_counts_once() -> None:
    desk, tunnel = FakeDesk(), FakeTunnel()

    def lose() -> Answer:
        tunnel.break_off()
        return Answer(True)

    desk.answers = [lose, lambda: Answer(False, "replayed"), lambda: Answer(False, "replayed")]
    async with connected(tunnel, desk) as trainer:
        assert (await trainer.send(SIGNED)).accepted
        assert not (await trainer.send(SIGNED)).accepted  # now it is a replay


async def test_trouble_of_the_aggregators_own_is_waited_out() -> None:
    desk = FakeDesk()

    def troubled() -> Answer:
        raise ShoalError("not now")

    desk.answers = [troubled]
    async with connected(FakeTunnel(), desk) as trainer:
        assert (await trainer.send(SIGNED)).accepted
    assert len(desk.bodies) == 2


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_server, "PULSE_S", 0.02)
    monkeypatch.setattr(control, "SILENT_S", 0.3)


@pytest.mark.usefixtures("hasty")
async def test_a_long_wait_is_no_silence() -> None:
    desk, told = FakeDesk(), list[tuple[str, float]]()
    desk.gives.clear()
    async with connected(FakeTunnel(), desk, answered=lambda *said: told.append(said)) as trainer:
        asking = asyncio.create_task(trainer.work(ready=True))
        await asyncio.sleep(3 * control.SILENT_S)  # nothing is waited for: nothing shall happen
        desk.gives.set()
        assert (await asking).kind == "train"
    assert (told, len(desk.asked), trainer.repeated) == ([], 1, 0)


@pytest.mark.usefixtures("hasty")
async def test_a_silence_is_told_when_it_ends_and_what_was_said_in_it_is_asked_anew() -> None:
    desk, tunnel, told = FakeDesk(), FakeTunnel(), asyncio.Queue[tuple[str, float]]()
    desk.gives.clear()
    async with connected(tunnel, desk, answered=lambda *said: told.put_nowait(said)) as trainer:
        asking = asyncio.create_task(trainer.work(ready=True))
        while not desk.asked:  # noqa: ASYNC110 # the fake tells nobody
            await asyncio.sleep(0.01)
        tunnel.flows.clear()
        desk.gives.set()  # into the cut
        await asyncio.sleep(2 * control.SILENT_S)
        tunnel.flows.set()
        assert (await asking).kind == "train"
        _, silent_s = await told.get()
    assert silent_s >= control.SILENT_S
    assert told.empty()
    assert (len(desk.asked), trainer.repeated) == (2, 0)


@pytest.mark.usefixtures("hasty")
async def test_a_silent_request_is_not_broken_off_but_a_short_one_is_answered() -> None:
    desk, tunnel, told = FakeDesk(), FakeTunnel(), asyncio.Queue[tuple[str, float]]()
    desk.gives.clear()
    async with connected(tunnel, desk, answered=lambda *said: told.put_nowait(said)) as trainer:
        asking = asyncio.create_task(trainer.work(ready=True))
        while not desk.asked:  # noqa: ASYNC110 # the fake tells nobody
            await asyncio.sleep(0.01)
        tunnel.flows.clear()
        await asyncio.sleep(2 * control.SILENT_S)
        tunnel.flows.set()
        path, silent_s = await told.get()
        assert (path, len(desk.asked)) == ("/v1/hello", 1)
        assert silent_s >= control.SILENT_S
        desk.gives.set()
        await asking


async def post(tunnel: FakeTunnel, path: str, body: bytes) -> tuple[int, str]:
    port = await tunnel.forward("", AGGREGATOR.peer_id)
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"http://127.0.0.1:{port}{path}", data=body) as response,
    ):
        return response.status, await response.text()


async def test_the_model_that_a_trainer_has_is_told() -> None:
    tunnel, desk = FakeTunnel(), FakeDesk()
    async with connected(tunnel, desk) as trainer:
        await trainer.work(ready=True, has="bafy")
        await trainer.work(ready=False)
    assert desk.have == ["bafy", ""]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/work", b'{"ready": 1}', 400),
        ("/v1/work", b'{"ready": true, "has": 7}', 400),
        ("/v1/work", b"[" * 1000, 400),
        ("/v1/other", b"{}", 404),
    ],
)
async def test_wrong_calls_are_told_so(path: str, body: bytes, status: int) -> None:
    tunnel, desk = FakeTunnel(), FakeDesk()
    async with connected(tunnel, desk):
        assert (await post(tunnel, path, body))[0] == status
    assert not desk.asked


async def test_of_a_long_body_no_more_is_read_than_shows_it() -> None:
    tunnel, desk = FakeTunnel(), FakeDesk()
    async with connected(tunnel, desk):
        await post(tunnel, "/v1/update", b"x" * 100_000)
    assert [len(body) for body in desk.bodies] == [MAX_BODY_BYTES + 1]


async def test_garbage_and_too_many_connections_disturb_nobody() -> None:
    tunnel, desk = FakeTunnel(), FakeDesk()
    async with connected(tunnel, desk) as trainer:
        port = await tunnel.forward("", AGGREGATOR.peer_id)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"\x00garbage\r\n\r\n")
        assert b"400" in await reader.read(100)
        writer.close()
        held: list[Any] = [await asyncio.open_connection("127.0.0.1", port) for _ in range(MAX_OPEN + 1)]
        assert await held[-1][0].read() == b""  # the last is closed at once
        for _, one in held:
            one.close()
        await trainer.work(ready=True)


async def test_an_aggregator_that_cannot_answer_yet_is_asked_again_on_the_same_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It takes only some at a time of one member; a restarted one may be at it for longer than that."""
    monkeypatch.setattr(control, "PAUSES_S", (0.001,))
    tunnel, desk = FakeTunnel(), FakeDesk()

    def not_yet() -> Answer:
        raise ShoalError("no round has been opened yet")

    desk.answers = [not_yet] * (2 * MAX_OPEN)
    async with connected(tunnel, desk) as trainer:
        assert await trainer.send(SIGNED) == Answer(True)
        assert len(desk.bodies) == 2 * MAX_OPEN + 1
        assert len(tunnel._servers) == 1
        assert tunnel.dialled == 0
