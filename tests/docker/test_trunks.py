"""The line that two zones share, in containers: laid, led to by the nodes, shared by streams, and not gone around."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, Final

import docker
import pytest

from node.contract.plan import Plan
from node.contract.schema import to_json
from node.contract.settings import AGENT_PORT, EVENTS_FILE
from node.links.table import tables
from orchestrator.containers import addresses, compose_file, dockerd, engine, trunks
from orchestrator.containers.compose_file import Images, Site
from orchestrator.containers.containers import Containers
from orchestrator.containers.sharing import Owner
from orchestrator.planning import listing
from orchestrator.planning.plan import make_plan
from tests.docker.traces import traces
from tests.settings import node_settings

WAIT_S: Final = 60.0
TRIES: Final = 3
NONCE: Final = "ab" * 8
TOKEN: Final = "open sesame"
RATE_BIT_S: Final = 6_000_000
SCENARIO: Final = """
summary: Two zones with two nodes each, and one line between them.
fleet:
  aggregator: {zone: eu}
  workers: [{count: 1, zone: eu}, {count: 2, zone: asia}]
network:
  zones: [{from: eu, to: asia, shared_rate: 6 Mbit}]
workload: {dataset: digits, model: cnn, partition: {kind: iid}, rounds: 1, local_epochs: 1, batch_size: 32,
  learning_rate: 0.1}
