"""Faults on real nodes: agents that cut and shape, a timeline that drives them, probes that say what came of it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from node.contract.schema import to_json
from node.contract.settings import AGENT_PORT, RELEASE_FILE, NodeSettings
from node.links import engine
from node.links.table import tables
from node.namespace import enter
from orchestrator.boxes.box import Box
from orchestrator.faults import schedule
from orchestrator.faults.agents import AgentFleet
from orchestrator.faults.fault import PartState
from orchestrator.faults.timeline import Timeline
from orchestrator.gate import GateError
from orchestrator.history import History
from orchestrator.listener import Listener
from orchestrator.planning import plan as plans
from orchestrator.planning import scenario
from tests.settings import node_settings

TOP = Path(__file__).resolve().parents[2]
BRIDGES = ("data", "ctl")
EYE = "eye"  # a node of its own for whoever asks the agents
TOKEN = "open sesame"
WAIT_S = 90.0
MOST_SKEW_MS = 500.0  # on a busy machine; alone it is a few
SCENARIO = """\
summary: faults on real nodes
fleet: {workers: [{count: 3}]}
workload: {dataset: digits, rounds: 9}
network: {default: {latency: 15 ms}}
checks: [rounds_completed == 9]
faults:
  - {name: split, partition: {isolate: w01}, at: round 2, heal: round 3}
  - {name: other, partition: {one_way: {from: agg, to: w02}}, how: reject, at: round 2, heal: round 4}
  - {name: slow, degrade: {between: [agg, w03], latency: 120 ms}, at: round 3, heal: round 5}
  - {name: flaps, flapping: {isolate: w02, period: 3 s, down: 2 s}, at: round 5, heal: round 6}
  - {name: late, partition: {isolate: w03}, at: round 7, heal: round 9}
  - {name: anew, restart: {targets: w03, part: agent}, at: round 8}
