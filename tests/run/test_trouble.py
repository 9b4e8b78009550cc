"""Whole runs that meet trouble: each ends with the right exit code, says what happened, and leaves nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

TOP = Path(__file__).resolve().parents[2]
RUN_S = 240.0
SEEN_S = 60.0

# Clusters around ten points: learnt in an instant, so that the rounds are all about what happens in them.
TASK = """
import numpy as np


def model():
    import tensorflow as tf

    return tf.keras.Sequential([tf.keras.Input((8,)), tf.keras.layers.Dense(10)])


def data(seed):
    random = np.random.default_rng(seed)
    labels = np.arange(800) % 10
    points = random.normal(size=(10, 8))[labels] + random.normal(scale=0.1, size=(800, 8))
    return points[:640], labels[:640], points[640:], labels[640:]
"""
WORKLOAD = "workload: {file: my_task.py, partition: {kind: iid}, rounds: 3, local_epochs: 8}"
AGGREGATION = 'aggregation: {strategy: mean, quorum: 0.5, deadline: "3 s"}'


@dataclass(frozen=True)
class Place:
    """A folder of one run's own; whatever works for it is found by a mark in its environment."""

    folder: Path

    def scenario(
        self, *, task: str = TASK, workload: str = WORKLOAD, workers: int = 2, more: str = ""
    ) -> Path:
        (self.folder / "my_task.py").write_text(task)
        file = self.folder / "trouble.yaml"
        lines = [
            "summary: Made by a test.",
            f"fleet: {{workers: [{{count: {workers}}}]}}",
            workload,
            AGGREGATION,
        ]
        checks = ["checks:", "  - rounds_completed == 3", "  - participants >= 2"]
        file.write_text("\n".join([*lines, *checks, more, ""]))
        return file

    def start(self, file: Path, *before: str, **env: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*before, sys.executable, "-m", "orchestrator.cli", "run", str(file)],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(TOP), "SHOAL_TEST_MARK": str(self.folder), **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, file: Path, *before: str, **env: str) -> tuple[int, str]:
        with self.start(file, *before, **env) as process:
            said, _ = process.communicate(timeout=RUN_S)
        return process.returncode, said

    @property
    def directory(self) -> Path:
        return self.folder / "runs" / "trouble" / "latest"

    def results(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.directory / "results.json").read_text())
        return found

    def events(self, kind: str, node: str | None = None) -> list[dict[str, Any]]:
        whole = [line for line in (self.directory / "history.jsonl").read_text().split("\n")[:-1] if line]
        events: list[dict[str, Any]] = [json.loads(line) for line in whole]
        return [e for e in events if e["kind"] == kind and node in (None, e["node"])]

    def pid(self, node: str, part: str) -> int:
        """A part's PID, by what its node recorded of it, which is the box's count."""
        (started,) = [e for e in self.events("part_started", node) if e["part"] == part]
        (pid,) = [
            pid for pid in self.processes() if identity(pid) == (started["pid"], started["start_ticks"])
        ]
        return pid

    def kill(self, node: str, part: str) -> None:
        os.kill(self.pid(node, part), signal.SIGKILL)

    def kill_node(self, node: str) -> None:
        """SIGKILL for the process that holds all parts of a node."""
        status = read(Path(f"/proc/{self.pid(node, 'agent')}/status")).decode().splitlines()
        (parent,) = [int(line.split()[1]) for line in status if line.startswith("PPid:")]
        assert parent in self.processes()
        os.kill(parent, signal.SIGKILL)

    def processes(self) -> list[int]:
        mark = f"SHOAL_TEST_MARK={self.folder}".encode()
        pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
        return [pid for pid in pids if mark in read(Path(f"/proc/{pid}/environ")).split(b"\0")]

    def wait_empty(self) -> None:
        wait(lambda: not self.processes(), lambda: f"left behind: {self.processes()}")


def read(file: Path) -> bytes:
    """A file of a process that may be gone, or not be ours."""
    try:
        return file.read_bytes()
    except OSError:
        return b""


def identity(pid: int) -> tuple[int, int] | None:
    """The PID in its innermost namespace, and the start time."""
    status = read(Path(f"/proc/{pid}/status")).decode()
    stat = read(Path(f"/proc/{pid}/stat")).decode().rpartition(")")[2].split()
    inner = [line.split()[-1] for line in status.splitlines() if line.startswith("NSpid:")]
    return (int(inner[0]), int(stat[19])) if inner and stat else None


def wait(holds: Callable[[], bool], complaint: Callable[[], str]) -> None:
    deadline = time.monotonic() + SEEN_S
    while not holds():
        assert time.monotonic() < deadline, complaint()
        time.sleep(0.05)


