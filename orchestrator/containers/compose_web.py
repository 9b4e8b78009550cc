"""The services of a Compose file that the host can reach: the gate, Prometheus, Grafana. Pure."""

from __future__ import annotations

from ipaddress import IPv4Network
from pathlib import Path
from typing import Final

from node.contract.settings import AGENT_PORT, PROMETHEUS_PORT
from orchestrator.containers.addresses import reserved
from orchestrator.containers.compose_yaml import healthcheck, labels, quoted, same, volumes
from orchestrator.monitoring import grafana

GATE_PORT: Final = 7080
SECRETS: Final = Path("/run/secrets")  # where Compose puts them
LOCAL: Final = f"http://127.0.0.1:{PROMETHEUS_PORT}"
PROMETHEUS_URL: Final = f"http://prometheus:{PROMETHEUS_PORT}"  # as the other services call it
# With busybox, as in the public image, or with bash, as in ours.
READY: Final = f"wget -q -O /dev/null {LOCAL}/-/ready || bash -c '</dev/tcp/127.0.0.1/{PROMETHEUS_PORT}'"


def gate(ctl: IPv4Network) -> list[str]:
    address, _, prometheus_address = reserved(ctl)
    command = ["--listen", f"0.0.0.0:{GATE_PORT}", "--token-file", str(SECRETS / "gate-token")]
    for target in (f"{ctl}:{AGENT_PORT}", f"{prometheus_address}/32:{PROMETHEUS_PORT}"):
        command += ["--to", target]
    return [
        "  # The one way in from the host: whoever knows its token is let through to agents and Prometheus.",
        "  gate:",
        "    <<: *any",
        f"    entrypoint: {quoted(['python3', '-m', 'orchestrator.gate'])}",
        f"    command: {quoted(command)}",
        "    secrets: [gate-token]",
        "    networks:",
        f"      ctl: {{ipv4_address: {address}}}",
        "      web:",
        f'    ports: ["127.0.0.1::{GATE_PORT}"]',
        labels("", "gate"),
        healthcheck("127.0.0.1", GATE_PORT, soon=True),
        "",
    ]


def prometheus(ctl: IPv4Network, image: str, folder: Path) -> list[str]:
    _, _, address = reserved(ctl)
    command = [
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=0.0.0.0:{PROMETHEUS_PORT}",
        "--web.cors.origin=none",
        "--log.level=warn",
    ]
    return [
        "  prometheus:",
        "    <<: *any",
        "    profiles: [observability]",
        f"    image: {quoted(image)}",
        f"    command: {quoted(command)}",
        *volumes(same(folder, writable=True)),
        "    networks:",
        f"      ctl: {{ipv4_address: {address}}}",
        "      web:",
        f'    ports: ["127.0.0.1::{PROMETHEUS_PORT}"]',
        labels("", "prometheus"),
        f"    healthcheck: {{<<: *health-soon, test: {quoted(['CMD-SHELL', READY])}}}",
        "",
    ]


def dashboards(image: str, scrape_interval: str) -> list[str]:
    told = grafana.service(PROMETHEUS_URL, scrape_interval)
    mounted = [(Path(one["source"]), Path(one["target"]), False) for one in told["volumes"]]
    return [
        "  grafana:",
        "    <<: *any",
        "    profiles: [observability]",
        f"    image: {quoted(image)}",
        "    environment:",
        *(f"      {name}: {quoted(value)}" for name, value in told["environment"].items()),
        *volumes(*mounted),
        "    networks: [web]",
        f'    ports: ["127.0.0.1::{grafana.PORT}"]',
        f"    healthcheck: {quoted(told['healthcheck'])}",
        labels("", "grafana"),
        "",
    ]
