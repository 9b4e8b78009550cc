"""A node's parts at work in real network namespaces: zygote, supervisor, agent, IPFS daemon, Prometheus."""

from __future__ import annotations

import http.client
import json
import secrets
import select
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from node.contract.plan import AggregationPlan, PartitionPlan, WorkloadPlan
from node.contract.schema import to_json
from node.contract.series import SERIES
from node.contract.settings import AGENT_PORT, EVENTS_FILE, SWARM_PORT, Neighbour, NodeSettings
from node.ipfs.engine import find
from node.namespace import enter
from node.process import ProcessId
from node.supervisor import daemon_of
from orchestrator.box import Box

TOP = Path(__file__).resolve().parents[2]
DATA, CTL = "data", "ctl2"
NODES = {"p1": 1, "p2": 2}
TOKEN = "open sesame"
WAIT_S = 60.0
WORKLOAD = WorkloadPlan("digits", "cnn", PartitionPlan("iid"), 1, 1, 32, 0.1)
AGGREGATION = AggregationPlan("mean", "sync", 1.0, 30.0, {})


@dataclass
class Answer:
    status: int
    body: bytes
    headers: dict[str, str]


class Inside:
    """HTTP from a thread that is in a node."""

    def __init__(self, node: str) -> None:
        self._thread = ThreadPoolExecutor(1, initializer=enter, initargs=(node,))

    def get(self, address: str, port: int, path: str, headers: dict[str, str] | None = None) -> Answer:
        def ask() -> Answer:
            connection = http.client.HTTPConnection(address, port, timeout=WAIT_S)
            try:
                connection.request("GET", path, headers=headers or {})
                reply = connection.getresponse()
                return Answer(reply.status, reply.read(), {k.lower(): v for k, v in reply.getheaders()})
            finally:
                connection.close()

        return self._thread.submit(ask).result(WAIT_S)

    def close(self) -> None:
        self._thread.shutdown()


class Zygote:
    """A running zygote, asked over its socket."""

    def __init__(self, folder: Path, *modules: str) -> None:
        self.errors = folder / "zygote.log"
        path = folder / "zygote.sock"
        imports = [word for module in modules for word in ("--import", module)]
        with self.errors.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "node.zygote", str(path), *imports],
                cwd=TOP,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        assert self.process.stdout is not None
        assert select.select([self.process.stdout], [], [], 120)[0], "the zygote is not ready"
        assert self.process.stdout.readline() == b"ready\n", self.errors.read_text()
        self.link = socket.socket(socket.AF_UNIX)
        self.link.settimeout(WAIT_S)
        self.link.connect(str(path))
        self._lines = self.link.makefile("rb")

    def start(self, settings: NodeSettings, file: Path, **more: Any) -> dict[str, Any]:
        file.write_text(json.dumps(to_json(settings)))
        request = {"settings": str(file), "node": settings.name, **more}
        self.link.sendall(json.dumps(request).encode() + b"\n")
        return self.hear()

    def hear(self) -> dict[str, Any]:
        said = json.loads(self._lines.readline())
        assert isinstance(said, dict)
        return said

    def close(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(WAIT_S)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._lines.close()
        self.link.close()


def settings_of(name: str, folder: Path, secret_files: Path, **more: Any) -> NodeSettings:
    engine = find("embedded")
    number = NODES[name]
    home = folder / name
    home.mkdir()
    return NodeSettings(
        run="r1",
        name=name,
        roles=more.pop("roles", ()),
        seed=1,
        folder=str(home),
        data_address=f"10.78.1.{number}",
        ctl_address=f"10.78.2.{number}",
        engine="embedded",
        engine_path=str(engine.path),
        transport="prompt",
        swarm_key_file=str(secret_files / "swarm.key"),
        token_file=str(secret_files / "token"),
        neighbours=(),
        members={},
        aggregator=None,
        workload=WORKLOAD,
        aggregation=AGGREGATION,
        task_file=None,
        shard=None,
        shards={},
        test_file=None,
    )


@pytest.fixture(scope="module")
def nodes() -> dict[str, Inside]:
    """Two nodes on two networks of their own; they stay until the box ends."""
    box = Box.current()
    box.add_bridge("data2")
    box.add_bridge(CTL)
    for name, number in NODES.items():
        box.add_node(name, {"data2": f"10.78.1.{number}/24", CTL: f"10.78.2.{number}/24"})
    return {name: Inside(name) for name in NODES}


@pytest.fixture
def secret_files(tmp_path: Path) -> Path:
    (tmp_path / "token").write_text(TOKEN + "\n")
    (tmp_path / "swarm.key").write_text(secrets.token_hex(32))
    return tmp_path


def events(settings: NodeSettings) -> list[dict[str, Any]]:
    file = Path(settings.folder) / EVENTS_FILE
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


class Watcher:
    """Reads a node's events as the orchestrator does."""

    def __init__(self, inside: Inside, settings: NodeSettings) -> None:
        self._inside, self._settings = inside, settings
        self._offset = 0
        self.seen: list[dict[str, Any]] = []

    def wait_event(self, kind: str, **fields: Any) -> dict[str, Any]:
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            for event in self.seen:
                if event["kind"] == kind and fields.items() <= event.items():
                    return event
            try:
                answer = get(self._inside, self._settings, f"/events?from={self._offset}", TOKEN)
            except ConnectionRefusedError:
                continue  # the agent is starting
            assert answer.status == 200, answer
            self._offset = int(answer.headers["x-next-offset"])
            self.seen += [json.loads(line) for line in answer.body.splitlines()]
        raise AssertionError(f"no event {kind} {fields}; seen: {self.seen}")


def get(
    inside: Inside, settings: NodeSettings, path: str, token: str | None = None, **headers: str
) -> Answer:
    given = {"Authorization": f"Bearer {token}"} if token is not None else {}
    return inside.get(settings.ctl_address, AGENT_PORT, path, {**given, **headers})


def samples(text: bytes) -> dict[str, float]:
    return {
        line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1])
        for line in text.decode().splitlines()
        if line and not line.startswith("#")
    }