"""


class Lab:
    """Nodes with agents alone, and what the orchestrator does to them; the aggregator is played."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        (folder / "mine.yaml").write_text(SCENARIO)
        self.plan = plans.make_plan(scenario.load(folder / "mine.yaml"))
        self._asking = ThreadPoolExecutor(32, initializer=enter, initargs=(EYE,))
        stack.callback(self._asking.shutdown)
        every = [
            table
            for links in schedule.link_states(self.plan)
            for table in tables(replace(self.plan, links=links)).values()
        ]
        chosen = engine.choose(self.plan.network.delay_engine, every, engine.probe())
        (folder / "token").write_text(TOKEN)
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        for node in self.plan.nodes:
            self._prepare(node.name, chosen)
            self.start(node.name, "agent")
            stack.callback(self._end, node.name)
        self.address = {node.name: node.ctl_address for node in self.plan.nodes}
        self.history = History(folder / "history.jsonl")
        self.listener = Listener(self.history, {node.name: folder / node.name for node in self.plan.nodes})
        self.listener.start(self._listen)
        stack.callback(self.listener.leave)
        self.wait(lambda events: sum(e["kind"] == "links_applied" for e in events) == len(self.plan.nodes))
        self.fleet = AgentFleet(self.plan, self.call)
        self.fleet.parts = self
        self.said: list[str] = []
        self.timeline = Timeline(self.plan, self.history, self.fleet, self.said.append)

    def _prepare(self, name: str, chosen: Any) -> None:
        home = self.folder / name
        home.mkdir()
        settings = to_json(self._settings(name, home, chosen))
        (self.folder / f"{name}.json").write_text(json.dumps(settings))

    def _end(self, name: str) -> None:
        self._running[name].terminate()
        self._running[name].wait(WAIT_S)

    # -- what a driver does to parts: here a node is its supervisor and its agent
    def start(self, node: str, _: str) -> None:
        file = self.folder / f"{node}.json"
        with (self.folder / f"{node}.log").open("ab") as log:
            self._running[node] = subprocess.Popen(
                ["ip", "netns", "exec", node, sys.executable, "-m", "node", str(file), "--parts", "agent"],
                cwd=TOP,
                stdout=log,
                stderr=log,
            )

    def kill(self, node: str, _: str) -> None:
        self._running[node].kill()
        self._running[node].wait(WAIT_S)

    def pause(self, node: str, part: str) -> None:
        raise NotImplementedError

    def resume(self, node: str, part: str) -> None:
        raise NotImplementedError

    def state(self, node: str, _: str) -> PartState:
        return "running" if self._running[node].poll() is None else "ended"

    def _settings(self, name: str, home: Path, chosen: Any) -> NodeSettings:
        (planned,) = [node for node in self.plan.nodes if node.name == name]
        return node_settings(
            name,
            home,
            data_address=planned.data_address,
            ctl_address=planned.ctl_address,
            token_file=str(self.folder / "token"),
            workload=self.plan.workload,
            aggregation=self.plan.aggregation,
            links=tables(self.plan)[name],
            delay_engine=chosen,
        )

    def call(
        self, node: str, method: str, path: str, body: Mapping[str, Any] | None, patience_s: float
    ) -> Mapping[str, Any]:
        said: Mapping[str, Any] = json.loads(self._ask(node, method, path, body, patience_s)[0])
        return said

    def _ask(
        self, node: str, method: str, path: str, body: Mapping[str, Any] | None, patience_s: float
    ) -> tuple[bytes, Mapping[str, str]]:
        def ask() -> tuple[bytes, Mapping[str, str]]:
            connection = http.client.HTTPConnection(self.address[node], AGENT_PORT, timeout=patience_s)
            try:
                connection.request(
                    method,
                    path,
                    body=None if body is None else json.dumps(body),
                    headers={"Authorization": f"Bearer {TOKEN}"},
                )
                reply = connection.getresponse()
                page = reply.read()
            except (OSError, http.client.HTTPException) as error:
                raise GateError(f"{node}{path}: {error!r}") from error
            finally:
                connection.close()
            if reply.status != 200:
                raise GateError(f"{node}{path}: {reply.status}: {page!r}")
            return page, {name.lower(): value for name, value in reply.getheaders()}

        return self._asking.submit(ask).result(WAIT_S)

    def _listen(self, node: str, path: str) -> tuple[bytes, Mapping[str, str]]:
        return self._ask(node, "GET", path, None, WAIT_S)

    def wait(self, holds: Callable[[list[Any]], bool]) -> None:
        assert self.history.wait(holds, WAIT_S), [
            {key: value for key, value in event.items() if key not in ("wall", "mono_ns")}
            for event in self.history.events
        ]

    def go_to(self, round_: int) -> None:
        """The aggregator comes to a round, waits, and opens it."""
        at = {"node": "agg", "wall": 0.0, "mono_ns": time.monotonic_ns(), "round": round_}
        if round_ in {fault.start.round for fault in self.plan.faults} | {
            fault.heal.round for fault in self.plan.faults if fault.heal
        }:
            self.history.add({"kind": "round_due", **at})
            self.wait(
                lambda events: any(e["kind"] == "round_released" and e["round"] == round_ for e in events)
            )
            assert (self.folder / "agg" / RELEASE_FILE).read_text() == str(round_)
        self.history.add({"kind": "round_opened", **at})

    def hears(self) -> set[tuple[str, str]]:
        """Every direction that is open, probed."""
        names = [node.name for node in self.plan.nodes]
        with ThreadPoolExecutor(8) as pool:
            probed = {(a, b): pool.submit(self.fleet.hears, a, b) for a in names for b in names if a != b}
        return {pair for pair, future in probed.items() if future.result()}

    def silent(self) -> set[tuple[str, str]]:
        return {(link.to, link.from_) for link in self.plan.links} - self.hears()

    def verified(self, fault: str) -> list[tuple[str, bool]]:
        return [(e["phase"], e["verified"]) for e in self.history.of("fault_verified") if e["fault"] == fault]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    box = Box.current()
    for bridge in BRIDGES:
        if box.run(["ip", "link", "show", bridge], timeout_s=WAIT_S, check=False).status != 0:
            box.add_bridge(bridge)
    folder = tmp_path_factory.mktemp("faults")
    with ExitStack() as stack:
        (folder / "mine.yaml").write_text(SCENARIO)
        planned = plans.make_plan(scenario.load(folder / "mine.yaml"))
        for node in planned.nodes:
            box.add_node(node.name, {"data": f"{node.data_address}/22", "ctl": f"{node.ctl_address}/22"})
        box.add_node(EYE, {"ctl": "10.77.7.254/22"})
        made = Lab(folder, stack)
        made.timeline.start()
        yield made
        made.timeline.stop()
    made.listener.end()
    made.history.close()