def wait_said(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdout is not None
    heard = []
    for line in process.stdout:
        heard.append(line)
        if word in line:
            return
    raise AssertionError(f"it ended without saying {word!r}: {''.join(heard)}")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """Nothing of a run may be left behind, however it ended."""
    here = Place(tmp_path)
    (tmp_path / "tmp").mkdir()
    yield here
    here.wait_empty()


def test_the_fleet_goes_on_without_the_workers_that_it_lost(place: Place) -> None:
    file = place.scenario(workers=6, more="  - repeatable")
    with place.start(file) as process:
        wait_said(process, "round 1/3")
        place.kill("w04", "trainer")
        place.kill("w05", "ipfs")
        place.kill_node("w06")
        said, _ = process.communicate(timeout=RUN_S)
    results = place.results()
    assert "lost: trainer of w04 ended with -9" in said
    assert "lost: ipfs of w05 ended with -9" in said
    assert "lost: node of w06 ended with -9" in said
    assert results["rounds_completed"] == 3
    assert results["rounds"][0]["missing"] == []
    assert results["rounds"][-1]["missing"] == ["w04", "w05", "w06"]
    assert results["final_accuracy"] > 0.9, "the user's own task was not learnt"
    assert (results["repeatable"], results["synthetic_data"]) == (False, False)
    assert results["repeatable_reason"]
    assert [check["state"] for check in results["checks"]] == ["held", "held", "violated"]
    assert (process.returncode, results["exit_code"]) == (1, 1), said


def test_without_its_aggregator_a_run_says_nothing_about_the_checks(place: Place) -> None:
    with place.start(place.scenario()) as process:
        wait_said(process, "round 1/3")
        place.kill("agg", "aggregator")
        said, _ = process.communicate(timeout=RUN_S)
    assert process.returncode == 2, said
    assert "the aggregator's node was lost: aggregator of agg ended with -9" in said
    assert place.results()["verdict"] == "unknown"


def test_a_daemon_that_does_not_come_up_is_told_with_its_last_words(place: Place) -> None:
    real = subprocess.run(
        [sys.executable, TOP / "node" / "ipfs" / "build.py"], stdout=subprocess.PIPE, text=True, check=True
    ).stdout.split()[-1]
    broken = place.folder / "ipfsd"
    broken.write_text(
        f'#!/bin/sh\ncase "$1 $IPFS_PATH" in "daemon "*/w02/*) echo "no luck today" >&2; exit 1;; esac\n'
        f'exec {real} "$@"\n'
    )
    broken.chmod(0o755)
    file = place.scenario(more="ipfs: embedded")
    status, said = place.run(file, SHOAL_IPFSD=str(broken))
    assert status == 2, said
    assert "the IPFS daemons of w02 ended at their start" in said
    assert "no luck today" in said
    assert "no luck today" in place.results()["failure"]


def test_a_program_that_is_no_daemon_is_refused_before_anything_starts(place: Place) -> None:
    broken = place.folder / "ipfsd"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    status, said = place.run(place.scenario(more="ipfs: embedded"), SHOAL_IPFSD=str(broken))
    assert status == 64
    assert f"{broken} is not the embedded daemon" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (TASK + "\nraise RuntimeError('not today')\n", "my_task.py:17: RuntimeError: not today"),
        (TASK.replace("random = ", "random = unknown"), "my_task.py:12: NameError"),
        (TASK.replace("def model", "def other"), "my_task.py: there is no function model()"),
        (TASK.replace("labels[:640]", "labels[:64]"), "x_train has the shape (640, 8) and y_train (64,)"),
        (TASK + "def broken(\n", "my_task.py:16: '(' was never closed"),
    ],
    ids=["raises", "raises in data()", "no model()", "wrong shapes", "no Python"],
)
def test_a_wrong_task_file_is_told_before_anything_starts(place: Place, task: str, message: str) -> None:
    status, said = place.run(place.scenario(task=task))
    assert status == 64, said
    assert message in said
    assert "Traceback" not in said
    assert "starting" not in said
    assert message in place.results()["failure"]


def test_a_model_that_does_not_fit_its_data_is_the_users_mistake(place: Place) -> None:
    status, said = place.run(place.scenario(task=TASK.replace("Input((8,))", "Input((9,))")))
    assert status == 64, said
    assert "my_task.py: model() takes (9,), but an example is (8,)" in said
    assert "Traceback" not in said


def test_a_data_set_that_is_nowhere_is_told_with_the_cure(place: Place) -> None:
    nowhere = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9", "no_proxy": ""}
    workload = "workload: {dataset: cifar10, rounds: 3}"
    status, said = place.run(
        place.scenario(workload=workload),
        HOME=str(place.folder),
        SHOAL_CACHE=str(place.folder / "cache"),
        **{name.upper(): value for name, value in nowhere.items()},
        **nowhere,
    )
    assert status == 69, said
    assert "cannot fetch https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz" in said
    assert "SHOAL_DATA" in said
    assert "Traceback" not in said


def test_a_full_disk_is_told_with_the_cure(place: Place) -> None:
    folder = place.folder / "tmp"
    private = ["unshare", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"]), "--mount", "--"]
    mount = f'mount -t tmpfs -o size=256k none "{folder}" && exec "$@"'
    workload = "workload: {dataset: digits, rounds: 3}"
    status, said = place.run(
        place.scenario(workload=workload),
        *private,
        "sh",
        "-c",
        mount,
        "sh",
        TMPDIR=str(folder),
        XDG_RUNTIME_DIR="",
    )
    assert status == 69, said
    assert "No space is left" in said
    assert str(folder) in said
    assert "Traceback" not in said


def test_a_word_that_nobody_knows_is_told_with_its_place_and_the_nearest(place: Place) -> None:
    status, said = place.run(place.scenario(more="networks: {topology: star}"))
    assert status == 64, said
    assert "trouble.yaml:8" in said
    assert "network" in said.partition("networks")[2]
    assert not place.directory.exists()
