"""`shoal calibrate`: a fleet of agents alone, all of whose links are measured against the plan."""

from __future__ import annotations

import argparse
import json
import secrets
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from node.contract import ExitCode, HostError
from node.contract.links import DelayEngine, LinkTable
from node.contract.plan import NodePlan, Plan
from node.contract.probes import PROBE_S
from node.contract.schema import to_json
from node.contract.settings import AGENT_PORT, NodeSettings
from orchestrator.boxes.box import Box
from orchestrator.boxes.boxed import try_links
from orchestrator.boxes.netns import NetnsFleet
from orchestrator.emulation import Emulation
from orchestrator.history import Event, History
from orchestrator.listener import Listener
from orchestrator.measuring.calibration import Calibration, Figure
from orchestrator.measuring.calibrator import Calibrator
from orchestrator.measuring.measurements import Network
from orchestrator.planning import listing
from orchestrator.planning.plan import make_plan, plan_bytes
from orchestrator.preparation import write_secret
from orchestrator.runs import living
from orchestrator.runs.rundir import secret_folder

POLL_S: Final = 15.0
LINKS_S: Final = 60.0  # for all agents to start and put their links in force
UNITS: Final = {"round_trip_ms": ("ms", 1.0), "goodput_bit_s": ("Mbit/s", 1e-6)}


def main(options: argparse.Namespace) -> int:
    """Measure a scenario's links; 2 when one is outside, or was not in force."""
    plan = make_plan(listing.load(options.scenario), options.seed)
    say: Callable[[str], None] = (lambda _: None) if options.json else (lambda said: print(said, flush=True))
    if not Network(plan).is_shaped():
        say(f"{plan.scenario}: no link is limited, delayed or lossy, so there is nothing to measure")
        if options.json:
            print("null")
        return ExitCode.HELD
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # `shoal down` ends it in order
    with agents_alone(plan, say) as fleet:
        found = fleet.measure()
    if options.json:
        print(json.dumps(to_json(found), indent=2))
    for said in closing(found):
        say(said)
    return ExitCode.UNKNOWN if found.outside else ExitCode.HELD


def row(figure: Figure) -> str:
    """One line of the table."""
    unit, factor = UNITS.get(figure.what, ("%", 100.0))
    measured = "none" if figure.measured is None else f"{figure.measured * factor:.4g}"
    intended, low, high = (f"{value * factor:.4g}" for value in (figure.intended, figure.low, figure.high))
    name = figure.what.removesuffix("_ms").removesuffix("_bit_s").replace("_", " ")
    mark = "+" if figure.ok else "?"
    told = (
        f"  {mark} {figure.link:<9} {name:<11} {measured:>8} {unit:<6} intended {intended} ({low} to {high})"
    )
    return f"{told}; {figure.how}" + (f"; {figure.said}" if figure.said else "")


def closing(found: Calibration) -> list[str]:
    """What stands below the table."""
    good = sum(figure.ok for figure in found.figures)
    lines = [f"  not measured: {said}" for said in found.not_measured]
    total = len(found.figures)
    return [
        *lines,
        f"{good} of {total} figures of {found.measured_links} links as intended, {found.seconds:.0f} s",
    ]


@contextmanager
def agents_alone(plan: Plan, say: Callable[[str], None]) -> Iterator[AgentsAlone]:
    """Such a fleet, its links in force; known to other commands while it lives, and nothing is left of it."""
    with secret_folder() as hidden, living.registered(f"calibrate-{plan.scenario}", hidden) as registration:
        registration.add(secrets=str(hidden))
        (hidden / "plan.json").write_bytes(plan_bytes(plan))
        fleet = AgentsAlone(plan, hidden, say)
        with fleet.begun(registration):
            yield fleet


