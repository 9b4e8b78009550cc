"""Where each kind of engine has the groups, in the words of its `docker info`."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.boxes.cgroups import Refused
from orchestrator.boxes.limits import cpu_settings
from orchestrator.containers.groups import Layout, layout, rows

FLEET = "shoal-x7k_2q"


@pytest.mark.parametrize(
    ("info", "found"),
    [
        ({"CgroupDriver": "cgroupfs", "CgroupVersion": "1"}, Layout("cgroupfs", 1)),
        ({"CgroupDriver": "cgroupfs"}, Layout("cgroupfs", 1)),  # an engine that knows of no other version
        ({"CgroupDriver": "systemd", "CgroupVersion": "2", "SecurityOptions": None}, Layout("systemd", 2)),
        ({"CgroupDriver": "systemd", "CgroupVersion": "1"}, Layout("systemd", 1)),
        ({"CgroupDriver": "cgroupfs", "CgroupVersion": "2"}, Layout("cgroupfs", 2)),
    ],
)
def test_driver_and_version_are_the_engines_own(info: dict[str, Any], found: Layout) -> None:
    assert layout(info) == found


@pytest.mark.parametrize(
    ("info", "reason"),
    [
        ({"CgroupDriver": "none", "CgroupVersion": "2"}, "the cgroup driver 'none' with cgroup v2"),
        ({"CgroupDriver": "systemd", "CgroupVersion": "3"}, "the cgroup driver 'systemd' with cgroup v3"),
        (
            {"CgroupDriver": "systemd", "CgroupVersion": "2", "SecurityOptions": ["name=rootless"]},
            "a rootless engine's control groups",
        ),
    ],
)
def test_what_cannot_be_limited_is_said_with_its_reason(info: dict[str, Any], reason: str) -> None:
    found = layout(info)
    assert isinstance(found, Refused)
    assert reason in found.reason


@pytest.mark.parametrize("version", [1, 2])
def test_a_node_has_a_group_below_the_runs_own(version: Any) -> None:
    plain = Layout("cgroupfs", version)
    assert plain.parent(FLEET, "w01") == "/docker/shoal-x7k_2q/w01"
    assert plain.group(FLEET, "w01") == "docker/shoal-x7k_2q/w01"
    assert plain.top(FLEET) == "docker/shoal-x7k_2q"


@pytest.mark.parametrize("version", [1, 2])
def test_systemd_nests_a_slice_at_each_dash(version: Any) -> None:
    slices = Layout("systemd", version)
    assert slices.parent(FLEET, "w01") == "shoal-x7k_2q-w01.slice"
    assert slices.group(FLEET, "w01") == "shoal.slice/shoal-x7k_2q.slice/shoal-x7k_2q-w01.slice"
    assert slices.top(FLEET) == "shoal.slice/shoal-x7k_2q.slice"


def test_settings_are_told_as_rows() -> None:
    assert rows(cpu_settings(2, 0.5)) == [("cpu.max", "50000 100000", False)]
