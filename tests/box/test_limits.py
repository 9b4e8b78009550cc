"""Limits in force, as this host's kernel enforces them; each kind is skipped where the host lets us make none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from node.contract.plan import NodePlan
from orchestrator.boxes import cgroups
from orchestrator.boxes.box import Box
from orchestrator.boxes.cgroups import KINDS, Kind, Place, Refused
from orchestrator.boxes.limits import Limits
from tests.box.limited_node import LIMIT_BYTES, MOST_BYTES

pytestmark = pytest.mark.by_kernel  # control groups have two versions
TOP = Path(__file__).resolve().parents[2]
# Goes into the group that it is told, as whatever systemd starts in a scope, and looks round from there.
LOOK = """
import os, pathlib, sys
from orchestrator.boxes import cgroups
(pathlib.Path(sys.argv[1]) / "cgroup.procs").write_text(str(os.getpid()))
print(*cgroups.attempt().values(), pathlib.Path("/proc/self/cgroup").read_text(), sep=chr(10))
"""
WAIT_S = 60.0
MEASURED_S = 4.0
CORES = 0.25


def need(kind: Kind) -> Place:
    """Where it can be enforced here; tried, not believed."""
    found = cgroups.attempt()[kind]
    if isinstance(found, Refused):
        pytest.skip(f"{kind} limits are {found}")
    return found


def node(cpu: float | None = None, memory_bytes: int | None = None) -> NodePlan:
    return NodePlan("w01", ("trainer",), None, "phone", "", "", cpu=cpu, memory_bytes=memory_bytes)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)


@contextmanager
def limited(planned: NodePlan, kind: Kind, folder: Path, *parts: str) -> Iterator[tuple[Limits, Path]]:
    """A node in a box with these parts; no other kind of group than this one is touched."""
    name = f"shoal-test-{os.getpid()}"
    found: dict[Kind, cgroups.Found] = dict.fromkeys(KINDS, Refused("not of this test"))
    found[kind] = need(kind)
    limits = Limits([planned], name, found)
    try:
        (group,) = limits.groups("w01")
        argv = [sys.executable, "-m", "tests.box.limited_node", str(folder), json.dumps([group]), *parts]
        with Box.open() as box:
            box.start(argv, env={"PYTHONPATH": str(TOP)})
            wait_until(lambda: all((folder / part).exists() for part in parts))
            yield limits, Path(group["folder"])
    finally:
        limits.close()
        assert not (need(kind).folder / name).exists()


def taken(folder: Path, part: str) -> tuple[float, float, str, int]:
    cpu_s, clock_s, groups, memory_bytes = json.loads((folder / part).read_text())
    return cpu_s, clock_s, groups, memory_bytes


def throttled_s(limits: Limits) -> float:
    """How long the kernel held its parts back, by its own account."""
    said = limits.said()
    assert said is not None
    return float(said["counted"]["w01"]["throttled_seconds"])


def rate(folder: Path, part: str) -> float:
    """Cores that a part has used, by its own clocks, over some seconds from now on."""
    first_cpu_s, first_s, *_ = taken(folder, part)
    wait_until(lambda: taken(folder, part)[1] > first_s + MEASURED_S)
    cpu_s, now_s, *_ = taken(folder, part)
    return (cpu_s - first_cpu_s) / (now_s - first_s)


def test_cpu_is_held_from_the_moment_the_node_is_ready_and_the_agent_is_free(tmp_path: Path) -> None:
    with limited(node(cpu=CORES), "cpu", tmp_path, "agent", "trainer") as (limits, group):
        assert group.name in taken(tmp_path, "trainer")[2]
        assert group.name not in taken(tmp_path, "agent")[2]
        assert throttled_s(limits) == 0
        limits.begin("w01")
        assert rate(tmp_path, "trainer") <= CORES + 0.05
    assert throttled_s(limits) > 0
    assert limits.said()["cpu"].startswith("enforced by cgroup v")  # type: ignore[index]


def test_a_part_that_takes_more_memory_than_its_class_has_is_killed_and_told(tmp_path: Path) -> None:
    with limited(node(memory_bytes=LIMIT_BYTES), "memory", tmp_path, "agent", "hog") as (limits, _):
        events = tmp_path / "events.jsonl"
        wait_until(lambda: '"part_ended"' in events.read_text())
        (ended,) = [e for e in map(json.loads, events.read_text().splitlines()) if e["kind"] == "part_ended"]
        assert (ended["part"], ended["status"], ended["expected"]) == ("hog", -9, False)
    said = limits.said()
    assert said is not None
    assert said["memory"].startswith("enforced by cgroup v")
    assert said["counted"]["w01"]["killed_for_memory"] >= 1


def test_a_part_that_takes_less_than_its_class_has_lives(tmp_path: Path) -> None:
    with limited(node(memory_bytes=LIMIT_BYTES), "memory", tmp_path, "modest") as (limits, _):
        wait_until(lambda: taken(tmp_path, "modest")[3] == MOST_BYTES["modest"])
        assert '"part_ended"' not in (tmp_path / "events.jsonl").read_text()
        said = limits.said()
    assert said is not None
    assert said["counted"]["w01"]["killed_for_memory"] == 0


def test_a_group_in_use_stays_and_is_removed_by_a_later_command(tmp_path: Path) -> None:
    with limited(node(cpu=CORES), "cpu", tmp_path, "trainer") as (_, group):
        cgroups.remove_left(group.parent.name)
        assert group.exists()


@pytest.mark.parametrize("mark", ["1", "0"])
def test_a_group_that_was_delegated_is_used_and_no_other(mark: str) -> None:
    place = need("cpu")
    if place.version == 1 or place.home != place.folder:
        pytest.skip("there is nothing to delegate from here")
    scope = place.folder / f"{cgroups.PREFIX}test-scope-{os.getpid()}"
    cgroups.make(place, "cpu", scope)
    try:
        os.setxattr(scope, "user.delegate", mark.encode())
        looked = subprocess.run(
            [sys.executable, "-c", LOOK, str(scope)],
            cwd=TOP,
            capture_output=True,
            text=True,
            check=True,
            timeout=WAIT_S,
        )
        cpu, _, own, *_ = looked.stdout.splitlines()
        if mark == "1":
            assert str(scope / cgroups.HOME) in cpu
            assert own == f"0::/{scope.name}/{cgroups.HOME}"
        else:
            assert "was not delegated to us" in cpu
            assert own == f"0::/{scope.name}"
    finally:
        cgroups.remove(scope)
    assert not scope.exists()
