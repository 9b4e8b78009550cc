"""Copies of pytest find what one would, and hide nothing of how they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
TIMEOUT_S = 60

FOUR = """
import os, pytest
@pytest.fixture(scope="module", autouse=True)
def one_of_a_file():
    yield
    with open({folder!r} + "/pids", "a") as pids: print(os.getpid(), file=pids)
@pytest.mark.parametrize("number", range(4))
def test_one(number): assert {fails} or number != 2
"""


def with_tests(folder: Path, **files: str) -> list[str]:
    folder.joinpath("pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    for name, text in files.items():
        folder.joinpath(f"test_{name}.py").write_text(text)
    return [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "tests.forked",
        "--forks",
        "2",
        "-c",
        f"{folder}/pytest.ini",
        str(folder),
    ]


def result(argv: list[str]) -> tuple[int, str]:
    ended = subprocess.run(argv, cwd=TOP, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    return ended.returncode, ended.stdout + ended.stderr


def test_files_are_shared_out_and_failures_come_back(tmp_path: Path) -> None:
    good, bad = (FOUR.format(folder=str(tmp_path), fails=fails) for fails in (True, False))
    status, said = result(with_tests(tmp_path, a=good, b=bad, c=good))
    assert status == pytest.ExitCode.TESTS_FAILED
    assert "1 failed, 11 passed" in said
    assert "test_b.py::test_one[2]" in said
    assert "assert (False or 2 != 2)" in said
    assert len((tmp_path / "pids").read_text().splitlines()) == 3  # a file's tests stay together


def test_two_run_at_the_same_time(tmp_path: Path) -> None:
    meets = "import os\ndef test_meets():\n    with open({path!r}, {mode!r}): pass\n"  # a pipe's two ends
    os.mkfifo(tmp_path / "pipe")
    ends = {mode: meets.format(path=str(tmp_path / "pipe"), mode=mode) for mode in "rw"}
    assert result(with_tests(tmp_path, **ends))[0] == 0


def test_a_copy_that_dies_is_told(tmp_path: Path) -> None:
    dies = "import os\ndef test_before(): pass\ndef test_dies(): os._exit(7)\ndef test_after(): pass\n"
    status, said = result(with_tests(tmp_path, dies=dies, good=FOUR.format(folder=str(tmp_path), fails=True)))
    assert status == pytest.ExitCode.TESTS_FAILED
    assert "2 failed, 5 passed" in said
    assert "a copy of pytest died before this test had ended" in said


def test_what_nobody_saw_is_an_error_in_copies_too(tmp_path: Path) -> None:
    unseen = """
def test_leaves_something_behind():
    class Left:
        def __del__(self): raise ValueError("unseen")
    left = Left()
    left.itself = left
"""
    status, said = result(with_tests(tmp_path, unseen=unseen))
    assert status != 0
    assert "unseen" in said


def test_ctrl_c_ends_all_and_tears_down(tmp_path: Path) -> None:
    waits = f"""
import time, pytest
@pytest.fixture
def standing():
    yield
    with open({str(tmp_path / "torn")!r}, "a") as torn: print("torn down", file=torn)
def test_waits(standing):
    with open({str(tmp_path / "up")!r}, "w") as up: print("up", file=up)
    time.sleep({TIMEOUT_S})
"""
    os.mkfifo(tmp_path / "up")
    running = subprocess.Popen(with_tests(tmp_path, waits=waits), cwd=TOP, stdout=subprocess.PIPE, text=True)
    with open(tmp_path / "up") as up:
        assert up.read() == "up\n"
    running.send_signal(signal.SIGINT)  # it alone, as `kill` would; a terminal tells the copies as well
    assert running.communicate(timeout=TIMEOUT_S)[0].count("KeyboardInterrupt") >= 1
    assert running.returncode == pytest.ExitCode.INTERRUPTED
    assert (tmp_path / "torn").read_text() == "torn down\n"
