"""A node's agent and its links, over HTTP: in force before others start, cut at an instant, back after a kill."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from node.contract.links import Cut, CutDone, InForce, LinkTable, PeerLinks, Shape
from node.contract.schema import from_json, to_json
from node.contract.series import SERIES
from node.contract.settings import AGENT_PORT, EVENTS_FILE, NodeSettings
from node.links import engine
from node.namespace import enter
from node.process import ProcessId
from orchestrator.boxes.box import Box, Node
from orchestrator.process import Process
from tests.settings import node_settings

TOP = Path(__file__).resolve().parents[2]
SUBNET = "10.77.41.0/24"
TOKEN = "open sesame"
WAIT_S = 90.0
PAUSE_S = 0.05
IS_SLOW = os.environ.get("SHOAL_SLOW_GUEST") == "1"  # an emulated processor
COUNT = 2 if IS_SLOW else 4  # nodes


class Running:
    """A node of which only the agent runs."""

    def __init__(self, node: Node, number: int, folder: Path, links: LinkTable | None) -> None:
        self.name, self.node, self.folder = node.name, node, folder
        self.address, self.ctl = f"10.77.41.{number}", f"10.77.42.{number}"
        self._thread = ThreadPoolExecutor(1, initializer=enter, initargs=(node.name,))
        self._settings = folder / "settings.json"
        self._settings.write_text(json.dumps(to_json(self._made(links))))
        self.process: Process | None = None

    def _made(self, links: LinkTable | None) -> NodeSettings:
        (self.folder / "token").write_text(TOKEN + "\n")
        probed = engine.probe()
        return node_settings(
            self.name,
            self.folder,
            data_address=self.address,
            ctl_address=self.ctl,
            links=links,
            delay_engine="netem" if not probed.netem else "hold",
        )

    def start(self) -> None:
        log = (self.folder / "out.log").open("ab")
        with log:
            self.process = self.node.start(
                [sys.executable, "-m", "node", str(self._settings), "--parts", "agent"],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={"PYTHONPATH": str(TOP)},
            )

    def ask(self, method: str, path: str, body: Any = None, token: str = TOKEN) -> tuple[int, Any]:
        def call() -> tuple[int, Any]:
            connection = http.client.HTTPConnection(self.ctl, AGENT_PORT, timeout=WAIT_S)
            try:
                content = None if body is None else json.dumps(to_json(body))
                connection.request(method, path, content, {"Authorization": f"Bearer {token}"})
                reply = connection.getresponse()
                text = reply.read()
                return reply.status, json.loads(text) if "json" in reply.headers.get(
                    "Content-Type", ""
                ) else text
            finally:
                connection.close()

        return self._thread.submit(call).result(WAIT_S)

    def events(self, kind: str) -> list[dict[str, Any]]:
        file = self.folder / EVENTS_FILE
        lines = file.read_text().splitlines() if file.exists() else []
        return [event for event in map(json.loads, lines) if event["kind"] == kind]

    def wait_event(self, kind: str, count: int = 1) -> dict[str, Any]:
        wait(lambda: len(self.events(kind)) >= count, f"{self.name}: {kind} {count} times")
        return self.events(kind)[count - 1]

    def wait_answers(self) -> None:
        def answers() -> bool:
            try:
                return self.ask("GET", "/clock")[0] == 200
            except OSError:
                return False

        wait(answers, f"{self.name} answers")

    def end(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(WAIT_S)


def wait(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(PAUSE_S)


def tables() -> dict[str, LinkTable]:
    """Each hears each with 10 ms; no class has the rate of another."""
    names = {f"agl{n}": f"10.77.41.{n}" for n in range(1, COUNT + 1)}
    return {
        name: LinkTable(
            node=name,
            address=address,
            subnet=SUBNET,
            up_bit_s=100_000_000,
            down_bit_s=None,
            peers=tuple(
                PeerLinks(peer, at, Shape(latency_ms=10, rate_bit_s=20_000_000), Shape(latency_ms=10))
                for peer, at in names.items()
                if peer != name
            ),
        )
        for name, address in names.items()
    }


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Running]]:
    box = Box.current()
    for bridge in ("data", "ctl"):
        if box.run(["ip", "link", "show", bridge], timeout_s=WAIT_S, check=False).status != 0:
            box.add_bridge(bridge)
    wanted = tables()
    made = []
    for number in range(1, COUNT + 1):
        addresses = {"data": f"10.77.41.{number}/24", "ctl": f"10.77.42.{number}/24"}
        node = box.add_node(f"agl{number}", addresses)
        made.append(Running(node, number, tmp_path_factory.mktemp(node.name), wanted[node.name]))
    with ExitStack() as ending:
        for running in made:
            running.start()
            ending.callback(running.end)
        for running in made:
            running.wait_answers()
        yield made


def agent_of(running: Running) -> ProcessId:
    started = [event for event in running.events("part_started") if event["part"] == "agent"][-1]
    return ProcessId(started["pid"], started["start_ticks"])


@pytest.mark.by_kernel
def test_links_are_in_force_at_the_start(fleet: list[Running]) -> None:
    applied = fleet[0].wait_event("links_applied")
    assert (applied["peers"], applied["mismatches"]) == (COUNT - 1, [])
    status, body = fleet[0].ask("GET", "/links")
    now = from_json(InForce, body)
    assert (status, now.mismatches, now.up_bit_s) == (200, (), 100_000_000)
    assert [link.rate_bit_s for link in now.links] == [20_000_000] * (COUNT - 1)


def test_a_token_is_needed_for_all_of_it(fleet: list[Running]) -> None:
    for method, path in (
        ("GET", "/links"),
        ("PUT", "/links"),
        ("PUT", "/cuts"),
        ("DELETE", "/cuts/x"),
        ("POST", "/probes"),
        ("GET", "/clock"),
    ):
        assert fleet[0].ask(method, path, token="wrong")[0] == 401


def test_what_is_wrong_is_refused_and_nothing_changes(fleet: list[Running]) -> None:
    a = fleet[0]
    status, body = a.ask("PUT", "/links", {**to_json(tables()["agl2"])})
    assert (status, "agl2" in body["error"]) == (400, True)
    assert (
        a.ask("PUT", "/cuts", {"cut": {"fault": "x", "deaf_to": {"nobody": "drop"}}, "at_mono_ns": 0})[0]
        == 400
    )
    assert a.ask("PUT", "/cuts", {"cut": {"fault": "x"}})[0] == 400
    assert a.ask("DELETE", "/cuts/x?at_mono_ns=soon")[0] == 400
    now = from_json(InForce, a.ask("GET", "/links")[1])
    assert (now.mismatches, [link.is_cut for link in now.links]) == ((), [None] * (COUNT - 1))


def test_nodes_are_cut_at_one_instant_and_healed(fleet: list[Running]) -> None:
    """The clock is one for all: they share a kernel."""
    at_mono_ns = time.monotonic_ns() + (6 if IS_SLOW else 1) * 1_000_000_000  # all are told by then

    def cut(running: Running) -> CutDone:
        peers = {other.name: "drop" for other in fleet if other is not running}
        status, body = running.ask(
            "PUT", "/cuts", {"cut": {"fault": "all", "deaf_to": peers}, "at_mono_ns": at_mono_ns}
        )
        assert status == 200, body
        return from_json(CutDone, body)

    with ThreadPoolExecutor(COUNT) as pool:
        done = list(pool.map(cut, fleet))
    late_ms = [(one.effective_mono_ns - at_mono_ns) / 1e6 for one in done]
    print("cuts late by ms:", [f"{ms:.1f}" for ms in late_ms])
    a, b = fleet[:2]
    echo = {"do": "echo", "peer_address": b.address, "count": 3, "interval_ms": 5, "timeout_ms": 300}
    assert a.ask("POST", "/probes", echo)[1]["rtt_ms"] == []
    for running in fleet:
        assert from_json(CutDone, running.ask("DELETE", "/cuts/all?at_mono_ns=0")[1]).deaf_to == {}
    times_ms = a.ask("POST", "/probes", echo)[1]["rtt_ms"]
    assert len(times_ms) == 3
    assert min(times_ms) > 19.5
    assert min(late_ms) > -2
    # Four agents take turns on the one emulated processor.
    assert max(late_ms) - min(late_ms) < (10_000 if IS_SLOW else 1000)


def test_a_killed_agent_comes_back_with_its_links_and_cuts(fleet: list[Running]) -> None:
    a, b = fleet[:2]
    changed = tables()["agl1"]
    status, body = a.ask("PUT", "/links", LinkTable(**{**vars(changed), "up_bit_s": 50_000_000}))
    assert (status, body["mismatches"]) == (200, [])
    cut = to_json(Cut("while", {b.name: "drop"}))
    assert a.ask("PUT", "/cuts", {"cut": cut, "at_mono_ns": 0})[0] == 200
    before = agent_of(a)
    assert before.signal(signal.SIGKILL)
    assert a.wait_event("links_applied", 2)["mismatches"] == []
    a.wait_answers()
    assert agent_of(a) != before
    now = from_json(InForce, a.ask("GET", "/links")[1])
    assert (now.mismatches, now.up_bit_s) == ((), 50_000_000)
    assert [link.is_cut for link in now.links] == ["drop", *[None] * (COUNT - 2)]
    assert a.ask("DELETE", "/cuts/while?at_mono_ns=0")[1]["deaf_to"] == {}


@pytest.mark.by_kernel
def test_the_watch_tells_and_repairs(fleet: list[Running]) -> None:
    a = fleet[0]
    told = len(a.events("link_mismatch"))
    a.node.run(["tc", "qdisc", "delete", "dev", "data", "root"], timeout_s=WAIT_S)
    event = a.wait_event("link_mismatch", told + 1)
    assert (event["repaired"], event["in_fault"]) == (True, False)
    assert "data: no tree" in event["said"]
    assert from_json(InForce, a.ask("GET", "/links")[1]).mismatches == ()


@pytest.mark.skipif(COUNT < 4, reason="few nodes on slow machines, and this takes one beside the two ends")
def test_the_watch_repairs_ways_through_others(fleet: list[Running]) -> None:
    a, _, c, d = fleet
    plain = tables()["agl1"]
    peers = tuple(replace(one, via=c.address if one.peer == d.name else None) for one in plain.peers)
    assert a.ask("PUT", "/links", replace(plain, peers=peers))[1]["mismatches"] == []
    told = len(a.events("link_mismatch"))
    a.node.run(["ip", "route", "delete", d.address], timeout_s=WAIT_S)
    event = a.wait_event("link_mismatch", told + 1)
    assert (event["repaired"], event["in_fault"]) == (True, False)
    assert f"to {d.name} go as to all others" in event["said"]
    assert from_json(InForce, a.ask("GET", "/links")[1]).mismatches == ()
    assert a.ask("PUT", "/links", plain)[1]["mismatches"] == []


def test_a_killed_holder_comes_back(fleet: list[Running]) -> None:
    """Its links are dark until then, never unshaped."""
    a, b = fleet[:2]
    if engine.probe().netem == "":
        pytest.skip("this kernel has netem: nothing is held by a process")
    agent = agent_of(a)
    (holder,) = Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()
    told = len(a.events("link_mismatch"))
    assert ProcessId.of(int(holder)).signal(signal.SIGKILL)
    event = a.wait_event("link_mismatch", told + 1)
    assert (event["repaired"], "the holder has ended" in event["said"]) == (True, True)
    echo = {"do": "echo", "peer_address": b.address, "count": 3, "interval_ms": 5}
    times_ms = a.ask("POST", "/probes", echo)[1]["rtt_ms"]
    assert len(times_ms) == 3
    assert min(times_ms) > 19.5


def test_round_trips_are_probed_beside(fleet: list[Running]) -> None:
    event = fleet[1].wait_event("link_probed")
    assert event["intended_ms"] == 20
    assert event["rtt_ms"] > 19.5


@pytest.mark.by_kernel
def test_its_series_are_those_of_the_table(fleet: list[Running]) -> None:
    def names() -> set[str]:
        text = fleet[0].ask("GET", "/metrics")[1].decode()
        return {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE shoal_")}

    wanted = {name for name, series in SERIES.items() if series.by == "links"}
    if engine.probe().netem == "":
        wanted.discard("shoal_holder_lateness_seconds")
    wait(lambda: wanted <= names(), f"all of {sorted(wanted)}")
