"""One run: from a scenario to a verdict and a directory that describes it."""

from __future__ import annotations

import argparse
import errno
import json
import os
import secrets
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from node.contract import ExitCode, HostError, ShoalError, UsageError
from node.contract.plan import NodePlan, Plan
from node.contract.schema import to_json
from node.contract.settings import AGENT_PORT, PROMETHEUS_PORT
from orchestrator import checks, facts, listing, living, process, progress, prometheus, results
from orchestrator.binding import Ground, binding, settings
from orchestrator.box import Box
from orchestrator.gate import Door, GateError
from orchestrator.history import Event, History
from orchestrator.limits import Limits
from orchestrator.listener import Listener
from orchestrator.netns import NetnsFleet
from orchestrator.plan import make_plan, plan_bytes
from orchestrator.report import report
from orchestrator.rundir import RunDirectory, secret_folder
from orchestrator.scenario import Scenario

RUNS = Path("runs")
PREPARE_TIMEOUT_S = 900.0  # data sets may be downloaded, the daemon compiled
IPFS_READY_S = 60.0
TRAINERS_READY_S = 300.0
ROUND_GRACE_S = 60.0  # beyond its deadline: aggregation and the record
POLL_TIMEOUT_S = 15.0
END_TOLD_S = 5.0
SCRAPED_S = 15.0  # two of the longest intervals, and Prometheus' own start
LEAST_FREE_BYTES = 1 << 16
CHAIN_FILES = ("head", "open-round.jsonl")


