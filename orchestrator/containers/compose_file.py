"""The Compose file of one run: every node as a holder and its parts. Pure; the text is made to be read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from pathlib import Path
from typing import Final, Literal

from node.contract.plan import NodePlan, Plan
from node.contract.settings import AGENT_PORT, IPFS_PORT, ROLE_PORT
from orchestrator.containers import compose_web, trunks
from orchestrator.containers.addresses import reserved
from orchestrator.containers.compose_yaml import ANCHORS, healthcheck, labels, quoted, same, volumes

FILE: Final = "compose.yaml"
PROFILES_FILE: Final = ".env"  # read by Compose beside its file
PROFILES: Final = "COMPOSE_PROFILES=observability\n"
MOST_SHARES: Final = 262_144  # the usual are 1024
Way = Literal["asked", "raised"]
RT_PERIOD_US: Final = 100_000  # short, so that whoever has used up its share waits but little


@dataclass(frozen=True)
class Images:
    node: str
    prometheus: str
    grafana: str | None = None


@dataclass(frozen=True)
class PartLimit:
    """What the engine holds a part's container to, and the control group that it shares with others."""

    memory_bytes: int | None = None
    cgroup_parent: str | None = None


@dataclass(frozen=True)
class RealTime:
    """How agents' holders of packets come before all others.

    `asked`: agents may ask for the least of the real-time priorities, which a resource limit allows.
    `raised`: node/links/raiser.py, in the container that keeps the namespaces, lets their holders come first.
    """

    way: Way
    runtime_us: int | None = None  # of each period, where the kernel shares real time out by groups


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
    scrape_interval: str = "1s"
    compose: str = "docker compose"  # as a person has to call it here


def text(plan: Plan, site: Site) -> str:
    """The whole file."""
    data, ctl = IPv4Network(plan.network.data_subnet), IPv4Network(plan.network.ctl_subnet)
    lines = [*_head(plan, site), "services:"]
    for node in plan.nodes:
        lines += _node(node, site)
    lines += trunks.service(plan, site.hidden, site.group)
    lines += compose_web.gate(ctl)
    lines += compose_web.prometheus(ctl, site.images.prometheus, site.hidden / "prometheus")
    if site.images.grafana is not None:
        lines += compose_web.dashboards(site.images.grafana, site.scrape_interval)
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
        *(f"#     {site.compose} {words}" for words in ("ps", "logs w01-agent", "up")),
        "# The secrets lie elsewhere, and are gone when the run has ended (not before, with --keep).",
        f"name: {quoted(site.project)}",
        "",
        "x-labels: &labels",
        f"  shoal.run: {quoted(site.run)}",
        f"  shoal.fleet: {quoted(site.fleet)}",
        "",
        *ANCHORS.splitlines(),
        "",
        "# What all containers have in common: nothing may be written but memory and what is mounted.",
        "x-any: &any",
        f"  image: {quoted(site.images.node)}",
        "  pull_policy: never",
        '  restart: "no"',
        "  read_only: true",
        '  tmpfs: ["/run", "/tmp:mode=1777"]',
        "  cap_drop: [ALL]",
        '  security_opt: ["no-new-privileges"]',
        f"  user: {quoted(f'{site.user}:{site.group}')}",
        f"  environment: {quoted({**python, 'GOMAXPROCS': str(site.threads)})}",
        "  stop_grace_period: 15s",
        "",
        "# Holds a node's network and process namespaces and does nothing else. The parts only share them,",
        "# so that a killed agent takes neither addresses nor links away. `init` reaps what they leave.",
        "x-holder: &holder",
        "  <<: *any",
        "  init: true",
        *_keeping(site.real_time),
        f"  sysctls: {quoted(sysctls)}",
        "",
        "# Root, because capabilities that are given to anybody else have no effect; it shapes the links.",
        "# It comes first when all cores are busy: packets that it holds must go in time.",
        "x-agent: &agent",
        "  <<: *any",
        f"  user: {quoted(f'0:{site.group}')}",
        "  cap_add: [NET_ADMIN, NET_RAW]",
        f"  cpu_shares: {MOST_SHARES}",
        *_real_time(site.real_time),
        "  secrets: [token]",
        "",
    ]


def _keeping(found: RealTime | None) -> list[str]:
    """What keeps the namespaces. That must go on, whatever becomes of the raiser."""
    if found is None or found.way != "raised":
        return ["  entrypoint: [sleep]", "  command: [infinity]"]
    return [
        "  # But one thing: it lets the process that holds packets come first; the agent may not.",
        '  user: "0:0"',
        "  cap_add: [SYS_NICE]",
        "  entrypoint: [sh, -c]",
        '  command: ["python3 -m node.links.raiser; exec sleep infinity"]',
    ]


def _real_time(found: RealTime | None) -> list[str]:
    if found is None:
        return []
    asked = ["  ulimits: {rtprio: 1}"] if found.way == "asked" else []
    shared = [f"  cpu_rt_period: {RT_PERIOD_US}", f"  cpu_rt_runtime: {found.runtime_us}"]
    return [*asked, *(shared if found.runtime_us is not None else [])]


def _node(node: NodePlan, site: Site) -> list[str]:
    name = node.name
    lines = [
        f"  {name}:",
        "    <<: *holder",
        labels(name, "holder"),
        "    networks:",
        f"      data: {{ipv4_address: {node.data_address}}}",
        f"      ctl: {{ipv4_address: {node.ctl_address}}}",
        "",
    ]
    before = None
    for part in parts(node):
        lines += _part(node, part, site, before)
        before = f"{name}-{part}"
    return lines


def _part(node: NodePlan, part: str, site: Site, before: str | None) -> list[str]:
    settings = site.hidden / f"{node.name}.json"
    bound = [same(site.hidden / node.name, writable=True), same(settings)]
    knock = {"agent": (node.ctl_address, AGENT_PORT), "ipfs": ("127.0.0.1", IPFS_PORT)}
    if part == "aggregator":
        bound.append(same(site.data_folder))  # it seeds the data
    if part in node.roles:
        knock[part] = ("127.0.0.1", ROLE_PORT + node.roles.index(part))
        if site.task is not None:
            bound.append(same(Path(site.task)))
    limit = site.limits.get((node.name, part), PartLimit())
    return [
        f"  {node.name}-{part}:",
        f"    <<: *{'agent' if part == 'agent' else 'any'}",
        f'    network_mode: "service:{node.name}"',
        f'    pid: "service:{node.name}"',
        # Only started, not ready: for that each part waits itself, and the engine asks seldom.
        *([f"    depends_on: [{before}]"] if before is not None else []),
        f"    entrypoint: {quoted(['python3', '-m', 'node'])}",
        f"    command: {quoted([str(settings), '--parts', part])}",
        *(["    secrets: [swarm-key]"] if part == "ipfs" else []),
        *volumes(*bound),
        *_limit(limit),
        labels(node.name, part),
        healthcheck(*knock[part]),
        "",
    ]


def _limit(limit: PartLimit) -> list[str]:
    lines = []
    if limit.cgroup_parent is not None:
        lines = [
            "    # Its class limits all in this group together: `shoal run` sees to it, by hand nobody does.",
            f"    cgroup_parent: {quoted(limit.cgroup_parent)}",
        ]
    if limit.memory_bytes is not None:
        lines += [f"    mem_limit: {limit.memory_bytes}", f"    memswap_limit: {limit.memory_bytes}"]
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
    return ["secrets:", *(f"  {name}: {{file: {quoted(str(hidden / name))}}}" for name in names)]


def _line(said: str) -> str:
    return " ".join(said.split())
