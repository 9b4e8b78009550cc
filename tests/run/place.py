"""A whole run in a folder of its own, with what a test needs to meddle in it: its events, its processes, its disk."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from node.contract.settings import RELEASE_FILE

TOP = Path(__file__).resolve().parents[2]
RUN_S = 240.0
DUE_S = 150.0  # two rounds, and the start before them
EMPTY_S = 60.0

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
PRIVATE_MOUNTS = (
    "unshare",
    *(() if os.geteuid() == 0 else ("--user", "--map-root-user")),
    *("--mount", "--"),
)
AGGREGATION = 'aggregation: {strategy: mean, quorum: 0.5, deadline: "3 s"}'


@dataclass(frozen=True)
class Place:
    """A folder of one run's own; whatever works for it is found by a mark in its environment."""

    folder: Path

    def scenario(
        self,
        *,
        task: str = TASK,
        workload: str = WORKLOAD,
        aggregation: str = AGGREGATION,
        workers: int = 2,
        more: str = "",
    ) -> Path:
        (self.folder / "my_task.py").write_text(task)
        (self.folder / "my_task.py").chmod(0o600)  # nobody else may read it, and the parts must
        file = self.folder / "trouble.yaml"
        lines = [
            "summary: Made by a test.",
            f"fleet: {{workers: [{{count: {workers}}}]}}",
            workload,
            aggregation,
        ]
        checks = ["checks:", "  - rounds_completed == 3", f"  - participants >= {min(2, workers)}"]
        file.write_text("\n".join([*lines, *checks, more, ""]))
        return file

    def start(
        self, file: Path, *before: str, program: Sequence[str] = ("orchestrator.cli",), **env: str
    ) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*before, sys.executable, "-m", *program, "run", str(file)],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(TOP), "SHOAL_TEST_MARK": str(self.folder), **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    @contextmanager
    def waiting(
        self, file: Path, *before: str, round_: int, small: str = ""
    ) -> Iterator[subprocess.Popen[str]]:
        """A run that waits before this round until it is released, if wanted with one node on a small disk."""
        program = ("tests.run.meddling", str(round_), small)
        own = {"TMPDIR": str(self.temporary), "XDG_RUNTIME_DIR": ""}
        with self.start(file, *before, program=program, **own) as process:
            try:
                self._wait_due(round_, process)
                yield process
            except BaseException:
                process.kill()  # it would wait for its release
                raise

    def run(self, file: Path, *before: str, **env: str) -> tuple[int, str]:
        with self.start(file, *before, **env) as process:
            said, _ = process.communicate(timeout=RUN_S)
        return process.returncode, said

    @property
    def temporary(self) -> Path:
        return self.folder / "tmp"

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

    def _wait_due(self, round_: int, process: subprocess.Popen[str]) -> None:
        """Until the aggregator waits to open this round."""

        def is_due() -> bool:
            assert process.stdout is not None
            assert process.poll() is None, f"it ended before round {round_} was due: {process.stdout.read()}"
            file = self.directory / "history.jsonl"
            return file.exists() and [e for e in self.events("round_due") if e["round"] == round_] != []

        wait(is_due, lambda: f"round {round_} was never due", DUE_S)

    def home(self, node: str, seen_by: int) -> Path:
        """A node's folder, as this process sees it."""
        (home,) = Path(f"/proc/{seen_by}/root{self.temporary}").glob(f"shoal-*/{node}")
        return home

    def release(self, round_: int, seen_by: int) -> None:
        """Let rounds up to this one open; in place, where it needs no room."""
        file = self.home("agg", seen_by) / RELEASE_FILE
        if not file.exists():
            file.with_suffix(".new").write_text(str(round_))
            file.with_suffix(".new").rename(file)
        with file.open("r+") as opened:
            opened.write(str(round_))

    def fill_disk(self, node: str, seen_by: int) -> None:
        """Leave no room on a node's small disk."""
        with (self.home(node, seen_by) / "filler").open("wb", buffering=0) as filler:
            for size_bytes in (1 << 16, 1 << 12, 1):
                try:
                    while filler.write(bytes(size_bytes)):
                        pass
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise

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
        os.kill(self.parent(self.pid(node, "agent")), signal.SIGKILL)

    def kill_zygote(self) -> None:
        """SIGKILL for the process that forked all nodes."""
        os.kill(self.parent(self.parent(self.pid("agg", "agent"))), signal.SIGKILL)

    def parent(self, pid: int) -> int:
        status = read(Path(f"/proc/{pid}/status")).decode().splitlines()
        (parent,) = [int(line.split()[1]) for line in status if line.startswith("PPid:")]
        assert parent in self.processes()
        return parent

    def processes(self) -> list[int]:
        mark = f"SHOAL_TEST_MARK={self.folder}".encode()
        pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
        return [pid for pid in pids if mark in read(Path(f"/proc/{pid}/environ")).split(b"\0")]

    def wait_empty(self) -> None:
        wait(lambda: not self.processes(), lambda: f"left behind: {self.processes()}", EMPTY_S)


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


def wait(holds: Callable[[], bool], complaint: Callable[[], str], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
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
