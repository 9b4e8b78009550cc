"""Whole runs whose nodes are limited: what they say of it, and that no control group stays, however they end."""

from __future__ import annotations

import json
import re
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from orchestrator.containers import groups
from orchestrator.containers.groups import Layout
from orchestrator.containers.keeper import HIERARCHIES
from tests.docker.traces import traces
from tests.run.kept import Terminal

LIMITED = Path(__file__).with_name("limited.yaml")
RUN_S = 180.0
END_S = 90.0


@pytest.fixture
def terminal(tmp_path: Path, client: docker.DockerClient, node_image: str) -> Iterator[Terminal]:
    if not isinstance(groups.layout(client.info()), Layout):
        pytest.skip("this engine's control groups are not ours")
    with tempfile.TemporaryDirectory(prefix="living-") as registry:
        here = Terminal(tmp_path, Path(registry), "compose")
        yield here
        here.call("down", "--all")
        here.wait_no_process(END_S)


def latest(terminal: Terminal) -> Path:
    return terminal.folder / "runs" / "limited" / "latest"


def groups_of(fleet: str) -> list[Path]:
    return [path for path in HIERARCHIES.rglob(f"*{fleet}*") if path.is_dir()]


def test_a_run_tells_what_was_limited_and_leaves_no_group(terminal: Terminal) -> None:
    process = terminal.start("run", str(LIMITED), "--json")
    said, _ = process.communicate(timeout=RUN_S)
    assert process.returncode in (0, 2), said  # on a busy machine packets are late, which is not asked here
    results: dict[str, Any] = json.loads((latest(terminal) / "results.json").read_text())
    assert (results["failure"], results["checks"][0]["state"]) == (None, "held")
    limits = results["limits"]
    assert limits["nodes"].keys() == {"w01", "w02"}
    for kind in ("cpu", "memory"):
        assert limits[kind].startswith("enforced by cgroup v")
    assert limits["runtime_bytes"].keys() == {"ipfs", "trainer"}
    # Without it no trainer could so much as begin.
    assert limits["runtime_bytes"]["trainer"] > 100 << 20
    most = (300 << 20) + sum(limits["runtime_bytes"].values())
    assert sum(counted["throttled_seconds"] for counted in limits["counted"].values()) > 0
    for counted in limits["counted"].values():
        assert counted["killed_for_memory"] == 0
        assert counted["memory_peak_bytes"] <= most
    compose_file = (latest(terminal) / "compose.yaml").read_text()
    (fleet,) = set(re.findall(r'shoal.fleet: "(.+)"', compose_file))
    assert len(re.findall(rf"cgroup_parent: .*{fleet}", compose_file)) == 4
    assert groups_of(fleet) == []


def test_killed_in_mid_run_nothing_is_left_after_the_next_command(
    terminal: Terminal, client: docker.DockerClient
) -> None:
    process = terminal.start("run", str(LIMITED), "--keep")
    deadline, pause = time.monotonic() + RUN_S, threading.Event()
    history = latest(terminal) / "history.jsonl"
    try:
        while not (history.exists() and '"round_opened"' in history.read_text()):
            assert process.poll() is None
            assert time.monotonic() < deadline, "it did not come so far"
            pause.wait(0.1)
        fleet = Path(terminal.recorded()[0]["secrets"]).name
        assert groups_of(fleet) != []
    finally:
        process.kill()
        process.communicate()
    status, said = terminal.call("exec", "w01", "--", "true")
    assert (status, "no run is living" in said) == (64, True)
    assert traces(client, fleet) == []
    assert groups_of(fleet) == []
