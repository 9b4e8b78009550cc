"""When which limit is written, and what is said of it; the keeper is the real one, on folders like the kernel's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from node.contract import ShoalError
from node.contract.plan import NodePlan
from orchestrator.boxes.cgroups import Refused
from orchestrator.containers.compose_file import PartLimit
from orchestrator.containers.container_limits import ContainerLimits, part_limits
from orchestrator.containers.group_keeper import Groups
from orchestrator.containers.groups import Layout

MIB = 1 << 20
FLEET = "shoal-1"
RUNTIME = {"ipfs": 20 * MIB, "trainer": 500 * MIB}
V2 = Layout("cgroupfs", 2)
FREE = NodePlan("agg", ("aggregator",), None, None, "10.77.0.1", "10.77.4.1")
PHONE = NodePlan(
    "w01", ("trainer",), None, "phone", "10.77.0.2", "10.77.4.2", cpu=0.25, memory_bytes=700 * MIB
)
SLOW = NodePlan("w02", ("trainer",), None, "slow", "10.77.0.3", "10.77.4.3", cpu=2.0)


class Kernel:
    """The groups of two nodes, with both containers of each; also a keeper that is asked without an engine."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.is_closed = False
        for node in ("w01", "w02"):
            folder = root / "docker" / FLEET / node
            for container in ("a1", "b2"):
                (folder / container).mkdir(parents=True)
            (folder / "cpu.max").write_text("max 100000")
            (folder / "memory.max").write_text("max")
            (folder / "cpu.stat").write_text("throttled_usec 1500000\n")

    def file(self, node: str, name: str) -> Path:
        return self.root / "docker" / FLEET / node / name

    def ask(self, **request: Any) -> Mapping[str, Any]:
        assert not self.is_closed
        answer = Groups(self.root, 2).answer(request)
        if answer["error"] is not None:
            raise ShoalError(answer["error"])
        return answer

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    return Kernel(tmp_path)


def limits(kernel: Kernel, *nodes: NodePlan, layout: Layout | Refused = V2) -> ContainerLimits:
    made = ContainerLimits(nodes, FLEET, layout, lambda _: kernel)
    made.runtime_bytes = RUNTIME
    made.prepare()
    return made


def said(made: ContainerLimits) -> dict[str, Any]:
    found = made.said()
    assert found is not None
    return found


def test_compose_is_told_one_group_and_one_upper_bound_for_all_that_is_limited() -> None:
    most = 1220 * MIB  # the class' and both parts' runtime
    assert part_limits([PHONE, SLOW], FLEET, V2, RUNTIME) == {
        ("w01", "ipfs"): PartLimit(most, "/docker/shoal-1/w01"),
        ("w01", "trainer"): PartLimit(most, "/docker/shoal-1/w01"),
        ("w02", "ipfs"): PartLimit(None, "/docker/shoal-1/w02"),
        ("w02", "trainer"): PartLimit(None, "/docker/shoal-1/w02"),
    }
    assert part_limits([PHONE], FLEET, None, RUNTIME)["w01", "ipfs"] == PartLimit(most, None)


def test_memory_is_limited_when_the_containers_run_and_cpu_once_the_node_is_ready(kernel: Kernel) -> None:
    made = limits(kernel, FREE, PHONE, SLOW)
    assert kernel.file("w01", "memory.max").read_text() == "max"
    assert (said(made)["cpu"], said(made)["memory"]) == ("to be enforced by cgroup v2",) * 2
    made.enforce()
    assert kernel.file("w01", "memory.max").read_text() == str(1220 * MIB)
    assert kernel.file("w02", "memory.max").read_text() == "max"
    assert kernel.file("w01", "cpu.max").read_text() == "max 100000"
    made.begin("w01")
    made.begin("agg")
    assert kernel.file("w01", "cpu.max").read_text() == "25000 100000"
    assert kernel.file("w02", "cpu.max").read_text() == "max 100000"


def test_what_was_enforced_and_counted_is_said_also_when_all_has_ended(kernel: Kernel) -> None:
    made = limits(kernel, FREE, PHONE)
    made.enforce()
    made.begin("w01")
    made.close()
    made.close()
    assert kernel.is_closed
    assert said(made) == {
        "nodes": {"w01": {"cpu": 0.25, "memory_bytes": 700 * MIB}},
        "cpu": "enforced by cgroup v2",
        "memory": "enforced by cgroup v2",
        "runtime_bytes": RUNTIME,
        "counted": {"w01": {"throttled_seconds": 1.5}},
    }


def test_without_a_limited_node_there_is_nothing_to_keep() -> None:
    made = ContainerLimits([FREE], FLEET, V2, lambda _: pytest.fail("a keeper was opened"))
    assert made.prepare() == {}
    made.enforce()
    made.begin("agg")
    made.close()
    assert made.said() is None


def test_a_node_that_is_not_whole_in_its_group_is_not_said_to_be_limited(kernel: Kernel) -> None:
    made = limits(kernel, PHONE)
    made.enforce()
    kernel.file("w01", "b2").rmdir()
    made.begin("w01")
    reason = "not enforced: only 1 of 2 parts of w01 are in docker/shoal-1/w01"
    assert (said(made)["cpu"], said(made)["memory"]) == (reason, reason)


def test_a_node_that_is_ready_again_after_a_fault_is_as_limited_as_before(kernel: Kernel) -> None:
    made = limits(kernel, PHONE)
    made.enforce()
    made.begin("w01")
    kernel.file("w01", "b2").rmdir()
    made.begin("w01")
    assert (said(made)["cpu"], said(made)["memory"]) == ("enforced by cgroup v2",) * 2


def test_a_node_that_was_never_ready_was_never_limited(kernel: Kernel) -> None:
    made = limits(kernel, PHONE, SLOW)
    made.enforce()
    made.begin("w01")
    made.close()
    assert said(made)["cpu"] == "not enforced: w02 was never ready"
    assert said(made)["memory"] == "enforced by cgroup v2"


def test_containers_that_never_ran_were_never_limited(kernel: Kernel) -> None:
    made = limits(kernel, PHONE)
    made.close()
    assert said(made)["memory"] == "not enforced: its containers were never started"


def test_a_limit_that_somebody_else_has_changed_is_not_said_to_have_held(kernel: Kernel) -> None:
    made = limits(kernel, PHONE)
    made.enforce()
    made.begin("w01")
    kernel.file("w01", "memory.max").write_text("max")
    made.close()
    assert said(made)["cpu"] == "enforced by cgroup v2"
    assert said(made)["memory"] == "not enforced: memory.max of w01 holds max at the end"


def test_a_file_that_cannot_be_written_is_a_refusal(kernel: Kernel) -> None:
    made = limits(kernel, PHONE)
    kernel.file("w01", "memory.max").unlink()
    kernel.file("w01", "memory.max").mkdir()
    made.enforce()
    assert said(made)["memory"].endswith("memory.max: Is a directory")
    assert said(made)["memory"].startswith("not enforced: ")


def test_an_engine_whose_groups_are_not_ours_leaves_the_upper_bounds(kernel: Kernel) -> None:
    made = limits(kernel, PHONE, layout=Refused("not ours"))
    made.enforce()
    made.begin("w01")
    made.close()
    assert (said(made)["cpu"], said(made)["memory"]) == ("not enforced: not ours",) * 2
    assert kernel.file("w01", "cpu.max").read_text() == "max 100000"
