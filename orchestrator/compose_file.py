"""The Compose file of one run: every node as a holder and its parts. Pure; the text is made to be read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, Final

from node.contract.plan import NodePlan, Plan
from node.contract.settings import AGENT_PORT, IPFS_PORT, PROMETHEUS_PORT, ROLE_PORT
from orchestrator.addresses import reserved

GATE_PORT: Final = 7080
GRAFANA_PORT: Final = 3000
SECRETS: Final = Path("/run/secrets")  # where Compose puts them
FILE: Final = "compose.yaml"
PROFILES_FILE: Final = ".env"  # read by Compose beside its file
PROFILES: Final = "COMPOSE_PROFILES=observability\n"
# Without a shell or anything of ours, since the engine runs it again and again.
KNOCK: Final = "import socket,sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 5).close()"
MOST_SHARES: Final = 262_144  # the usual are 1024
RT_PERIOD_US: Final = 100_000  # short, so that whoever has used up its share waits but little


@dataclass(frozen=True)
class Images:
    node: str
    prometheus: str
    grafana: str | None = None


@dataclass(frozen=True)
class PartLimit:
    """What the engine holds a part's container to."""

    memory_bytes: int | None = None


@dataclass(frozen=True)
class RealTime:
    """How agents may have the least of the real-time priorities."""

    runtime_us: int | None  # of each period, where the kernel shares real time out by groups


@dataclass(frozen=True)
class Site:
    """What host and run add to the plan."""

    run: str
    fleet: str  # the name of the run's folder of secrets, by which everything is found again
    project: str
    hidden: Path
    data_folder: Path
    images: Images
    user: int  # of all parts but the agent
    group: int  # of all parts
    sysctls: Mapping[str, str]  # of net.ipv4, that this kernel knows
    threads: int  # of each daemon
    real_time: RealTime | None = None  # None: agents cannot have it here
    task: str | None = None
    limits: Mapping[tuple[str, str], PartLimit] = field(default_factory=dict)  # by node and part
    grafana: Mapping[str, Any] | None = None  # environment and volumes of its service


def text(plan: Plan, site: Site) -> str:
    """The whole file."""
    data, ctl = IPv4Network(plan.network.data_subnet), IPv4Network(plan.network.ctl_subnet)
    lines = [*_head(plan, site), "services:"]
    for node in plan.nodes:
        lines += _node(node, site)
    lines += _gate(ctl) + _observability(site, ctl)
    lines += _networks(data, ctl) + _secrets(site.hidden)
    return "\n".join(lines) + "\n"


def parts(node: NodePlan) -> tuple[str, ...]:
    """The parts of a node, each in a container of its own."""
    return ("agent", "ipfs", *node.roles)


def _head(plan: Plan, site: Site) -> list[str]:
    python = {"HOME": "/tmp", "TMPDIR": "/tmp", "PYTHONDONTWRITEBYTECODE": "1"}
    sysctls = {f"net.ipv4.{name}": value for name, value in site.sysctls.items()}
    return [
        f"# {plan.scenario}: {_line(plan.summary)}",
        "# The fleet as `shoal run` has started it. While it lives, also by hand, in this folder:",
        "#     docker compose ps        docker compose logs w01-agent        docker compose up",
        "# The secrets lie elsewhere, and are gone when the run has ended (not before, with --keep).",
        f"name: {_q(site.project)}",
        "",
        "x-labels: &labels",
        f"  shoal.run: {_q(site.run)}",
        f"  shoal.fleet: {_q(site.fleet)}",
        "",
        "# What all containers have in common: nothing may be written but memory and what is mounted.",
        "x-any: &any",
        f"  image: {_q(site.images.node)}",
        "  pull_policy: never",
        '  restart: "no"',
        "  read_only: true",
        '  tmpfs: ["/run", "/tmp:mode=1777"]',
        "  cap_drop: [ALL]",
        '  security_opt: ["no-new-privileges:true"]',
        f"  user: {_q(f'{site.user}:{site.group}')}",
        f"  environment: {_q({**python, 'GOMAXPROCS': str(site.threads)})}",
        "  stop_grace_period: 15s",
        "",
        "# Holds a node's network and process namespaces and does nothing else. The parts only share them,",
        "# so that a killed agent takes neither addresses nor links away. `init` reaps what they leave.",
        "x-holder: &holder",
        "  <<: *any",
        "  init: true",
        "  entrypoint: [sleep]",
        "  command: [infinity]",
        f"  sysctls: {_q(sysctls)}",
        "",
        "# Root, because capabilities that are given to anybody else have no effect; it shapes the links.",
        "# It comes first when all cores are busy: packets that it holds must go in time.",
        "x-agent: &agent",
        "  <<: *any",
        f"  user: {_q(f'0:{site.group}')}",
        "  cap_add: [NET_ADMIN, NET_RAW]",
        f"  cpu_shares: {MOST_SHARES}",
        *_real_time(site.real_time),
        "  secrets: [token]",
        "",
    ]