class AgentsAlone:
    """A fleet without daemons and roles, in a box of its own."""

    def __init__(self, plan: Plan, hidden: Path, say: Callable[[str], None]) -> None:
        self.plan, self._hidden, self._say = plan, hidden, say
        self._token = secrets.token_hex(16)
        self.history = History(hidden / "history.jsonl")
        self._emulation = Emulation(plan, self.history, say, self.call)

    @property
    def engine(self) -> DelayEngine:
        return self._emulation.engine

    @contextmanager
    def begun(self, registration: living.Registration) -> Iterator[None]:
        """From all links in force to the end of the box and of all that is in it."""
        logs = self._hidden / "logs"
        logs.mkdir()
        write_secret(self._hidden / "token", self._token)
        folders = {node.name: self._hidden / node.name for node in self.plan.nodes}
        listener = Listener(self.history, folders)
        try:
            with Box.open() as box, ExitStack() as ending:
                registration.add(init=box.init, in_user_namespace=box.in_user_namespace)
                self._fleet = NetnsFleet(box, self.plan, self._hidden, logs, self._node_ended)
                self._emulation.bind(lambda wanted: try_links(box, wanted, self._hidden))
                self._fleet.begin_zygote("node.agent")
                self._fleet.build_network()
                self._fleet.start_gate()
                self._fleet.wait_zygote()
                listener.start(self.get)
                ending.callback(listener.leave)
                for node in self.plan.nodes:
                    self._start(node, folders[node.name])
                self._wait_links()
                yield
        finally:
            listener.end()
            self.history.close()

    def measure(self) -> Calibration:
        """Every link."""
        self._say(f"{self.plan.scenario}: measuring {len(self.plan.links)} links, engine {self.engine}")
        calibrator = Calibrator(self.post, lambda figure: self._say(row(figure)))
        return calibrator.measure(self.plan, everything=True)

    def _start(self, node: NodePlan, folder: Path) -> None:
        folder.mkdir()
        told = self._hidden / f"{node.name}.json"
        table = self._emulation.table(node.name)
        settings = agent_settings(self.plan, node, self._hidden, table, self.engine)
        told.write_text(json.dumps(to_json(settings)))
        self._fleet.start_node(node.name, told, ["agent"])

    def _wait_links(self) -> None:
        names = {node.name for node in self.plan.nodes}

        def applied(events: list[Event]) -> dict[str, Event]:
            return {e["node"]: e for e in events if e["kind"] == "links_applied"}

        def settled(events: list[Event]) -> bool:
            return names <= applied(events).keys() or any(
                e["kind"] in ("failed", "part_ended") for e in events
            )

        self.history.wait(settled, LINKS_S)
        failures = [e for e in self.history.events if e["kind"] == "failed" and e["part"] == "agent"]
        if failures:
            raise HostError(f"{failures[0]['node']}: {failures[0]['message']}", failures[0]["hint"])
        if missing := sorted(names - applied(self.history.events).keys()):
            raise HostError(f"the links of {', '.join(missing)} are not in force after {LINKS_S:g} s")

    def post(self, name: str, path: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        return self.call(name, "POST", path, body, PROBE_S)

    def get(self, name: str, path: str) -> tuple[bytes, Mapping[str, str]]:
        return self._fleet.get(name, AGENT_PORT, path, self._headers(), POLL_S)

    def call(
        self, name: str, method: str, path: str, body: Mapping[str, Any] | None, timeout_s: float
    ) -> Mapping[str, Any]:
        """JSON to an agent and back."""
        text = None if body is None else json.dumps(body).encode()
        headers = {**self._headers(), "Content-Type": "application/json"}
        answer, _ = self._fleet.ask(name, AGENT_PORT, method, path, text, headers, timeout_s)
        found: Mapping[str, Any] = json.loads(answer or b"{}")
        return found

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token}"}

    def _node_ended(self, name: str, status: int) -> None:
        at = {"node": name, "wall": time.time(), "mono_ns": time.monotonic_ns()}
        self.history.add({"kind": "part_ended", **at, "part": "node", "status": status, "expected": False})


def agent_settings(
    plan: Plan, node: NodePlan, hidden: Path, links: LinkTable | None, engine: DelayEngine
) -> NodeSettings:
    """Of a node that is its agent alone: what daemon and roles would need is left empty."""
    return NodeSettings(
        run=hidden.name,
        name=node.name,
        roles=(),
        seed=plan.seed,
        folder=str(hidden / node.name),
        data_address=node.data_address,
        ctl_address=node.ctl_address,
        engine="embedded",
        engine_path="",
        transport=plan.network.transport,
        swarm_key_file="",
        token_file=str(hidden / "token"),
        neighbours=(),
        members={},
        aggregator=None,
        workload=plan.workload,
        aggregation=plan.aggregation,
        task_file=None,
        shard=None,
        shards={},
        test_file=None,
        links=links,
        delay_engine=engine,
    )