checks: [rounds_completed == 1]
"""
ASK: Final = """
import sys, urllib.request
address, token, path, body = sys.argv[1:]
headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
asked = urllib.request.Request(f"http://{address}{path}", body.encode() or None, headers)
print(urllib.request.urlopen(asked, timeout=60).read().decode())
"""


class Fleet:
    """Nodes of which only the agents run, and what carries the line."""

    def __init__(self, plan: Plan, containers: Containers) -> None:
        self.plan, self.containers = plan, containers
        self._nodes = {node.name: node for node in plan.nodes}

    def address(self, name: str) -> str:
        return self._nodes[name].data_address

    def ask(self, name: str, path: str, **body: Any) -> dict[str, Any]:
        there = f"{self._nodes[name].ctl_address}:{AGENT_PORT}"
        argv = ["python3", "-c", ASK, there, TOKEN, path, json.dumps(body) if body else ""]
        answer: dict[str, Any] = json.loads(self.containers.ask(name, "agent", argv))
        return answer

    def run(self, name: str, command: str) -> str:
        return self.containers.ask(name, "agent", ["sh", "-c", command])

    def trunks(self, command: str) -> str:
        return self.containers.ask("", "trunks", ["sh", "-c", command])

    def bit_s(self, pair: tuple[str, str]) -> float:
        """One stream: payload per second, as it arrives."""
        sender, receiver = pair
        about = {"carrier": "tcp", "nonce": NONCE}
        sink = self.ask(receiver, "/probes", do="open", warm_up_s=0.5, window_s=1.0, **about)
        towards = {"peer_address": self.address(receiver), "port": sink["port"], "lasts_s": 30}
        self.ask(sender, "/probes", do="send", **towards, **about)
        told = self.ask(receiver, "/probes", do="close", sink=sink["sink"], wait_ms=20_000)
        return float(told["rate_bytes"]) * 8 / float(told["rate_s"])


@pytest.fixture(scope="module")
def fleet(
    client: docker.DockerClient, node_image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("trunks")
    (folder / "shared.yaml").write_text(SCENARIO)
    subnets = [*dockerd.networks(client), *map(str, addresses.routes(addresses.ROUTES.read_text()))]
    taken = [IPv4Network(subnet) for subnet in subnets]
    plan = addresses.placed(make_plan(listing.load(str(folder / "shared.yaml"))), taken)
    hidden = folder / f"shoal-test-{uuid.uuid4().hex[:8]}"
    containers = Containers(client, "test-1", hidden.name)
    prepare(plan, hidden)
    file = folder / "compose.yaml"
    file.write_text(compose_file.text(plan, site(hidden, node_image)))
    names = [f"{node.name}-agent" for node in plan.nodes]
    try:
        with engine.found() as here:
            up = [*here.compose.argv, "--file", str(file), "up", "--detach", "--no-build", "trunks", *names]
            done = subprocess.run(
                up, env={**os.environ, **here.environment}, capture_output=True, text=True, check=False
            )
        assert done.returncode == 0, done.stderr
        containers.wait_healthy({"trunks"}, WAIT_S)
        for node in plan.nodes:
            events = hidden / node.name / EVENTS_FILE
            wait(lambda file=events: file.exists() and '"links_applied"' in file.read_text())
        yield Fleet(plan, containers)
    finally:
        containers.remove()
    assert traces(client, hidden.name) == []


def prepare(plan: Plan, hidden: Path) -> None:
    """What the parts find in the folder of secrets."""
    hidden.mkdir()
    (hidden / "token").write_text(TOKEN + "\n")
    (hidden / trunks.FILE).write_text(trunks.script(plan))
    told = tables(plan, trunks.address(plan))
    for node in plan.nodes:
        (hidden / node.name).mkdir()
        settings = node_settings(
            node.name,
            hidden / node.name,
            data_address=node.data_address,
            ctl_address=node.ctl_address,
            token_file="/run/secrets/token",
            links=told[node.name],
        )
        (hidden / f"{node.name}.json").write_text(json.dumps(to_json(settings)))
    Owner.of_this_host().share(hidden)


def site(hidden: Path, image: str) -> Site:
    owner = Owner.of_this_host()
    return Site(
        run="test-1",
        fleet=hidden.name,
        project=hidden.name,
        hidden=hidden,
        data_folder=hidden,
        images=Images(image, image),
        user=owner.user,
        group=owner.group,
        sysctls={},
        threads=1,
    )


def wait(holds: Callable[..., bool]) -> None:
    deadline, pause = time.monotonic() + WAIT_S, threading.Event()
    while not holds():
        assert time.monotonic() < deadline
        pause.wait(0.05)


def test_two_streams_share_the_line_that_their_nodes_lead_to(fleet: Fleet) -> None:
    shown = fleet.trunks(trunks.question())
    assert trunks.differences(fleet.plan, shown) == []
    assert [fleet.ask(node.name, "/links")["mismatches"] for node in fleet.plan.nodes] == [[]] * 4

    def is_shared() -> bool:
        with ThreadPoolExecutor(2) as pool:
            rates = list(pool.map(fleet.bit_s, (("agg", "w02"), ("w01", "w03"))))
        line = pytest.approx(RATE_BIT_S * 1448 / 1514, rel=0.06)
        return sum(rates) == line and min(rates) > 0.2 * sum(rates)

    assert any(is_shared() for _ in range(TRIES))
    # The way back and within a zone are free.
    assert fleet.bit_s(("w02", "agg")) > 1.5 * RATE_BIT_S
    assert fleet.bit_s(("agg", "w01")) > 1.5 * RATE_BIT_S


def test_no_node_is_told_of_a_shorter_way(fleet: Fleet) -> None:
    """Its kernel would tell them at the first packets, and they would believe it."""
    there = fleet.address("w02")
    fleet.ask("agg", "/probes", do="echo", peer_address=there, count=3, interval_ms=5)
    shown = fleet.trunks("tc -s class show dev eth0 classid 1:1")
    assert "dropped 0," not in shown, shown
    way = fleet.run("agg", f"ip route get {there}")
    assert f"via {trunks.address(fleet.plan)} " in way, way


def test_what_carries_it_may_only_shape(fleet: Fleet) -> None:
    told = fleet.trunks("cat /proc/self/status; touch /opt/x 2>&1 || true")
    assert "CapBnd:\t0000000000001000\n" in told
    assert "NoNewPrivs:\t1\n" in told
    assert "Read-only file system" in told


def test_a_line_that_is_changed_is_no_more_as_asked(fleet: Fleet) -> None:
    fleet.trunks("tc class change dev eth0 parent 1: classid 1:10 htb rate 7mbit quantum 1514")
    said = trunks.differences(fleet.plan, fleet.trunks(trunks.question()))
    assert said == ["trunk eu:asia has 7000000 bit/s instead of 6000000"]
