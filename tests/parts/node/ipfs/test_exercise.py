"""The member's protocol, over fakes of its daemon's process and its RPC."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from node.contract import UsageError
from node.ipfs import exercise as module
from node.ipfs.cache import TOP
from node.ipfs.config import Settings
from node.ipfs.engine import EMBEDDED, Engine
from node.ipfs.errors import UnverifiedError
from node.ipfs.exercise import deterministic_bytes, exercise
from tests.unit.node.ipfs.fake_rpc import ME, OTHER, FakeDaemon, fake_daemon

ORDER = {
    "name": "w1",
    "engine": "auto",
    "transport": "prompt",
    "data_address": "10.77.0.1",
    "swarm_key": "ab" * 32,
    "folder": "set by each test",
    "object_bytes": 300_000,
}
ADDRESS = f"/ip4/10.77.0.2/tcp/4001/p2p/{OTHER}"
PEERS = {"peers": [{"name": "w2", "peer_id": OTHER, "address": ADDRESS}]}


class FakeProcess:
    """Stands for the daemon's process, and remembers what was done with it."""

    def __init__(self, engine: Engine, folder: Path, settings: Settings, swarm_key: str) -> None:
        self.engine, self.acts = engine, ALL_ACTS
        self.process: object | None = None

    def prepare(self) -> str:
        return ME

    def start(self) -> None:
        self.process = object()
        self.acts.append("start")

    def wait_ready(self) -> None:
        self.acts.append("ready")

    def stop(self) -> None:
        self.acts.append("stop")


ALL_ACTS: list[str] = []


class Dialogue:
    """The orchestrator's side."""

    def __init__(self, capsys: pytest.CaptureFixture[str], fake: FakeDaemon) -> None:
        self.fake = fake
        self._lines = asyncio.StreamReader()
        self._capsys = capsys
        self._said: list[dict[str, Any]] = []
        self.task = asyncio.create_task(exercise(self._lines))

    def tell(self, value: object) -> None:
        self._lines.feed_data(json.dumps(value).encode() + b"\n")

    def close(self) -> None:
        self._lines.feed_eof()

    def said(self) -> list[dict[str, Any]]:
        self._said += [json.loads(line) for line in self._capsys.readouterr().out.splitlines()]
        return self._said

    async def wait_said(self, event: str) -> dict[str, Any]:
        async with asyncio.timeout(20):
            while not (found := [e for e in self.said() if e["event"] == event]):
                if self.task.done():
                    self.task.result()
                    raise AssertionError(f"ended without {event}")
                await asyncio.wait({self.task}, timeout=0.01)
        return found[-1]


