"""One run: from a scenario to a verdict and a directory that describes it."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from node.contract import ExitCode, ShoalError
from node.contract.plan import Plan
from node.contract.schema import to_json
from orchestrator import driver, facts, harvest, processors
from orchestrator.binding import Ground, binding, settings
from orchestrator.disk import RUNS, full_disk, full_disk_told, full_nodes_told, is_full
from orchestrator.driver import Driver, Fleet, Job
from orchestrator.emulation import Emulation
from orchestrator.history import Event, History
from orchestrator.listener import Listener
from orchestrator.monitoring import prometheus
from orchestrator.planning import listing
from orchestrator.planning.plan import make_plan, plan_bytes
from orchestrator.planning.scenario import Scenario
from orchestrator.preparation import Preparation
from orchestrator.runs import living
from orchestrator.runs.rundir import RunDirectory, secret_folder
from orchestrator.verdict import checks, results
from orchestrator.verdict.report import report
from orchestrator.vigil import FleetFailedError, Vigil

POLL_TIMEOUT_S = 15.0


def main(options: argparse.Namespace) -> int:
    """Run a scenario as the command line asks; the exit code of its verdict."""
    scenario = listing.load(options.scenario)
    plan = make_plan(scenario, options.seed)
    directory = RunDirectory.create(RUNS, plan.scenario, scenario.file)
    directory.write_bytes("plan.json", plan_bytes(plan))
    directory.write_readme(plan.summary)
    say = nothing if options.json else tell
    say(f"{plan.scenario}: {plan.summary}")
    say(f"seed {plan.seed}; everything about this run is written to {listing.shown(directory.path)}")
    chosen = driver.choose(options.driver, say)
    placed = chosen.place(plan, say)
    # Asked to end, by `shoal down` or a service manager, it ends in order as after Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with (
        living.registered(directory.id, directory.path) as registration,
        full_disk_told(),
        secret_folder() as hidden,
    ):
        registration.add(secrets=str(hidden))
        run = Run(chosen, placed, scenario, directory, hidden, say, registration, is_verbose=options.verbose)
        try:
            run.go(options.keep)
        finally:
            run.finish()
    say(report(plan, run.outcome))
    if options.json:
        print(json.dumps(run.outcome, indent=2))
    return int(run.outcome["exit_code"])


def nothing(_: str) -> None:
    """For whoever reads JSON."""


def tell(text: str) -> None:
    print(text, flush=True)


class Run:
    """The effects of one run, in order; what is known at the end is written, however it ended."""

    def __init__(
        self,
        driver: Driver,
        plan: Plan,
        scenario: Scenario,
        directory: RunDirectory,
        hidden: Path,
        say: Callable[[str], None],
        registration: living.Registration,
        *,
        is_verbose: bool = False,
    ) -> None:
        self.plan, self.directory, self.hidden, self.say = plan, directory, hidden, say
        self.registration = registration
        self.history = History(directory.path / "history.jsonl", self._tell_event if is_verbose else None)
        self._driver = driver
        self._fleet: Fleet | None = None
        self.counters: harvest.Counters = {}
        self.binding: dict[str, Any] = {}
        self.outcome: dict[str, Any] = {}
        self._task_file = str(scenario.task_file.resolve()) if scenario.task_file else None
        self._preparation = Preparation(plan, hidden, self._task_file)
        self._listener = Listener(self.history, {node.name: hidden / node.name for node in plan.nodes})
        self._emulation = Emulation(plan, self.history, say, self._call)
        self._failure: str | None = None
        self._began = time.monotonic()
        self._logs = directory.path / "logs"
        self._logs.mkdir()
        self._vigil = Vigil(plan, self.history, self._logs, say, self._heard)

    def _heard(self, event: Event) -> None:
        """A node that is ready keeps to the limits of its class from now on."""
        if event["kind"] in ("trainer_ready", "all_ready") and self._fleet is not None:
            self._fleet.limits.begin(event["node"])
        if event["kind"] == "round_closed" and self._fleet is not None:
            self._fleet.look()
        self._emulation.heard(event)

    def _tell_event(self, event: Event) -> None:
        """For -v, beside what is said anyway, so that --json stays JSON."""
        about = {key: value for key, value in event.items() if key not in ("kind", "node", "wall", "mono_ns")}
        told = " ".join(f"{key}={json.dumps(value)}" for key, value in about.items())
        after_s = time.monotonic() - self._began
        print(f"{after_s:8.2f} s {event['node']:<12} {event['kind']} {told}".rstrip(), file=sys.stderr)

    def go(self, keep: bool) -> None:
        """The whole run; a fleet that fails leaves results that say so."""
        self.history.note("run_started", scenario=self.plan.scenario, seed=self.plan.seed)
        self._count_processors()
        try:
            with full_disk_told(), full_nodes_told(self.hidden / node.name for node in self.plan.nodes):
                self.directory.write("facts.json", facts.host_facts())
                try:
                    with self._driver.open(self._job()) as fleet:
                        self._with_fleet(fleet, keep)
                finally:
                    self._listener.end()
        except ShoalError as err:
            self._failure = str(err)
            self.history.note("run_failed", message=err.message)
            if not isinstance(err, FleetFailedError):
                raise  # scenario or host are wrong: that is no verdict
            self.say(f"failed: {err}")
        except KeyboardInterrupt:
            self._failure = "interrupted"
            self.history.note("run_failed", message="interrupted")
            raise
        finally:
            harvest.logs(self.plan, self.hidden, self.directory.path)

    def _count_processors(self) -> None:
        self.history.note(processors.KIND, **processors.counted(processors.STAT.read_text()))

    def _job(self) -> Job:
        return Job(
            self.directory.id,
            self.plan,
            self.directory.path,
            self.hidden,
            self._logs,
            self.say,
            self.registration,
            self._part_ended,
        )

    def _with_fleet(self, fleet: Fleet, keep: bool) -> None:
        self._fleet = fleet
        self._emulation.bind(fleet.try_links, fleet.parts, fleet.trunks)
        fleet.begin()
        self.say("preparing the data, the daemons and the identities")
        data = self._preparation.data()
        self._bind(fleet, data, self._preparation.nodes(data, fleet.prepare))
        self.say(f"starting {len(self.plan.nodes)} nodes")
        fleet.build()
        with ExitStack() as ending:
            self._listener.start(self._poll)
            ending.callback(self._listener.leave)
            ending.callback(fleet.leave)
            fleet.start(prometheus.configuration(self.plan))
            for name, url in fleet.pages().items():
                self.say(f"watch it: {url} ({name}, while the run lasts)")
            ending.callback(self._emulation.leave)
            self._vigil.wait_ipfs()
            self._vigil.watch_rounds()
            self._count_processors()
            self._emulation.stop()
            self.counters = harvest.counters(self.plan, fleet)
            harvest.export(self.plan, fleet, self.history, self.say, self.directory.path / "series")
            if keep:
                self._finish_files()
                wait_interrupt(self.say)

    def _bind(self, fleet: Fleet, data: Mapping[str, Any], made: Mapping[str, Any]) -> None:
        prepared, emulation, network = self._preparation, self._emulation, self.plan.network
        ground = Ground(
            self.directory.id,
            self.hidden,
            fleet.task(self._task_file),
            prepared.data_folder,
            data,
            made,
            fleet.limits.said(),
            fleet.secrets,
            self._driver.name,
            fleet.facts(),
            {"data": network.data_subnet, "ctl": network.ctl_subnet},
            fleet.trunks,
            emulation.engine,
            emulation.probed,
        )
        self.binding = binding(ground)
        self.directory.write("binding.json", self.binding)
        for node in self.plan.nodes:
            told = settings(self.plan, node, ground, emulation.table(node.name), emulation.pauses)
            (self.hidden / f"{node.name}.json").write_text(json.dumps(to_json(told)))

    def _poll(self, name: str, path: str) -> tuple[bytes, Mapping[str, str]]:
        assert self._fleet is not None
        return self._fleet.ask(name, "GET", path, None, self._authorized(), POLL_TIMEOUT_S)

    def _call(
        self, name: str, method: str, path: str, body: Mapping[str, Any] | None, timeout_s: float
    ) -> Mapping[str, Any]:
        """Ask an agent; ShoalError when it does not answer, or refuses."""
        text = json.dumps(body).encode() if body is not None else None
        headers = {**self._authorized(), "Content-Type": "application/json"}
        assert self._fleet is not None
        answer, _ = self._fleet.ask(name, method, path, text, headers, timeout_s)
        found: Mapping[str, Any] = json.loads(answer or b"{}")
        return found

    def _authorized(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._preparation.token}"}

    def _part_ended(self, name: str, status: int, part: str, expected: bool) -> None:
        """Whose first process, or what forked that, was killed, or found no room, cannot tell it."""
        at = {"node": name, "wall": time.time(), "mono_ns": time.monotonic_ns()}
        if not expected and is_full(self.hidden / name):
            full = full_disk(self.hidden / name)
            about = {"part": part, "message": full.message, "hint": full.hint}
            self.history.add({"kind": "failed", **at, **about})
        self.history.add({"kind": "part_ended", **at, "part": part, "status": status, "expected": expected})

    def finish(self) -> None:
        self._finish_files()
        self.history.close()

    def _finish_files(self) -> None:
        """The verdict and the figures, from what was observed, however far the run came."""
        events = list(self.history.events)
        reason = results.repeatable(self.plan, events)
        calibration = to_json(self._emulation.calibration)
        if calibration is not None:
            self.directory.write("calibration.json", calibration)
        if self._emulation.in_force:
            self.directory.write("links.json", to_json(self._emulation.in_force))
        found = {
            "scenario": self.plan.scenario,
            "run": self.directory.id,
            "driver": self._driver.name,
            "ipfs_engine": engines_said(self.binding),
            "delay_engine": self._emulation.engine,
            "transport": self.plan.network.transport,
            "limits": self._fleet.limits.said() if self._fleet is not None else None,
            "seed": self.plan.seed,
            "synthetic_data": self.binding.get("data", {}).get("synthetic"),
            # Of a run that did not end nobody knows.
            "repeatable": reason is None if self.history.of("run_finished") else None,
            "repeatable_reason": reason,
            **results.figures(self.plan, events, self.counters, calibration, self._emulation.lateness),
        }
        verdicts = [checks.judge(check, self.plan, events, found) for check in self.plan.checks]
        code = checks.overall(verdicts, found["network_doubts"])
        if self._failure is not None and code == ExitCode.HELD:
            code = ExitCode.UNKNOWN
        names = {ExitCode.HELD: "held", ExitCode.VIOLATED: "violated", ExitCode.UNKNOWN: "unknown"}
        self.outcome = {
            "verdict": names[code],
            "exit_code": int(code),
            "failure": self._failure,
            "checks": [{"check": v.check, "state": v.state, "said": v.said} for v in verdicts],
            **found,
        }
        self.directory.write("results.json", self.outcome)
        self.directory.write_bytes("report.txt", (report(self.plan, self.outcome) + "\n").encode())
        self.directory.write_readme(self.plan.summary)


def engines_said(bound: Mapping[str, Any]) -> str | None:
    """Which IPFS daemons the nodes run; none before they are bound."""
    engines = sorted({f"{n['engine']} {n['version']}" for n in bound.get("nodes", {}).values()})
    if len(engines) > 1:
        return "mixed: " + ", ".join(engines)
    return engines[0] if engines else None


def wait_interrupt(say: Callable[[str], None]) -> None:
    """Say so, and wait until Ctrl-C, which may come as soon as it is said."""
    try:
        say("the fleet is kept; Ctrl-C ends it")
        threading.Event().wait()
    except KeyboardInterrupt:
        return
