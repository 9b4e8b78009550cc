"""A node's parts at work in real network namespaces: zygote, supervisor, agent, IPFS daemon, Prometheus."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import secrets
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from node.contract import ExitCode
from node.contract.plan import (
    NetworkPlan,
    NodePlan,
    Plan,
    Role,
)
from node.contract.schema import to_json
from node.contract.series import SERIES
from node.contract.settings import (
    AGENT_PORT,
    EVENTS_FILE,
    PROMETHEUS_PORT,
    SWARM_PORT,
    Neighbour,
    NodeSettings,
)
from node.ipfs.engine import find
from node.namespace import NodeThread, enter
from node.process import Process, ProcessId
from node.supervisor import daemon_of
from node.zygote import IMPORTS
from orchestrator.boxes.box import Box
from orchestrator.monitoring import prometheus
from tests.settings import AGGREGATION, WORKLOAD, node_settings

TOP = Path(__file__).resolve().parents[2]
DATA, CTL = "data2", "ctl2"  # other tests in this box have a bridge called data
NODES = {"p1": 1, "p2": 2}
TOKEN = "open sesame"
WAIT_S = 60.0
PAUSE_S = 0.02  # between two looks


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
                env={**os.environ, "PYTHONPATH": str(folder)},  # for the modules that tests bring
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
    return node_settings(
        name,
        home,
        data_address=f"10.78.1.{number}",
        ctl_address=f"10.78.2.{number}",
        engine_path=str(engine.path),
        swarm_key_file=str(secret_files / "swarm.key"),
        token_file=str(secret_files / "token"),
        **more,
    )


@pytest.fixture(scope="module")
def nodes() -> dict[str, Inside]:
    """Two nodes on two networks of their own; they stay until the box ends."""
    box = Box.current()
    box.add_bridge(DATA)
    box.add_bridge(CTL)
    for name, number in NODES.items():
        box.add_node(name, {DATA: f"10.78.1.{number}/24", CTL: f"10.78.2.{number}/24"})
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
                time.sleep(PAUSE_S)  # the agent is starting
                continue
            assert answer.status == 200, answer
            self._offset = int(answer.headers["x-next-offset"])
            self.seen += [json.loads(line) for line in answer.body.splitlines()]
        folder = Path(self._settings.folder)
        logs = {log.name: log.read_text(errors="replace")[-2000:] for log in folder.glob("*.log")}
        raise AssertionError(f"no event {kind} {fields}; seen: {self.seen}; {events(self._settings)}; {logs}")


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

        # one session, in which nicer threads give way, and a group each, so that a signal reaches one
        pids = [part["pid"] for part in parts.values()]
        assert {os.getsid(pid) for pid in pids} == {os.getsid(zygote.process.pid)}
        assert [os.getpgid(pid) for pid in pids] == pids

        # what is measured
        page = samples(get(inside, first, "/metrics").body)
        assert ours(page) == {name for name, series in SERIES.items() if series.by in ("agent", "ipfs")}
        assert page['shoal_interface_sent_bytes_total{interface="lo"}'] > 0  # this very page
        # As the agent names it, by its address; the box calls it otherwise.
        assert 'shoal_interface_received_bytes_total{interface="data"}' in page
        assert {'shoal_part_up{part="ipfs"}', 'shoal_part_up{part="supervisor"}'} <= set(page)
        assert (
            page['shoal_part_proportional_bytes{part="agent"}']
            < page['shoal_part_resident_bytes{part="agent"}']
        )
        assert "exchange_bitswap_wantlists_total" in {name.partition("{")[0] for name in page}

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


def test_a_node_that_can_tell_nothing_more_ends_with_all_its_parts(
    nodes: dict[str, Inside], tmp_path: Path, secret_files: Path
) -> None:
    """Its disk is full when its daemon dies, so that the end cannot be written down."""
    settings = settings_of("p1", tmp_path, secret_files)
    Box.current().run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", settings.folder], timeout_s=WAIT_S)
    daemon_of(settings).prepare()
    zygote = Zygote(tmp_path, "node.agent")
    try:
        zygote.start(settings, tmp_path / "p1.json")
        Watcher(nodes["p1"], settings).wait_event("ipfs_ready")
        started = [event for event in events(settings) if event["kind"] == "part_started"]
        parts = {event["part"]: ProcessId(event["pid"], event["start_ticks"]) for event in started}
        fill_disk(Path(settings.folder))
        parts["ipfs"].signal(signal.SIGKILL)
        assert zygote.hear() == {"exited": "p1", "status": ExitCode.HOST}
        wait_until(lambda: not parts["agent"].is_alive())
    finally:
        zygote.close()
        Box.current().run(["umount", settings.folder], timeout_s=WAIT_S)


def fill_disk(folder: Path) -> None:
    """To the last byte: events are appended to a page that may have some room left."""
    for file in (folder / "filler", folder / EVENTS_FILE):
        with file.open("ab", buffering=0) as filler:
            for size_bytes in (1 << 16, 1):
                with contextlib.suppress(OSError):
                    while filler.write(b"\n" * size_bytes):
                        pass


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(PAUSE_S)


ROLE = """
import asyncio
from node.contract.series import SERIES

async def run(settings, events, metrics, stop):
    use = {"gauge": lambda m: m.set(1), "counter": lambda m: m.inc(), "histogram": lambda m: m.observe(1)}
    for name, series in SERIES.items():
        if series.by == metrics.role:
            use[series.kind](getattr(metrics, series.kind)(name, **dict.fromkeys(series.labels, "x")))
    events.write("all_ready", trainers=[settings.name])
    await stop.wait()
