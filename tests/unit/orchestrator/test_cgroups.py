"""Where control groups may be made, from literal texts of /proc."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.boxes import cgroups
from orchestrator.boxes.cgroups import Place, Refused, places

V1_MOUNTS = """\
30 23 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro,mode=755
31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct
32 30 0:28 / /sys/fs/cgroup/my\\040memory rw - cgroup cgroup rw,memory
"""
V2_MOUNTS = "29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
SCOPE = "/user.slice/user-1000.slice/user@1000.service/app.slice/run-1.scope"
HERE = Path("/sys/fs/cgroup")


def found(
    mounts: str, own: str, *, offered: str = "cpu memory pids", delegated: Path | None = None
) -> object:
    return places(
        mounts, own, lambda _: offered.split(), lambda folder: folder == delegated, "run it in a scope"
    )


def test_the_first_version_is_used_at_its_root_only() -> None:
    assert found(V1_MOUNTS, "3:cpu,cpuacct:/\n2:memory:/\n") == {
        "cpu": Place(1, HERE / "cpu,cpuacct", HERE / "cpu,cpuacct"),
        "memory": Place(1, HERE / "my memory", HERE / "my memory"),
    }
    managed = found(V1_MOUNTS, "3:cpu,cpuacct:/\n2:memory:/jobs/7\n")
    assert managed["memory"] == Refused(  # type: ignore[index]
        "this process was put into the memory group /jobs/7, which is not ours to change"
    )


def test_a_hierarchy_that_is_not_mounted_is_told() -> None:
    assert found("", "3:cpu:/\n0::/\n") == {
        "cpu": Refused("the cpu hierarchy of cgroup v1 is not mounted here"),
        "memory": Refused("no cgroup file system is mounted here"),
    }


def test_both_versions_side_by_side() -> None:
    hybrid = V1_MOUNTS + "33 30 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
    both = found(hybrid, "3:cpu,cpuacct:/\n0::/\n", offered="memory")
    assert both == {
        "cpu": Place(1, HERE / "cpu,cpuacct", HERE / "cpu,cpuacct"),
        "memory": Place(2, HERE / "unified", HERE / "unified"),
    }


def test_the_second_version_is_used_where_it_was_delegated() -> None:
    scope = HERE / SCOPE[1:]
    place = Place(2, scope, scope / "shoal-home")
    assert found(V2_MOUNTS, f"0::{SCOPE}\n", delegated=scope) == {"cpu": place, "memory": place}
    # The second command in the same scope comes from where the first one moved its shell.
    assert found(V2_MOUNTS, f"0::{SCOPE}/shoal-home\n", delegated=scope) == {"cpu": place, "memory": place}
    refused = Refused(f"the control group {SCOPE} was not delegated to us", "run it in a scope")
    assert found(V2_MOUNTS, f"0::{SCOPE}\n") == {"cpu": refused, "memory": refused}


def test_a_controller_that_is_not_passed_on_is_told() -> None:
    assert found(V2_MOUNTS, "0::/\n", offered="memory") == {
        "cpu": Refused("the control group / has no cpu controller"),
        "memory": Place(2, HERE, HERE),
    }


def test_the_group_may_be_mounted_itself_as_in_a_container() -> None:
    mounts = V2_MOUNTS.replace(" / ", " /docker/7 ")
    inside = found(mounts, "0::/docker/7/jobs\n", delegated=HERE / "jobs")
    assert inside["cpu"] == Place(2, HERE / "jobs", HERE / "jobs" / "shoal-home")  # type: ignore[index]
    outside = found(mounts, "0::/docker/8\n")
    assert "cannot be seen" in str(outside["cpu"])  # type: ignore[index]


def test_the_second_version_passes_controllers_down_and_moves_ours_aside(tmp_path: Path) -> None:
    folder = tmp_path / "shoal-run" / "w01"
    folder.mkdir(parents=True)
    (tmp_path / cgroups.MEMBERS).write_text("17\n")
    for holder in (tmp_path, folder.parent):
        (holder / "cgroup.subtree_control").write_text("pids")
    (folder / "cpu.max").write_text("max 100000")
    place = Place(2, tmp_path, tmp_path / cgroups.HOME)
    cgroups.make(place, "cpu", folder)
    assert (tmp_path / cgroups.HOME / cgroups.MEMBERS).read_text() == "17"
    assert [(holder / "cgroup.subtree_control").read_text() for holder in (tmp_path, folder.parent)] == [
        "+cpu",
        "+cpu",
    ]
    with pytest.raises(FileNotFoundError):  # nothing is said to be enforced without the kernel's file
        cgroups.make(place, "memory", folder)


def test_only_groups_of_our_own_naming_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "look", lambda: {"cpu": Place(1, tmp_path, tmp_path)})
    for name in ("shoal-a", "precious"):
        (tmp_path / name / "w01").mkdir(parents=True)
    for name in ("shoal-a", "precious", "shoal-a/../precious", "shoal-gone"):
        cgroups.remove_left(name)
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]