def ours(page: dict[str, float]) -> set[str]:
    """Names of Shoal's own series, without those of the embedded daemon."""
    names = {name.partition("{")[0] for name in page}
    return {n for n in names if n.startswith("shoal_") and not n.startswith("shoal_ipfsd_")}


def test_two_nodes_of_one_zygote(nodes: dict[str, Inside], tmp_path: Path, secret_files: Path) -> None:
    """From the fork to the end in order: everything but the roles, with real daemons."""
    first = settings_of("p1", tmp_path, secret_files)
    second = settings_of("p2", tmp_path, secret_files)
    ids = {s.name: daemon_of(s).prepare() for s in (first, second)}
    address = f"/ip4/{second.data_address}/tcp/{SWARM_PORT}"
    first = replace(first, neighbours=(Neighbour("p2", ids["p2"], address),))
    zygote = Zygote(tmp_path, "node.agent")
    try:
        started = {s.name: zygote.start(s, tmp_path / f"{s.name}.json") for s in (first, second)}
        watchers = {s.name: Watcher(nodes[s.name], s) for s in (first, second)}
        for name, watcher in watchers.items():
            assert started[name]["node"] == name
            assert ProcessId(started[name]["pid"], started[name]["start_ticks"]).is_alive()
            assert watcher.wait_event("ipfs_ready")["peer_id"] == ids[name]
        assert "runs already" in zygote.start(second, tmp_path / "again.json")["error"]

        # who may ask
        inside = nodes["p1"]
        assert get(inside, first, "/health").status == 401
        assert get(inside, first, "/health", "wrong").status == 401
        assert get(inside, first, "/events", "").status == 401
        assert get(inside, first, "/health", TOKEN, Origin="http://evil").status == 403
        assert get(inside, first, "/metrics", Origin="http://evil").status == 403
        assert get(inside, first, "/events?from=-1", TOKEN).status == 400
        parts = json.loads(get(inside, first, "/health", TOKEN).body)["parts"]
        assert {part: state["is_up"] for part, state in parts.items()} == {"agent": True, "ipfs": True}

        # what is measured
        page = samples(get(inside, first, "/metrics").body)
        assert ours(page) == {name for name, series in SERIES.items() if series.by == "agent"}
        assert page['shoal_interface_sent_bytes_total{interface="lo"}'] > 0  # this very page
        assert 'shoal_interface_received_bytes_total{interface="data2"}' in page
        assert {'shoal_part_up{part="ipfs"}', 'shoal_part_up{part="supervisor"}'} <= set(page)
        assert (
            page['shoal_part_proportional_bytes{part="agent"}']
            < page['shoal_part_resident_bytes{part="agent"}']
        )
        assert "libp2p_swarm_connections_opened_total" in {name.partition("{")[0] for name in page}

        # the daemon of one dies: it is told, and the node's other parts live
        killed = parts["ipfs"]
        ProcessId(killed["pid"], killed["start_ticks"]).signal(signal.SIGKILL)
        ended = watchers["p1"].wait_event("part_ended", part="ipfs")
        assert (ended["status"], ended["expected"]) == (-9, False)
        assert samples(get(inside, first, "/metrics").body)['shoal_part_up{part="ipfs"}'] == 0

        # the end
        for name in ("p1", "p2"):
            ProcessId(started[name]["pid"], started[name]["start_ticks"]).signal(signal.SIGTERM)
        exited = [zygote.hear(), zygote.hear()]
        assert {e["exited"]: e["status"] for e in exited} == {"p1": 70, "p2": 0}
        assert [e["part"] for e in events(second) if e["kind"] == "part_ended"] == ["ipfs", "agent"]
        assert all(e["expected"] for e in events(second) if e["kind"] == "part_ended")
    finally:
        zygote.close()
    assert zygote.process.returncode == 0