def both(one: str, *others: str) -> set[tuple[str, str]]:
    return {pair for other in others for pair in ((one, other), (other, one))}


def test_two_partitions_at_one_instant(lab: Lab) -> None:
    lab.go_to(1)
    assert lab.silent() == set()
    lab.go_to(2)
    started = lab.history.of("fault_started")
    assert [event["fault"] for event in started] == ["split", "other"]
    assert all(event["skew_ms"] < MOST_SKEW_MS for event in started)
    assert set(started[0]["effective_ns"]) == {"agg", "w01", "w02", "w03"}
    assert lab.silent() == both("w01", "agg", "w02", "w03") | {("w02", "agg")}
    assert lab.verified("split") == lab.verified("other") == [("start", True)]


def test_a_heal_removes_only_its_own_and_a_link_becomes_slow(lab: Lab) -> None:
    lab.go_to(3)
    assert lab.silent() == {("w02", "agg")}
    assert lab.verified("split") == [("start", True), ("heal", True)]
    assert lab.verified("slow") == [("start", True)]
    rtt_ms = lab.fleet.rtt_ms("agg", "w03")
    assert rtt_ms is not None
    assert 235 <= rtt_ms < 330
    lab.go_to(4)
    assert lab.silent() == set()


def test_a_link_is_given_back_and_another_flaps(lab: Lab) -> None:
    lab.go_to(5)
    rtt_ms = lab.fleet.rtt_ms("agg", "w03")
    assert rtt_ms is not None
    assert 25 <= rtt_ms < 120
    assert lab.verified("slow") == [("start", True), ("heal", True)]
    assert lab.verified("flaps") == [("start", True)]
    lab.wait(lambda events: sum(event["kind"] == "fault_flapped" for event in events) >= 3)
    lab.go_to(6)
    assert lab.verified("flaps") == [("start", True), ("heal", True)]
    assert lab.silent() == set()


def test_an_agent_that_is_killed_comes_back_with_its_cuts(lab: Lab) -> None:
    lab.go_to(7)
    cut = both("w03", "agg", "w01", "w02")
    assert lab.silent() == cut
    (agent,) = [e for e in lab.history.of("part_started", "w03") if e["part"] == "agent"]
    os.kill(agent["pid"], signal.SIGKILL)
    lab.wait(lambda events: sum(e["kind"] == "fault_restored" for e in events) == 1)
    assert lab.history.of("fault_restored")[0]["nodes"] == ["w03"]
    assert lab.silent() == cut


def test_a_node_that_is_killed_within_a_partition_comes_back_shaped_and_cut(lab: Lab) -> None:
    (before,) = lab.fleet.started("w03").values()
    lab.go_to(8)
    lab.wait(lambda events: sum(e["kind"] == "fault_restored" for e in events) >= 2)
    lab.wait(lambda _: lab.verified("anew") == [("start", True), ("heal", True)])
    (now,) = lab.fleet.started("w03").values()
    assert now > before
    assert lab.silent() == both("w03", "agg", "w01", "w02")
    assert lab.fleet.get_links("w03").mismatches == ()
    lab.go_to(9)
    assert lab.silent() == set()
    rtt_ms = lab.fleet.rtt_ms("agg", "w03")
    assert rtt_ms is not None
    assert 25 <= rtt_ms < 120
    assert lab.verified("late") == [("start", True), ("heal", True)]


def test_nothing_failed(lab: Lab) -> None:
    lab.timeline.stop()
    assert lab.history.of("fault_failed") == []
    assert [event for event in lab.history.of("fault_verified") if not event["verified"]] == []
