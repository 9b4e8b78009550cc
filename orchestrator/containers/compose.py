"""The `compose` driver: a fleet as containers, brought up by Docker Compose and looked after by the SDK."""

from __future__ import annotations

import json
import os
import secrets
import shlex
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, Final

from node.contract import HostError
from node.contract.plan import Plan
from node.contract.settings import AGENT_PORT, PROMETHEUS_PORT
from orchestrator.containers import (
    addresses,
    compose_file,
    container_limits,
    dockerd,
    engine,
    errand,
    images,
    runtime,
    trunks,
)
from orchestrator.containers.compose_file import RealTime, Site
from orchestrator.containers.compose_up import bring_up
from orchestrator.containers.compose_web import GATE_PORT, SECRETS
from orchestrator.containers.container_parts import ContainerParts
from orchestrator.containers.containers import Containers, Death, Watch
from orchestrator.containers.deaths import Deaths
from orchestrator.containers.engine import Engine
from orchestrator.containers.errand import Errand
from orchestrator.containers.images import Images
from orchestrator.containers.look import Look
from orchestrator.containers.memory import Memory
from orchestrator.containers.sharing import Owner
from orchestrator.driver import Answer, DriverName, Job, Say
from orchestrator.gate import Gate, GateError
from orchestrator.monitoring import grafana, prometheus
from orchestrator.preparation import write_secret
from orchestrator.trunks import NAME as TRUNKS

LOOPBACK: Final = "127.0.0.1"
HEALTHY_S: Final = 60.0


class ComposeDriver:
    """Needs a Docker engine with Compose, of this host."""

    name: DriverName = "compose"
    _images: Images

    def check(self) -> None:
        """HostError where no engine can carry a fleet."""
        with engine.found():
            pass

    def place(self, plan: Plan, say: Say) -> Plan:
        self.check()
        self._images = images.ensure(say)
        with engine.found() as found:
            networks = dockerd.networks(found.client).items()
        taken = dict.fromkeys(addresses.routes(addresses.ROUTES.read_text()), "a route of this host")
        taken |= {IPv4Network(subnet): whose for subnet, whose in networks}
        placed = addresses.placed(plan, taken)
        if placed is not plan:
            wanted = (IPv4Network(plan.network.data_subnet), IPv4Network(plan.network.ctl_subnet))
            whose = sorted({taken[one] for one in taken for mine in wanted if mine.overlaps(one)})
            now = f"{placed.network.data_subnet} and {placed.network.ctl_subnet}"
            say(f"the plan's subnets are taken ({', '.join(whose)}); this run takes {now}")
        return placed

    @contextmanager
    def open(self, job: Job) -> Iterator[ComposeFleet]:
        with engine.found() as found, ExitStack() as ending:
            job.registration.add(engine=found.url)
            containers = Containers(found.client, job.run, job.hidden.name)
            ending.callback(container_limits.remove, containers, found.client)
            fleet = ComposeFleet(job, containers, found, self._images)
            ending.callback(fleet.close)
            yield fleet