def _real_time(found: RealTime | None) -> list[str]:
    if found is None:
        return []
    shared = [f"  cpu_rt_period: {RT_PERIOD_US}", f"  cpu_rt_runtime: {found.runtime_us}"]
    return ["  ulimits: {rtprio: 1}", *(shared if found.runtime_us is not None else [])]


def _node(node: NodePlan, site: Site) -> list[str]:
    name = node.name
    lines = [
        f"  {name}:",
        "    <<: *holder",
        _labels(name, "holder"),
        "    networks:",
        f"      data: {{ipv4_address: {node.data_address}}}",
        f"      ctl: {{ipv4_address: {node.ctl_address}}}",
        "",
    ]
    for part in parts(node):
        lines += _part(node, part, site)
    return lines


def _part(node: NodePlan, part: str, site: Site) -> list[str]:
    settings = site.hidden / f"{node.name}.json"
    volumes = [_bind(site.hidden / node.name, False), _bind(settings, True)]
    knock = {"agent": (node.ctl_address, AGENT_PORT), "ipfs": ("127.0.0.1", IPFS_PORT)}
    if part == "aggregator":
        volumes.append(_bind(site.data_folder, True))  # it seeds the data
    if part in node.roles:
        knock[part] = ("127.0.0.1", ROLE_PORT + node.roles.index(part))
        if site.task is not None:
            volumes.append(_bind(Path(site.task), True))
    limit = site.limits.get((node.name, part), PartLimit())
    return [
        f"  {node.name}-{part}:",
        f"    <<: *{'agent' if part == 'agent' else 'any'}",
        f'    network_mode: "service:{node.name}"',
        f'    pid: "service:{node.name}"',
        f"    entrypoint: {_q(['python3', '-m', 'node'])}",
        f"    command: {_q([str(settings), '--parts', part])}",
        *(["    secrets: [swarm-key]"] if part == "ipfs" else []),
        "    volumes:",
        *(f"      - {_q(volume)}" for volume in volumes),
        *(
            [f"    mem_limit: {limit.memory_bytes}", f"    memswap_limit: {limit.memory_bytes}"]
            if limit.memory_bytes is not None
            else []
        ),
        _labels(node.name, part),
        _health(*knock[part], "30s", start="120s"),
        "",
    ]