"""


@pytest.mark.parametrize("role", ["trainer", "aggregator"])
def test_prometheus_gets_every_series_of_the_table(
    role: Role, nodes: dict[str, Inside], tmp_path: Path, secret_files: Path
) -> None:
    """A real Prometheus scrapes an agent with a real daemon and a role that uses its whole table."""
    settings = settings_of("p2", tmp_path, secret_files, roles=(role,))
    plan = Plan(
        1,
        "s",
        "",
        1,
        (NodePlan("p2", (role,), None, None, settings.data_address, settings.ctl_address),),
        NetworkPlan("10.78.1.0/24", "10.78.2.0/24", "prompt", ()),
        WORKLOAD,
        AGGREGATION,
        (),
    )
    (tmp_path / "some_role.py").write_text(ROLE)
    (tmp_path / "take_role.py").write_text(
        f"from node.role import ENTRY_POINTS\nENTRY_POINTS[{role!r}] = 'some_role:run'\n"
    )
    with ExitStack() as ending:
        node = NodeThread("p2")  # lives as long as what it starts
        ending.callback(node.close)
        zygote = Zygote(tmp_path, "node.agent", "take_role")
        ending.callback(zygote.close)
        started = zygote.start(settings, tmp_path / "p2.json")
        Watcher(nodes["p2"], settings).wait_event("all_ready")

        file = tmp_path / "prometheus.yml"
        file.write_text(prometheus.configuration(plan))
        program = prometheus.find()
        promtool = program.binary.with_name("promtool")
        subprocess.run([promtool, "check", "config", file], check=True, capture_output=True)
        words = prometheus.argv(program, file, tmp_path / "tsdb")
        server = node.call(
            Process.start, words, env={"PATH": "/usr/bin:/bin"}, log=tmp_path / "prometheus.log"
        )
        ending.callback(server.wait_exit, WAIT_S)
        ending.callback(server.signal, signal.SIGTERM)

        def ask(path: str) -> bytes:
            return nodes["p2"].get("127.0.0.1", PROMETHEUS_PORT, path).body

        wanted = {name for name, series in SERIES.items() if series.by in ("agent", "ipfs", role)}
        wait_scraped(ask, "shoal_part_up")
        exported = prometheus.export(ask, tmp_path / "series")
        ProcessId(started["pid"], started["start_ticks"]).signal(signal.SIGTERM)
        assert zygote.hear() == {"exited": "p2", "status": 0}

    names = {re.sub("_(bucket|sum|count)$", "", one.name) for one in exported}
    assert {n for n in names if n.startswith("shoal_") and not n.startswith("shoal_ipfsd_")} == wanted
    assert "exchange_bitswap_wantlists_total" in names
    table = parquet.read_table(tmp_path / "series" / "shoal_part_up.parquet")
    labels = [json.loads(text) for text in table["labels"].to_pylist()]
    assert {(one["node"], one["job"]) for one in labels} == {("p2", "node")}
    assert {one["part"] for one in labels} == {"supervisor", "agent", "ipfs", role}
    assert [e["part"] for e in events(settings) if e["kind"] == "part_ended"] == [role, "ipfs", "agent"]


def wait_scraped(ask: Callable[[str], bytes], name: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        try:
            if json.loads(ask(f"/api/v1/query?query={name}"))["data"]["result"]:
                return
        except (ConnectionRefusedError, ValueError):
            pass  # it is starting
        time.sleep(PAUSE_S)
    raise AssertionError(f"{name} was not scraped")


TFF_ROLE = """
import sys

async def run(settings, events, metrics, stop):
    began_with_tff = "tensorflow_federated" in sys.modules
    import tensorflow as tf
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    assert began_with_tff and float(tf.reduce_sum(tf.ones((200, 200)) @ tf.ones((200, 200)))) == 200.0**3
    events.write("all_ready", trainers=[settings.name])
    await stop.wait()
"""


def test_one_import_of_tff_serves_two_nodes(
    nodes: dict[str, Inside], tmp_path: Path, secret_files: Path
) -> None:
    """Each node's child computes with TensorFlow, in its own node, on memory that they share."""
    (tmp_path / "tff_role.py").write_text(TFF_ROLE)
    (tmp_path / "take_role.py").write_text(
        "from node.role import ENTRY_POINTS\nENTRY_POINTS['trainer'] = 'tff_role:run'\n"
    )
    every = [settings_of(name, tmp_path, secret_files, roles=("trainer",)) for name in NODES]
    zygote = Zygote(tmp_path, *IMPORTS, "take_role")
    try:
        started = {s.name: zygote.start(s, tmp_path / f"{s.name}.json") for s in every}
        for settings in every:
            inside = nodes[settings.name]
            Watcher(inside, settings).wait_event("all_ready")
            page = samples(get(inside, settings, "/metrics").body)
            resident = page['shoal_part_resident_bytes{part="trainer"}']
            proportional = page['shoal_part_proportional_bytes{part="trainer"}']
            assert 0 < proportional < resident / 2
            pids = json.loads(get(inside, settings, "/health", TOKEN).body)["parts"]["trainer"]
            assert network_of(pids["pid"]) == os.stat(f"/run/netns/{settings.name}").st_ino
        for one in started.values():
            ProcessId(one["pid"], one["start_ticks"]).signal(signal.SIGTERM)
        assert [zygote.hear()["status"] for _ in started] == [0, 0]
    finally:
        zygote.close()


def network_of(pid: int) -> int:
    """The network namespace that all threads of a process are in."""
    (number,) = {os.stat(task / "ns/net").st_ino for task in Path(f"/proc/{pid}/task").iterdir()}
    return number
