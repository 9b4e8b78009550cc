"""Limits of nodes that are containers, in force; the parts that take are those of tests/box/test_limits.py."""

from __future__ import annotations

import json
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest

from node.contract.plan import NodePlan
from orchestrator.boxes.cgroups import Refused
from orchestrator.containers import container_limits, errand, groups, keeper, runtime
from orchestrator.containers.container_limits import ContainerLimits
from orchestrator.containers.containers import NODE, PART, Containers
from orchestrator.containers.errand import Errand
from tests.box.limited_node import LIMIT_BYTES, MOST_BYTES

TOP = Path(__file__).resolve().parents[2]
WAIT_S = 60.0
MEASURED_S = 4.0
CORES = 0.25
PYTHON = ["env", f"PYTHONPATH={TOP}", "PYTHONDONTWRITEBYTECODE=1", "python3"]


def node(name: str = "w01", cpu: float | None = None, memory_bytes: int | None = None) -> NodePlan:
    return NodePlan(name, ("trainer",), None, "phone", "", "", cpu=cpu, memory_bytes=memory_bytes)


class Fleet:
    """The limited containers of some nodes, each with one part that takes."""

    def __init__(self, client: docker.DockerClient, image: str, folder: Path) -> None:
        self.client, self.image, self.folder = client, image, folder
        self.mine = Containers(client, "test-limits", f"shoal-test{uuid.uuid4().hex[:8]}")
        self._measured: int | None = None
        self.opened: list[ContainerLimits] = []

    def open(self, *nodes: NodePlan, **parts: str) -> ContainerLimits:
        """Each node with an `ipfs` and a `trainer`, whose containers run what is given by that name."""
        limits = container_limits.limits(nodes, self.mine, self.client, self.image)
        self.opened.append(limits)
        size_bytes = self.resident_bytes()
        limits.runtime_bytes = {"ipfs": size_bytes, "trainer": size_bytes}
        told = limits.prepare()
        for one in nodes:
            for part, taking in parts.items():
                limit = told[one.name, part]
                folder = self.folder / one.name
                folder.mkdir(exist_ok=True)
                self.client.containers.run(
                    self.image,
                    [*PYTHON, "-m", "tests.box.limited_node", str(folder), "[]", taking],
                    entrypoint=[],
                    detach=True,
                    labels={**self.mine.labels, NODE: one.name, PART: part},
                    user=f"{os.getuid()}:{os.getgid()}",
                    network_mode="none",
                    volumes={str(TOP): {"bind": str(TOP), "mode": "ro"}, str(folder): {"bind": str(folder)}},
                    cgroup_parent=limit.cgroup_parent,
                    mem_limit=limit.memory_bytes,
                    memswap_limit=limit.memory_bytes,
                )
        limits.enforce()
        return limits

    def resident_bytes(self) -> int:
        """What a part takes before it takes anything."""
        if self._measured is None:
            argv = [*PYTHON, "-c", runtime.MEASURE, "tests.box.limited_node"]
            asked = Errand(argv, user=f"{os.getuid()}:{os.getgid()}", reads=(TOP,))
            self._measured = int(errand.answer(self.client, self.image, self.mine.labels, asked))
        return self._measured

    def taken(self, part: str, node: str = "w01") -> tuple[float, float, int]:
        """CPU seconds, the clock, bytes."""
        cpu_s, clock_s, _, memory_bytes = json.loads((self.folder / node / part).read_text())
        return cpu_s, clock_s, memory_bytes

    def rate(self, *parts: str) -> float:
        """Cores that parts have used together, by their own clocks, over some seconds from now on."""
        first = {part: self.taken(part) for part in parts}
        wait_until(lambda: all(self.taken(part)[1] > first[part][1] + MEASURED_S for part in parts))
        last = {part: self.taken(part) for part in parts}
        return sum((last[part][0] - first[part][0]) / (last[part][1] - first[part][1]) for part in parts)

    def ended(self, node: str = "w01") -> list[tuple[str, int]]:
        events = map(json.loads, (self.folder / node / "events.jsonl").read_text().splitlines())
        return [(one["part"], one["status"]) for one in events if one["kind"] == "part_ended"]

    def groups_left(self) -> list[Path]:
        return [path for path in Path("/sys/fs/cgroup").rglob(f"{self.mine.fleet}*") if path.is_dir()]