class FleetFailedError(ShoalError):
    """The fleet did not come so far that the experiment could say anything."""

    exit_code = ExitCode.UNKNOWN


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
    # Asked to end, by `shoal down` or a service manager, it ends in order as after Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with (
        living.registered(directory.id, directory.path) as registration,
        full_disk_told(),
        secret_folder() as hidden,
    ):
        registration.add(secrets=str(hidden))
        run = Run(plan, scenario, directory, hidden, say, registration, is_verbose=options.verbose)
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
        plan: Plan,
        scenario: Scenario,
        directory: RunDirectory,
        hidden: Path,
        say: Callable[[str], None],
        registration: living.Registration,
        *,
        is_verbose: bool = False,
    ) -> None:
        self.plan, self.scenario, self.directory, self.hidden, self.say = (
            plan,
            scenario,
            directory,
            hidden,
            say,
        )
        self.registration = registration
        self.history = History(directory.path / "history.jsonl", self._tell_event if is_verbose else None)
        self._listener = Listener(self.history, {node.name: hidden / node.name for node in plan.nodes})
        self.limits = Limits(plan.nodes, hidden.name)
        self.counters: dict[str, dict[str, float]] = {}
        self.binding: dict[str, Any] = {}
        self.outcome: dict[str, Any] = {}
        self._token = secrets.token_hex(16)
        self._failure: str | None = None
        self._began = time.monotonic()
        self._logs = directory.path / "logs"
        self._logs.mkdir()

    def _tell_event(self, event: Event) -> None:
        """For -v, beside what is said anyway, so that --json stays JSON."""
        about = {key: value for key, value in event.items() if key not in ("kind", "node", "wall", "mono_ns")}
        told = " ".join(f"{key}={json.dumps(value)}" for key, value in about.items())
        after_s = time.monotonic() - self._began
        print(f"{after_s:8.2f} s {event['node']:<12} {event['kind']} {told}".rstrip(), file=sys.stderr)

    # -- before the box
    def go(self, keep: bool) -> None:
        """The whole run; a fleet that fails leaves results that say so."""
        self.history.note("run_started", scenario=self.plan.scenario, seed=self.plan.seed)
        try:
            with full_disk_told():
                self.directory.write("facts.json", facts.host_facts())
                try:
                    with Box.open() as box:
                        self._in_box(box, keep)
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
            self._collect_logs()

    def _prepare_data(self) -> dict[str, Any]:
        recipe = {
            "seed": self.plan.seed,
            "workload": to_json(self.plan.workload),
            "nodes": [node.name for node in self._trainers()],
            "task_file": self._task_file(),
        }
        file = self.hidden / "recipe.json"
        file.write_text(json.dumps(recipe))
        self._data = self.hidden / "data"
        self._helper(["node.data.prepare", str(file), str(self._data)])
        described: dict[str, Any] = json.loads((self._data / "data.json").read_text())
        return described

    def _prepare_nodes(self, data: Mapping[str, Any]) -> dict[str, Any]:
        key = self.hidden / "swarm-key"
        write_secret(key, secrets.token_hex(32))
        write_secret(self.hidden / "token", self._token)
        for node in self.plan.nodes:
            (self.hidden / node.name).mkdir()
        request = {
            "nodes": {
                node.name: {
                    "folder": str(self.hidden / node.name),
                    "engine": node.ipfs,
                    "data_address": node.data_address,
                    "transport": self.plan.network.transport,
                }
                for node in self.plan.nodes
            },
            "swarm_key_file": str(key),
            "files": [str(self._data / shard["file"]) for shard in data["shards"].values()],
        }
        file = self.hidden / "request.json"
        file.write_text(json.dumps(request))
        made: dict[str, Any] = json.loads(self._helper(["node.prepare", str(file)]))
        return made

    def _helper(self, module: list[str]) -> str:
        """Run a module of `node` in a process of its own; importing it here would break the import law."""
        try:
            return process.run([sys.executable, "-m", *module], timeout_s=PREPARE_TIMEOUT_S).stdout
        except process.CommandFailedError as err:
            kinds: dict[int | None, type[ShoalError]] = {
                int(ExitCode.USAGE): UsageError,
                int(ExitCode.HOST): HostError,
            }
            # What it complained may not have found room itself.
            if (
                os.strerror(errno.ENOSPC) in err.stderr
                or shutil.disk_usage(self.hidden).free < LEAST_FREE_BYTES
            ):
                raise full_disk() from None
            raise kinds.get(err.status, ShoalError)(err.stderr.strip() or err.message) from None

    def _bind(self, data: Mapping[str, Any], made: Mapping[str, Any]) -> None:
        ground = Ground(
            self.directory.id, self.hidden, self._task_file(), self._data, data, made, self.limits.said()
        )
        self.binding = binding(ground)
        self.directory.write("binding.json", self.binding)
        for node in self.plan.nodes:
            told = to_json(settings(self.plan, node, ground))
            (self.hidden / f"{node.name}.json").write_text(json.dumps(told))

    # -- in the box
    def _in_box(self, box: Box, keep: bool) -> None:
        fleet = NetnsFleet(box, self.plan, self.hidden, self._logs, self._node_ended, self.limits)
        self.registration.add(init=box.init, in_user_namespace=box.in_user_namespace)
        fleet.begin_zygote()
        # Outside of the box, and while the zygote imports: neither waits for the other.
        self.say("preparing the data, the daemons and the identities")
        data = self._prepare_data()
        made = self._prepare_nodes(data)
        self._bind(data, made)
        self.say(f"starting {len(self.plan.nodes)} nodes")
        fleet.build_network()
        fleet.start_gate()
        fleet.wait_zygote()
        with ExitStack() as ending:
            self._listener.start(lambda name, path: self._ask(fleet, name, path))
            ending.callback(self._listener.leave)
            door = self._start_prometheus(fleet)
            ending.callback(door.close)
            for node in self.plan.nodes:
                fleet.start_node(node.name, self.hidden / f"{node.name}.json")
            self.say(f"watch it: {door.url} (Prometheus, while the run lasts)")
            self._wait_ipfs()
            self._watch_rounds()
            self._count(fleet, "end")
            self._peaks(fleet)
            self._export(fleet)
            if keep:
                self._finish_files()
                self.say("the fleet is kept; Ctrl-C ends it")
                wait_interrupt()

    def _ask(self, fleet: NetnsFleet, name: str, path: str) -> tuple[bytes, Mapping[str, str]]:
        headers = {"Authorization": f"Bearer {self._token}"}
        return fleet.get(name, AGENT_PORT, path, headers, POLL_TIMEOUT_S)

    def _start_prometheus(self, fleet: NetnsFleet) -> Door:
        folder = self.hidden / "prometheus"
        folder.mkdir()
        file = folder / "prometheus.yml"
        file.write_text(prometheus.configuration(self.plan))
        fleet.start_prometheus(prometheus.argv(prometheus.find(), file, folder / "data"))
        return Door(fleet.gate, "127.0.0.1", PROMETHEUS_PORT)

    def _wait_ipfs(self) -> None:
        names = {node.name for node in self.plan.nodes}
        all_told = self.history.wait(
            lambda _: (
                names <= self._nodes_with("ipfs_ready") | self._nodes_with("part_ended") or self._is_lost()
            ),
            IPFS_READY_S,
        )
        self._check_lost()
        if missing := sorted(names - self._nodes_with("ipfs_ready")):
            how = "ended at their start" if all_told else f"are not ready after {IPFS_READY_S:g} s"
            raise FleetFailedError(
                f"the IPFS daemons of {', '.join(missing)} {how}", self._last_heard(missing)
            )
        self.say(f"{len(names)} IPFS daemons are up after {time.monotonic() - self._began:.1f} s")

    def _nodes_with(self, kind: str) -> set[str]:
        return {event["node"] for event in self.history.events if event["kind"] == kind}

    def _watch_rounds(self) -> None:
        """Tell what happens until the run has finished; every wait is bounded by what may take longest."""
        seen = 0
        limit_s = TRAINERS_READY_S
        while not self.history.of("run_finished"):
            news = self.history.wait_news(seen, limit_s)
            seen += len(news)
            if not news:
                raise FleetFailedError(f"nothing was heard for {limit_s:g} s", self._last_heard())
            for event in news:
                if said := progress.line(self.plan, event, time.monotonic() - self._began):
                    self.say(said)
                if event["kind"] in ("trainer_ready", "all_ready"):
                    self.limits.begin(event["node"])
                if event["kind"] == "all_ready":
                    limit_s = self.plan.aggregation.deadline_s + ROUND_GRACE_S
            self._check_lost()

    def _node_ended(self, name: str, status: int) -> None:
        """A node whose first process was killed cannot tell it; nodes end with the box otherwise."""
        at = {"node": name, "wall": time.time(), "mono_ns": time.monotonic_ns()}
        self.history.add({"kind": "part_ended", **at, "part": "node", "status": status, "expected": False})

    def _is_lost(self) -> bool:
        """Whether the aggregator, or what it needs, has ended: then no round will ever close."""
        aggregators = {node.name for node in self.plan.nodes if "aggregator" in node.roles}
        return any(
            event["kind"] in ("failed", "part_ended")
            and event["node"] in aggregators
            and not event.get("expected")
            for event in self.history.events
        )

    def _check_lost(self) -> None:
        if not self._is_lost() or self.history.of("run_finished"):
            return
        names = [node.name for node in self.plan.nodes if "aggregator" in node.roles]
        ends = self._ends(names)
        failures = [event for event in self.history.events if event["kind"] == "failed"]
        of_aggregator = [event for event in failures if event["node"] in names]
        if of_aggregator and any(end["status"] == ExitCode.USAGE for end in ends):
            raise UsageError(of_aggregator[0]["message"], of_aggregator[0]["hint"])
        how = [f"{end['part']} of {end['node']} ended with {end['status']}" for end in ends]
        raise FleetFailedError(
            "the aggregator's node was lost" + (f": {', '.join(how)}" if how else ""), self._last_heard(names)
        )

    def _ends(self, names: list[str]) -> list[Event]:
        """The unexpected ends of parts; a part that fails says so a moment before it ends."""

        def ends(events: list[Event]) -> list[Event]:
            ended = [e for e in events if e["kind"] == "part_ended" and not e["expected"]]
            return [event for event in ended if event["node"] in names]

        self.history.wait(lambda events: bool(ends(events)), END_TOLD_S)
        return ends(list(self.history.events))

    def _last_heard(self, nodes: list[str] | None = None) -> str:
        said = [event for event in self.history.events if nodes is None or event["node"] in nodes]
        failures = [event for event in said if event["kind"] == "failed"]
        last = (failures or said)[-1:] or [{"kind": "nothing", "node": "any node"}]
        about = {key: value for key, value in last[0].items() if key not in ("wall", "mono_ns")}
        return f"last heard: {json.dumps(about)}; the parts' logs are in {self._logs}"

    # -- figures
    def _count(self, fleet: NetnsFleet, when: str) -> None:
        self.counters[when] = self._read(fleet, 'shoal_interface_received_bytes_total{interface="data"}')

    def _peaks(self, fleet: NetnsFleet) -> None:
        self.counters["memory"] = self._read(fleet, "shoal_part_proportional_peak_bytes")

    def _read(self, fleet: NetnsFleet, series: str) -> dict[str, float]:
        """A series of every node's agent, summed over its labels; nodes that do not answer are left out."""
        found = {}
        for node in self.plan.nodes:
            try:
                page, _ = fleet.get(node.name, AGENT_PORT, "/metrics", {}, POLL_TIMEOUT_S)
            except GateError:
                continue
            lines = [line for line in page.decode().splitlines() if line.startswith(series)]
            if lines:
                found[node.name] = sum(float(line.rsplit(" ", 1)[1]) for line in lines)
        return found

    def _export(self, fleet: NetnsFleet) -> None:
        def get(path: str) -> bytes:
            return fleet.gate.get("127.0.0.1", PROMETHEUS_PORT, path, headers={}, timeout_s=60.0)[0]

        try:
            if not prometheus.wait_scraped(get, len(self.plan.nodes), time.time(), SCRAPED_S):
                self.say(f"not every node was scraped within the last {SCRAPED_S:g} s; the series end before")
            prometheus.export(get, self.directory.path / "series")
        except GateError as err:
            self.history.note("export_failed", message=str(err))
            self.say(f"the series were not exported: {err}")

    def _collect_logs(self) -> None:
        """What the nodes said, and the aggregator's durable state; keys and repositories stay behind."""
        for node in self.plan.nodes:
            folder = self.hidden / node.name
            for log in sorted(folder.glob("*.log")):
                (self._logs / node.name).mkdir(exist_ok=True)
                shutil.copyfile(log, self._logs / node.name / log.name)
            for name in CHAIN_FILES:
                if (folder / "aggregator" / name).exists():
                    chain = self.directory.path / "chain"
                    chain.mkdir(exist_ok=True)
                    shutil.copyfile(folder / "aggregator" / name, chain / name)

    def finish(self) -> None:
        self.limits.close()
        self._finish_files()
        self.history.close()

    def _finish_files(self) -> None:
        """The verdict and the figures, from what was observed, however far the run came."""
        events = list(self.history.events)
        reason = results.repeatable(self.plan, events)
        engines = sorted({f"{n['engine']} {n['version']}" for n in self.binding.get("nodes", {}).values()})
        found = {
            "scenario": self.plan.scenario,
            "run": self.directory.id,
            "driver": "netns",
            "ipfs_engine": engines[0]
            if len(engines) == 1
            else "mixed: " + ", ".join(engines)
            if engines
            else None,
            "delay_engine": "none",
            "transport": self.plan.network.transport,
            "limits": self.limits.said(),
            "seed": self.plan.seed,
            "synthetic_data": self.binding.get("data", {}).get("synthetic"),
            # Of a run that did not end nobody knows.
            "repeatable": reason is None if self.history.of("run_finished") else None,
            "repeatable_reason": reason,
            **results.figures(self.plan, events, self.counters),
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

    def _trainers(self) -> list[NodePlan]:
        return [node for node in self.plan.nodes if "trainer" in node.roles]

    def _task_file(self) -> str | None:
        file = self.scenario.task_file
        return str(file.resolve()) if file else None


def full_disk() -> HostError:
    return HostError(
        f"No space is left on a disk that the run writes to: {RUNS.absolute()} or {tempfile.gettempdir()}.",
        "free some, or set TMPDIR to a folder with more; `df -h` shows what is full",
    )


@contextmanager
def full_disk_told() -> Iterator[None]:
    """A full disk is the host's fault, wherever it is met."""
    try:
        yield
    except OSError as err:
        if err.errno != errno.ENOSPC:
            raise
        raise full_disk() from err


def write_secret(file: Path, text: str) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w") as out:
        out.write(text)


def wait_interrupt() -> None:
    """Until Ctrl-C."""
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        return