def _gate(ctl: IPv4Network) -> list[str]:
    gate, _, prometheus = reserved(ctl)
    command = ["--listen", f"0.0.0.0:{GATE_PORT}", "--token-file", str(SECRETS / "gate-token")]
    for target in (f"{ctl}:{AGENT_PORT}", f"{prometheus}/32:{PROMETHEUS_PORT}"):
        command += ["--to", target]
    return [
        "  # The one way in from the host: whoever knows its token is let through to agents and Prometheus.",
        "  gate:",
        "    <<: *any",
        f"    entrypoint: {_q(['python3', '-m', 'orchestrator.gate'])}",
        f"    command: {_q(command)}",
        "    secrets: [gate-token]",
        "    networks:",
        f"      ctl: {{ipv4_address: {gate}}}",
        "      web:",
        f'    ports: ["127.0.0.1::{GATE_PORT}"]',
        _labels("", "gate"),
        _health("127.0.0.1", GATE_PORT, "2s"),
        "",
    ]


def _observability(site: Site, ctl: IPv4Network) -> list[str]:
    _, _, address = reserved(ctl)
    folder = site.hidden / "prometheus"
    command = [
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=0.0.0.0:{PROMETHEUS_PORT}",
        "--web.cors.origin=none",
        "--log.level=warn",
    ]
    lines = [
        "  prometheus:",
        "    <<: *any",
        f"    image: {_q(site.images.prometheus)}",
        "    profiles: [observability]",
        f"    command: {_q(command)}",
        "    volumes:",
        f"      - {_q(_bind(folder, False))}",
        "    networks:",
        f"      ctl: {{ipv4_address: {address}}}",
        "      web:",
        f'    ports: ["127.0.0.1::{PROMETHEUS_PORT}"]',
        _labels("", "prometheus"),
        "",
    ]
    if site.images.grafana is not None and site.grafana is not None:
        lines += [
            "  grafana:",
            "    <<: *any",
            f"    image: {_q(site.images.grafana)}",
            "    profiles: [observability]",
            *(f"    {key}: {_q(value)}" for key, value in site.grafana.items()),
            "    networks: [web]",
            f'    ports: ["127.0.0.1::{GRAFANA_PORT}"]',
            _labels("", "grafana"),
            "",
        ]
    return lines


def _networks(data: IPv4Network, ctl: IPv4Network) -> list[str]:
    lines = [
        "networks:",
        "  # `data` is shaped, `ctl` never is; neither leads out of the host. The bridges' own addresses lie",
        "  # at the end of the subnets, where no node is.",
    ]
    for name, subnet in (("data", data), ("ctl", ctl)):
        _, bridge, _ = reserved(subnet)
        lines += [
            f"  {name}:",
            "    internal: true",
            "    labels: *labels",
            f"    ipam: {{config: [{{subnet: {subnet}, gateway: {bridge}}}]}}",
        ]
    return [
        *lines,
        "  # An ordinary one, because no port of an internal network can be published; only on 127.0.0.1.",
        "  web:",
        "    labels: *labels",
        "",
    ]


def _secrets(hidden: Path) -> list[str]:
    names = ("token", "swarm-key", "gate-token")
    return ["secrets:", *(f"  {name}: {{file: {_q(str(hidden / name))}}}" for name in names)]


def _labels(node: str, part: str) -> str:
    return f"    labels: {{<<: *labels, shoal.node: {_q(node)}, shoal.part: {_q(part)}}}"


def _health(host: str, port: int, interval: str, start: str = "20s") -> str:
    test = _q(["CMD", "python3", "-I", "-S", "-c", KNOCK, host, str(port)])
    return f"    healthcheck: {{test: {test}, interval: {interval}, timeout: 10s, start_period: {start}}}"


def _bind(path: Path, is_read_only: bool) -> dict[str, Any]:
    """At the same place inside, so that settings mean the same on every driver; never made by the engine."""
    bound: dict[str, Any] = {"type": "bind", "source": str(path), "target": str(path)}
    if is_read_only:
        bound["read_only"] = True
    return {**bound, "bind": {"create_host_path": False}}


def _q(value: str | Sequence[Any] | Mapping[str, Any]) -> str:
    """JSON is YAML; a dollar would begin a variable."""
    return json.dumps(value, ensure_ascii=False).replace("$", "$$")


def _line(said: str) -> str:
    return " ".join(said.split())
