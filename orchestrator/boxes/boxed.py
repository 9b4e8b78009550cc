"""The `netns` driver as a run uses it: its fleet in a box of its own, tools run in the box."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from node.contract.plan import Plan
from node.contract.settings import AGENT_PORT, PROMETHEUS_PORT
from orchestrator import preparation, process
from orchestrator.boxes.box import Box
from orchestrator.boxes.limits import Limits
from orchestrator.boxes.netns import NetnsFleet
from orchestrator.driver import Answer, DriverName, Job, Say
from orchestrator.faults.orders import OrderedParts
from orchestrator.gate import Door
from orchestrator.monitoring import prometheus

ENGINE_TIMEOUT_S: Final = 60.0
LOOPBACK: Final = "127.0.0.1"


class NetnsDriver:
    """Needs neither root nor Docker."""

    name: DriverName = "netns"

    def place(self, plan: Plan, say: Say) -> Plan:  # noqa: ARG002 - in a box no address is taken
        return plan

    @contextmanager
    def open(self, job: Job) -> Iterator[BoxedFleet]:
        limits = Limits(job.plan.nodes, job.hidden.name)
        try:
            with Box.open() as box, ExitStack() as ending:
                job.registration.add(init=box.init, in_user_namespace=box.in_user_namespace)
                yield BoxedFleet(box, job, limits, ending)
        finally:
            limits.close()


class BoxedFleet:
    """A NetnsFleet with all that a run has it do."""

    def __init__(self, box: Box, job: Job, limits: Limits, ending: ExitStack) -> None:
        self._box, self._job, self._ending = box, job, ending
        self.limits = limits
        self.secrets = job.hidden
        self.trunks = None  # the box's bridge leads there
        self._nodes = NetnsFleet(
            box,
            job.plan,
            job.hidden,
            job.logs,
            lambda name, status: job.ended(name, status, "node", False),
            limits,
            zygote_ended=lambda name, status: job.ended(name, status, "zygote", False),
        )
        self.parts = OrderedParts(job.hidden, self._nodes)
        self._door: Door | None = None

    def try_links(self, wanted: str) -> str:
        return try_links(self._box, wanted, self._job.hidden)

    def begin(self) -> None:
        self._nodes.begin_zygote()

    def prepare(self, request: Path) -> str:
        # Outside of the box, and while the zygote imports: neither waits for the other.
        return preparation.run_module(["node.prepare", str(request)], self._job.hidden)

    def task(self, file: str | None) -> str | None:
        return file

    def build(self) -> None:
        self._nodes.build_network()
        self._nodes.start_gate()
        self._nodes.wait_zygote()

    def start(self, prometheus_configuration: str) -> None:
        folder = self._job.hidden / "prometheus"
        folder.mkdir()
        file = folder / "prometheus.yml"
        file.write_text(prometheus_configuration)
        self._nodes.start_prometheus(prometheus.argv(prometheus.find(), file, folder / "data"))
        self._door = Door(self._nodes.gate, LOOPBACK, PROMETHEUS_PORT)
        self._ending.callback(self._door.close)
        for node in self._job.plan.nodes:
            self._nodes.start_node(node.name, self._job.hidden / f"{node.name}.json")

    def ask(
        self,
        node: str,
        method: str,
        path: str,
        body: bytes | None,
        headers: Mapping[str, str],
        timeout_s: float,
    ) -> Answer:
        return self._nodes.ask(node, AGENT_PORT, method, path, body, headers, timeout_s)

    def ask_prometheus(self, path: str, timeout_s: float) -> bytes:
        gate = self._nodes.gate
        return gate.get(LOOPBACK, PROMETHEUS_PORT, path, headers={}, timeout_s=timeout_s)[0]

    def look(self) -> None:
        """The agents see all parts' memory themselves."""

    def memory_bytes(self) -> Mapping[str, float]:
        return {}

    def pages(self) -> Mapping[str, str]:
        return {"Prometheus": self._door.url} if self._door is not None else {}

    def facts(self) -> dict[str, Any]:
        return {}

    def leave(self) -> None:
        self._nodes.leave()


def try_links(box: Box, wanted: str, folder: Path) -> str:
    """Ask a box's kernel for these links."""
    file = folder / "links-wanted.json"
    file.write_text(wanted)
    try:
        done = box.run([sys.executable, "-m", "node.links.engine", str(file)], timeout_s=ENGINE_TIMEOUT_S)
    except process.CommandFailedError as err:
        raise preparation.failed(err) from None
    return done.stdout
