"""What the keeper writes, reads and removes, in folders that look like the kernel's."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.containers import group_keeper
from orchestrator.containers.group_keeper import Groups, main

GROUP = "docker/shoal-1/w01"


def group(root: Path, **files: str) -> Path:
    """A group of version 2, in which there are two containers."""
    folder = root / GROUP
    for container in ("a1", "b2"):
        (folder / container).mkdir(parents=True)
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text)
    return folder


def test_a_setting_is_written_and_read_back(tmp_path: Path) -> None:
    folder = group(tmp_path, memory_max="max")
    asked = {"do": "write", "kind": "memory", "group": GROUP, "settings": [["memory.max", "4096", False]]}
    assert Groups(tmp_path, 2).answer(asked) == {"error": None}
    assert (folder / "memory.max").read_text() == "4096"


def test_what_the_kernel_does_not_hold_is_an_error_and_what_it_need_not_have_is_none(tmp_path: Path) -> None:
    folder = group(tmp_path)
    (folder / "memory.max").symlink_to("/dev/null")
    keeper = Groups(tmp_path, 2)
    told: dict[str, Any] = {"do": "write", "kind": "memory", "group": GROUP}
    error = keeper.answer({**told, "settings": [["memory.max", "4096", False]]})["error"]
    assert error == f"{folder}/memory.max: holds  instead of 4096"
    assert keeper.answer({**told, "settings": [["memory.swap.max", "0", True]]}) == {"error": None}
    assert not (folder / "memory.swap.max").exists()


def test_a_group_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    asked = {"do": "read", "kind": "cpu", "group": GROUP, "files": ["cpu.stat"]}
    assert Groups(tmp_path, 1).answer(asked) == {
        "error": f"{tmp_path}/cpu/{GROUP}: No such file or directory"
    }


def test_it_tells_the_files_that_there_are_and_how_many_containers_run(tmp_path: Path) -> None:
    group(tmp_path, cpu_stat="throttled_usec 5\n")
    asked = {"do": "read", "kind": "cpu", "group": GROUP, "files": ["cpu.stat", "memory.peak"]}
    assert Groups(tmp_path, 2).answer(asked) == {
        "error": None,
        "files": {"cpu.stat": "throttled_usec 5\n"},
        "containers": 2,
    }


def test_groups_of_version_1_are_made_with_a_long_period_where_real_time_is_shared_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in ("cpu", "memory"):
        (tmp_path / kind / "docker").mkdir(parents=True)
    keeper = Groups(tmp_path, 1)
    asked = {"do": "make", "group": GROUP}
    assert keeper.answer({**asked, "kind": "memory"}) == {"error": None}
    assert list((tmp_path / "memory" / GROUP).iterdir()) == []
    # The kernel puts its files into a group as it is made; in a folder they stand for it beforehand.
    for place in ("docker/shoal-1", GROUP):
        (tmp_path / "cpu" / place).mkdir()
        (tmp_path / "cpu" / place / "cpu.rt_period_us").write_text("1000000")
    assert keeper.answer({**asked, "kind": "cpu"}) == {"error": None}
    assert (tmp_path / "cpu/docker/shoal-1/cpu.rt_period_us").read_text() == "100000000"
    assert (tmp_path / "cpu" / GROUP / "cpu.rt_period_us").read_text() == "10000000000"


def test_a_run_is_removed_from_every_hierarchy_and_others_stay(tmp_path: Path) -> None:
    for kind in ("cpu", "memory", "freezer"):
        (tmp_path / kind / GROUP / "a1").mkdir(parents=True)
    (tmp_path / "cpuacct").symlink_to("cpu")
    (tmp_path / "memory/docker/other").mkdir()
    assert Groups(tmp_path, 1).remove("docker/shoal-1") == []
    assert [
        path.name for path in tmp_path.rglob("*") if path.is_dir() and path.name.startswith("shoal")
    ] == []
    assert (tmp_path / "memory/docker/other").exists()


def test_what_cannot_be_removed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_keeper, "REMOVE_S", 0.0)
    folder = group(tmp_path, memory_max="max")  # a folder with a file is as busy as a group with a process
    assert Groups(tmp_path, 2).remove(GROUP) == [str(folder)]
    assert list(folder.iterdir()) == [folder / "memory.max"]


def test_it_answers_line_by_line_until_its_input_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    group(tmp_path)
    asked = {"do": "read", "kind": "cpu", "group": GROUP, "files": []}
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{json.dumps(asked)}\n{json.dumps(asked)}\n"))
    assert main([str(tmp_path), "2"]) == 0
    answers = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["containers"] for line in answers] == [2, 2]