class ComposeFleet:
    """The containers of one run, from its first question to the engine to their end."""

    def __init__(self, job: Job, containers: Containers, engine: Engine, images: Images) -> None:
        self._job, self._containers, self._engine, self._images = job, containers, engine, images
        self._client = engine.client
        self._owner = Owner.of_this_host()
        self._look = Look(engine.client, images.node, containers.labels)
        self._gate: Gate | None = None
        self._gate_token = secrets.token_hex(16)
        self._watch: Watch | None = None
        self._is_leaving = False
        self._real_time: RealTime | None = None
        self._task: str | None = None
        self.parts = ContainerParts(containers)
        self._deaths = Deaths(containers.tail, self.parts.explains, job.ended, job.say)
        self.limits = container_limits.limits(job.plan.nodes, containers, engine.client, images.node)
        self.secrets = SECRETS
        self._memory = Memory(
            {node.name: compose_file.parts(node) for node in job.plan.nodes}, containers.memory_bytes
        )
        self.trunks = trunks.address(job.plan)
        self._file = job.directory / compose_file.FILE

    def try_links(self, wanted: str) -> str:
        file = self._job.hidden / "links-wanted.json"
        file.write_text(wanted)
        self._owner.share(file)
        asked = Errand(
            ["python3", "-m", "node.links.engine", str(file)],
            user=self._owner.agent,
            capabilities=("NET_ADMIN", "NET_RAW"),
            reads=(file,),
        )
        answer = errand.answer(self._client, self._images.node, self._containers.labels, asked)
        if json.loads(answer)["engine"] == "hold":
            self._real_time = self._look.real_time(len(self._job.plan.nodes))
        return answer

    def begin(self) -> None:
        limited = [node for node in self._job.plan.nodes if node.memory_bytes is not None]
        parts = {part for node in limited for part in runtime.parts(node)}
        self.limits.runtime_bytes = runtime.measured(
            self._client, self._images.node, self._containers.labels, parts
        )

    def prepare(self, request: Path) -> str:
        """As the user and with the daemons of the nodes' containers."""
        hidden, folders = self._job.hidden, [self._job.hidden / node.name for node in self._job.plan.nodes]
        write_secret(hidden / "gate-token", self._gate_token)
        for name in ("token", "swarm-key", "gate-token", request.name, "data"):
            self._owner.share(hidden / name)
        for folder in folders:
            self._owner.share(folder)
        asked = Errand(
            ["python3", "-m", "node.prepare", str(request)],
            user=self._owner.unprivileged,
            reads=(request, hidden / "swarm-key", hidden / "data"),
            writes=folders,
        )
        return errand.answer(self._client, self._images.node, self._containers.labels, asked)

    def task(self, file: str | None) -> str | None:
        """A copy, since the parts' user may not read the user's own."""
        if file is not None:
            copy = self._job.hidden / "task" / Path(file).name
            copy.parent.mkdir()
            copy.write_bytes(Path(file).read_bytes())
            self._owner.share(copy.parent)
            self._task = str(copy)
        return self._task

    def build(self) -> None:
        """Write what Compose is to do."""
        plan, job = self._job.plan, self._job
        shown = (self._images.node, self._images.prometheus, self._images.grafana)
        site = Site(
            run=job.run,
            fleet=job.hidden.name,
            project=f"{job.run}-{job.hidden.name}".lower(),
            hidden=job.hidden,
            data_folder=job.hidden / "data",
            images=compose_file.Images(*shown),
            user=self._owner.user,
            group=self._owner.group,
            sysctls=self._look.sysctls(plan.network.transport),
            threads=max(1, (os.cpu_count() or 1) // len(plan.nodes)),
            real_time=self._real_time,
            task=self._task,
            limits=self.limits.prepare(),
            scrape_interval=prometheus.scrape_interval(len(plan.nodes)),
            compose=shlex.join(self._engine.compose.argv),
        )
        if self.trunks is not None:
            file = job.hidden / trunks.FILE
            file.write_text(trunks.script(plan))
            self._owner.share(file)
        self._file.write_text(compose_file.text(plan, site))
        (job.directory / compose_file.PROFILES_FILE).write_text(compose_file.PROFILES)

    def start(self, configuration: str) -> None:
        folder = self._job.hidden / "prometheus"
        (folder / "data").mkdir(parents=True)
        (folder / "prometheus.yml").write_text(configuration)
        self._owner.share(folder)
        for node in self._job.plan.nodes:
            self._owner.share(self._job.hidden / f"{node.name}.json")
        self._up()
        self.limits.enforce()
        self._watch = self._containers.watch(self._died, self._deaf)
        lines = {TRUNKS} if self.trunks is not None else set()
        self._containers.wait_healthy({"gate", "prometheus", *lines}, HEALTHY_S)
        self._check_trunks()
        self._gate = Gate((LOOPBACK, self._port("gate", GATE_PORT)), self._gate_token)

    def ask(
        self,
        node: str,
        method: str,
        path: str,
        body: bytes | None,
        headers: Mapping[str, str],
        timeout_s: float,
    ) -> Answer:
        (address,) = [one.ctl_address for one in self._job.plan.nodes if one.name == node]
        return self._through().ask(
            address, AGENT_PORT, method, path, body, headers=headers, timeout_s=timeout_s
        )

    def ask_prometheus(self, path: str, timeout_s: float) -> bytes:
        *_, there = addresses.reserved(IPv4Network(self._job.plan.network.ctl_subnet))
        return self._through().get(str(there), PROMETHEUS_PORT, path, headers={}, timeout_s=timeout_s)[0]

    def pages(self) -> Mapping[str, str]:
        found = {"Prometheus": f"http://{LOOPBACK}:{self._port('prometheus', PROMETHEUS_PORT)}"}
        if self._images.grafana is not None:
            found["Grafana"] = f"http://{LOOPBACK}:{self._port('grafana', grafana.PORT)}"
        return found

    def facts(self) -> dict[str, Any]:
        images = (self._images.node, self._images.prometheus, self._images.grafana)
        return {
            "docker": dockerd.facts(self._client, [image for image in images if image is not None]),
        }

    def look(self) -> None:
        self._memory.look()

    def memory_bytes(self) -> Mapping[str, float]:
        self._memory.close()
        return self._memory.most_bytes()

    def leave(self) -> None:
        self._is_leaving = True

    def close(self) -> None:
        """Take the last of it, while the containers are still there."""
        self.leave()
        self._memory.close()
        if self._watch is not None:
            self._watch.close()
        self.limits.close()
        # What the containers' first processes said; the parts' own logs are in the nodes' folders.
        for one in self._containers.all():
            if said := self._containers.tail(one.node, one.part, lines=10_000):
                (self._job.logs / f"{one.name}.container.log").write_text(said + "\n")

    def _port(self, part: str, inner: int) -> int:
        """Where a port of a container is published."""
        with dockerd.told(part):
            attributes = self._client.api.inspect_container(self._containers.one("", part).id or "")
        published = attributes["NetworkSettings"]["Ports"].get(f"{inner}/tcp")
        if not published:
            raise HostError(f"port {inner} of {part} is not published", "see: docker compose ps")
        return int(published[0]["HostPort"])

    def _through(self) -> Gate:
        if self._gate is None:
            raise GateError("the gate is not there yet")
        return self._gate

    def _up(self) -> None:
        """Have Compose start it all, and say how far it is."""
        wanted = sum(1 + len(compose_file.parts(node)) for node in self._job.plan.nodes)
        wanted += len([image for image in (self._images.prometheus, self._images.grafana) if image]) + 1
        wanted += self.trunks is not None

        def look() -> None:
            run = sum(one.status == "running" for one in self._containers.all())
            self._job.say(f"{run} of {wanted} containers run")

        bring_up(
            self._engine.compose.argv,
            self._engine.environment,
            self._file,
            self._job.logs / "compose.log",
            lambda identity: self._job.registration.add(up=identity),
            look,
        )

    def _check_trunks(self) -> None:
        """What their kernel really has, before anything is measured."""
        if self.trunks is not None:
            answer = self._containers.ask("", TRUNKS, ["sh", "-c", trunks.question()])
            trunks.check(self._job.plan, answer)

    def _died(self, death: Death) -> None:
        if not self._is_leaving:
            self._deaths.hear(death)

    def _deaf(self) -> None:
        if not self._is_leaving:
            self._job.say(
                "the Docker engine tells no events any more: whose container dies from now on is not heard"
            )