@pytest.fixture
def fleet(client: docker.DockerClient, node_image: str, tmp_path: Path) -> Iterator[Fleet]:
    found = groups.layout(client.info())
    if isinstance(found, Refused):
        pytest.skip(str(found))
    fleet = Fleet(client, node_image, tmp_path)
    try:
        yield fleet
    finally:
        for limits in fleet.opened:
            limits.close()
        container_limits.remove(fleet.mine, client)
        assert fleet.mine.all() == []
        assert fleet.groups_left() == []


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        pause.wait(0.05)


def test_ipfs_and_role_share_their_classes_cpu_from_the_moment_the_node_is_ready(fleet: Fleet) -> None:
    limits = fleet.open(node(cpu=CORES), ipfs="ipfs", trainer="trainer")
    folder = fleet.folder / "w01"
    wait_until(lambda: all((folder / part).exists() for part in ("ipfs", "trainer")))
    said = limits.said()
    assert said is not None
    assert (said["cpu"], said["counted"]["w01"]["throttled_seconds"]) == ("to be enforced by cgroup v1", 0)
    limits.begin("w01")
    assert fleet.rate("ipfs", "trainer") <= CORES + 0.05
    limits.close()
    said = limits.said()
    assert said is not None
    assert said["cpu"].startswith("enforced by cgroup v")
    assert said["counted"]["w01"]["throttled_seconds"] > 0


def test_a_part_that_takes_more_memory_than_its_class_has_is_killed_and_told(fleet: Fleet) -> None:
    limits = fleet.open(node(memory_bytes=LIMIT_BYTES), ipfs="ipfs", trainer="hog")
    events = fleet.folder / "w01" / "events.jsonl"
    wait_until(lambda: events.exists() and fleet.ended() == [("hog", -9)])
    limits.close()
    said = limits.said()
    assert said is not None
    assert said["memory"].startswith("enforced by cgroup v")
    assert said["counted"]["w01"]["killed_for_memory"] >= 1
    assert fleet.taken("hog")[2] < LIMIT_BYTES + 2 * fleet.resident_bytes()


def test_a_part_that_takes_less_than_its_class_has_lives_beside_another_one_it_does_not(fleet: Fleet) -> None:
    nodes = (node("w01", memory_bytes=LIMIT_BYTES), node("w02", memory_bytes=LIMIT_BYTES))
    limits = fleet.open(nodes[0], nodes[1], trainer="modest")
    for name in ("w01", "w02"):
        folder = fleet.folder / name
        wait_until((folder / "modest").exists)
        wait_until(lambda: fleet.taken("modest", name)[2] == MOST_BYTES["modest"])  # noqa: B023
        assert fleet.ended(name) == []
    assert sum(one["killed_for_memory"] for one in limits.said()["counted"].values()) == 0  # type: ignore[index]


def test_a_keeper_that_was_killed_is_said_to_enforce_nothing(fleet: Fleet) -> None:
    limits = fleet.open(node(cpu=CORES), ipfs="ipfs", trainer="trainer")
    fleet.mine.one("", keeper.NAME).kill()
    limits.begin("w01")
    limits.close()
    said = limits.said()
    assert said is not None
    assert said["cpu"].startswith("not enforced: the keeper of control groups ")


def test_memory_is_for_ipfs_and_role_together(fleet: Fleet) -> None:
    limits = fleet.open(node(memory_bytes=LIMIT_BYTES), ipfs="modest", trainer="modest-too")
    wait_until(lambda: (fleet.folder / "w01" / "events.jsonl").exists() and fleet.ended() != [])
    assert fleet.ended()[0] in [("modest", -9), ("modest-too", -9)]
    assert limits.said()["counted"]["w01"]["killed_for_memory"] >= 1  # type: ignore[index]
