"""What is written where, on folders that look like the kernel's."""

from __future__ import annotations

from pathlib import Path

import pytest

from node.contract.plan import NodePlan
from orchestrator.boxes import cgroups
from orchestrator.boxes.cgroups import Place, Refused
from orchestrator.boxes.limits import Limits, Setting, counted, cpu_settings, memory_settings, write

MIB = 1 << 20
FREE = NodePlan("agg", ("aggregator",), None, None, "10.77.0.1", "10.77.4.1")
PHONE = NodePlan(
    "w01", ("trainer",), None, "phone", "10.77.0.2", "10.77.4.2", cpu=0.25, memory_bytes=700 * MIB
)
SLOW = NodePlan("w02", ("trainer",), None, "slow", "10.77.0.3", "10.77.4.3", cpu=2.0)


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    """A group of version 2 with its files, and below it those of a run that is to come."""
    for name in ("", "shoal-1", "shoal-1/w01", "shoal-1/w02"):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        (folder / "cgroup.subtree_control").write_text("cpu memory")
        (folder / "cgroup.procs").write_text("17\n")
        (folder / "cpu.max").write_text("max 100000")
        (folder / "memory.max").write_text("max")
    return tmp_path


def limits(kernel: Path, *nodes: NodePlan) -> Limits:
    place = Place(2, kernel, kernel)
    return Limits(nodes, "shoal-1", {"cpu": place, "memory": place})


def test_the_words_of_both_versions() -> None:
    assert cpu_settings(2, 0.25) == (Setting("cpu.max", "25000 100000"),)
    assert cpu_settings(1, 1.5) == (
        Setting("cpu.cfs_period_us", "100000"),
        Setting("cpu.cfs_quota_us", "150000"),
    )
    assert cpu_settings(2, 0.0001) == (Setting("cpu.max", "1000 100000"),)
    assert memory_settings(2, 5 * MIB + 1) == (
        Setting("memory.max", str(5 * MIB)),
        Setting("memory.swap.max", "0", is_optional=True),
    )
    assert [setting.file for setting in memory_settings(1, MIB)] == [
        "memory.limit_in_bytes",
        "memory.memsw.limit_in_bytes",
    ]


def test_memory_is_limited_from_the_beginning_and_cpu_once_the_node_is_ready(kernel: Path) -> None:
    made = limits(kernel, FREE, PHONE, SLOW)
    phone, slow = kernel / "shoal-1/w01", kernel / "shoal-1/w02"
    assert (phone / "memory.max").read_text() == str(700 * MIB)
    assert (slow / "memory.max").read_text() == "max"
    assert (phone / "cpu.max").read_text() == "max 100000"
    made.begin("w01")
    made.begin("agg")
    assert (phone / "cpu.max").read_text() == "25000 100000"
    assert (slow / "cpu.max").read_text() == "max 100000"
    made.begin("w02")
    assert (slow / "cpu.max").read_text() == "200000 100000"


def test_only_limited_nodes_have_groups_and_each_group_stands_once(kernel: Path) -> None:
    made = limits(kernel, FREE, PHONE)
    assert made.groups("w01") == [{"folder": str(kernel / "shoal-1/w01"), "home": str(kernel)}]
    assert made.groups("agg") == []


def test_what_is_enforced_is_said_with_its_version(kernel: Path) -> None:
    assert limits(kernel, FREE).said() is None
    made = limits(kernel, FREE, PHONE)
    assert made.said() == {
        "nodes": {"w01": {"cpu": 0.25, "memory_bytes": 700 * MIB}},
        "cpu": "enforced by cgroup v2",
        "memory": "enforced by cgroup v2",
        "counted": {"w01": {}},
    }
    assert "memory" not in (limits(kernel, SLOW).said() or {})


def test_what_is_refused_is_said_and_the_other_kind_goes_on(kernel: Path) -> None:
    found: dict[cgroups.Kind, cgroups.Found] = {
        "cpu": Place(2, kernel, kernel),
        "memory": Refused("not ours"),
    }
    made = Limits([PHONE], "shoal-1", found)
    made.begin("w01")
    said = made.said()
    assert said is not None
    assert (said["cpu"], said["memory"]) == ("enforced by cgroup v2", "not enforced: not ours")
    assert (kernel / "shoal-1/w01/memory.max").read_text() == "max"


def test_a_group_without_the_nodes_parts_is_not_said_to_limit_them(kernel: Path) -> None:
    made = limits(kernel, PHONE)
    (kernel / "shoal-1/w01/cgroup.procs").write_text("")
    made.begin("w01")
    said = made.said()
    assert said is not None
    assert said["cpu"].startswith("not enforced: no part of w01 is in ")
    assert said["memory"].startswith("not enforced: no part of w01 is in ")


def test_a_node_that_was_never_ready_was_never_limited(kernel: Path) -> None:
    made = limits(kernel, PHONE, SLOW)
    made.begin("w01")
    made.close()
    said = made.said()
    assert said is not None
    assert (said["cpu"], said["memory"]) == ("not enforced: w02 was never ready", "enforced by cgroup v2")


def test_a_place_that_cannot_be_written_to_is_a_refusal(tmp_path: Path) -> None:
    place = Place(1, tmp_path / "nowhere", tmp_path / "nowhere")
    (tmp_path / "nowhere").write_text("a file")
    said = Limits([SLOW], "shoal-1", {"cpu": place, "memory": place}).said()
    assert said is not None
    assert said["cpu"].startswith("not enforced: ")


def test_what_the_kernel_does_not_hold_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "stubborn").symlink_to("/dev/null")
    with pytest.raises(OSError, match="holds  instead of 7"):
        write(tmp_path, [Setting("stubborn", "7")])
    write(tmp_path, [Setting("not there", "7", is_optional=True)])
    assert not (tmp_path / "not there").exists()


def test_the_kernels_counters_in_either_versions_words() -> None:
    assert counted(
        {
            "cpu.stat": "usage_usec 9\nthrottled_usec 2500000\n",
            "memory.events": "low 0\noom 1\noom_kill 1\n",
            "memory.peak": "4096\n",
        }
    ) == {"throttled_seconds": 2.5, "killed_for_memory": 1, "memory_peak_bytes": 4096}
    assert counted(
        {
            "cpu.stat": "nr_periods 9\nthrottled_time 1000000000\n",
            "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
            "memory.max_usage_in_bytes": "8192\n",
        }
    ) == {"throttled_seconds": 1.0, "killed_for_memory": 2, "memory_peak_bytes": 8192}
    assert counted({}) == {}