@asynccontextmanager
async def far_end(asker: str) -> AsyncIterator[int]:
    """What a tunnel leads to: a member that takes us for `asker`."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(asker.encode() + b"\n" + await reader.read(1000))
        await writer.drain()
        await reader.read()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


@asynccontextmanager
async def dialogue(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, asker: str = ME
) -> AsyncIterator[Dialogue]:
    ALL_ACTS.clear()
    engine = Engine("embedded", Path("/no/such"), "1.0", EMBEDDED)
    async with fake_daemon() as fake, far_end(asker) as port:

        async def forward(request: web.Request) -> web.Response:
            protocol, _, target = request.query.getall("arg")
            listen = f"/ip4/127.0.0.1/tcp/{port}"
            fake.forwards.append({"Protocol": protocol, "ListenAddress": listen, "TargetAddress": target})
            return web.Response()

        fake.overrides["p2p/forward"] = forward
        monkeypatch.setattr("node.ipfs.engine.find", {"auto": engine}.__getitem__)
        monkeypatch.setattr(module, "Daemon", FakeProcess)
        monkeypatch.setattr(module, "Settings", partial(Settings, api_port=fake.port))
        talk = Dialogue(capsys, fake)
        try:
            talk.tell({**ORDER, "folder": str(tmp_path / "w1")})
            yield talk
        finally:
            talk.close()
            await asyncio.wait({talk.task}, timeout=20)


async def test_the_whole_protocol(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with dialogue(capsys, monkeypatch, tmp_path) as talk:
        ready = await talk.wait_said("ready")
        assert ready.pop("start_ms") >= 0
        assert ready == {
            "event": "ready",
            "engine": "embedded",
            "version": "1.0",
            "peer_id": ME,
            "address": f"/ip4/10.77.0.1/tcp/4001/p2p/{ME}",
        }
        talk.tell(PEERS)
        added = await talk.wait_said("added")
        assert talk.fake.files[added["cid"]] == deterministic_bytes("w1", 300_000)
        assert added["cid"] in talk.fake.pins
        assert added["size_bytes"] == 300_000
        assert talk.fake.connected == {OTHER}
        listen = next(call for call in talk.fake.calls if call[0] == "p2p/listen")
        assert listen[2]["report-peer-id"] == "true"

        cid = talk.fake.add(deterministic_bytes("w2", 200_000))
        talk.fake.received_bytes = 200_050
        talk.fake.overrides["bitswap/stat"] = stat
        monkeypatch.setattr("node.ipfs.client.Client.metrics", metrics)
        talk.tell({"objects": [{**PEERS["peers"][0], "cid": cid, "size_bytes": 200_000}]})
        done = await talk.wait_said("done")
        assert [event["event"] for event in talk.said()] == ["ready", "added", "fetched", "tunnelled", "done"]
        fetched, tunnelled = talk.said()[2:4]
        assert (fetched["name"], fetched["cid"], fetched["size_bytes"]) == ("w2", cid, 200_000)
        assert (tunnelled["name"], tunnelled["asker_verified"]) == ("w2", True)
        assert done == {"event": "done", "bytes_received": 7, "duplicate_bytes": 3, "resident_bytes": 5}
        assert ALL_ACTS == ["start", "ready"]
    talk.task.result()
    assert ALL_ACTS == ["start", "ready", "stop"]


async def stat(request: web.Request) -> web.Response:
    return web.json_response({"DataReceived": 7, "DupDataReceived": 3})


async def metrics(client: object) -> dict[str, float]:
    return {"process_resident_memory_bytes": 5.0}


async def test_the_end_of_input_in_the_middle_stops_the_daemon(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with dialogue(capsys, monkeypatch, tmp_path) as talk:

        async def hang(request: web.Request) -> web.Response:
            await asyncio.Event().wait()
            return web.Response()

        talk.fake.overrides["swarm/connect"] = hang
        talk.tell(PEERS)
        await talk.fake.wait_called(1, "swarm/connect")
    talk.task.result()
    assert ALL_ACTS == ["start", "ready", "stop"]


async def test_an_asker_taken_for_somebody_else_is_a_failure(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with dialogue(capsys, monkeypatch, tmp_path, asker=OTHER) as talk:
        talk.tell(PEERS)
        cid = talk.fake.add(b"x")
        talk.tell({"objects": [{**PEERS["peers"][0], "cid": cid, "size_bytes": 1}]})
        with pytest.raises(UnverifiedError, match="tunnel to w2"):
            await talk.wait_said("done")
    assert ALL_ACTS[-1] == "stop"


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ([{"peers": [{"name": "w2", "peer_id": OTHER}]}], "key address"),
        ([{"objects": []}], "key peers"),
        ([[1]], "no object"),
    ],
)
async def test_a_bad_line_is_named(
    lines: list[object],
    complaint: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    async with dialogue(capsys, monkeypatch, tmp_path) as talk:
        for line in lines:
            talk.tell(line)
        with pytest.raises(UsageError, match=complaint):
            await talk.wait_said("done")


def run(text: str) -> tuple[int, dict[str, Any]]:
    command = [sys.executable, "-W", "error", "-m", "node.ipfs.exercise"]
    ran = subprocess.run(
        command, input=text, capture_output=True, text=True, check=False, cwd=TOP, timeout=60
    )
    assert ran.stderr == ""
    return ran.returncode, json.loads(ran.stdout) if ran.stdout else {}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("nonsense\n", "standard input"),
        ("{}\n", "key name"),
        ('{"name": 5}\n', "key name"),
        ("x" * 2_000_000, "input"),
    ],
    ids=["no JSON", "no name", "a bad name", "a long line"],
)
def test_a_failure_is_an_event_with_a_message(text: str, complaint: str) -> None:
    status, event = run(text)
    assert (status, event["event"]) == (64, "failed")
    assert complaint in event["message"]


def test_a_folder_that_cannot_be_made_is_the_hosts_fault() -> None:
    status, event = run(json.dumps({**ORDER, "folder": "/proc/self/x"}) + "\n")
    assert (status, event["event"]) == (69, "failed")
    assert "/proc/self/x" in event["message"]


def test_no_order_at_all_is_no_failure() -> None:
    assert run("") == (0, {})


def test_objects_differ_by_name_and_by_nothing_else() -> None:
    assert deterministic_bytes("w1", 100) == deterministic_bytes("w1", 100)
    assert deterministic_bytes("w1", 100) != deterministic_bytes("w2", 100)
    assert len(deterministic_bytes("w1", 1 << 20)) == 1 << 20
