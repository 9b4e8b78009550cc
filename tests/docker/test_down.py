"""However a run of containers ends, nothing of it stays: killed, interrupted, ended from elsewhere, at any moment."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from tests.docker.traces import traces, wait_no_trace
from tests.run.kept import CALL_S, Kept, Terminal

LEAST = Path(__file__).with_name("least.yaml")
END_S = 90.0
STARTS_S = 120.0


@pytest.fixture
def terminal(tmp_path: Path, node_image: str) -> Iterator[Terminal]:
    with tempfile.TemporaryDirectory(prefix="living-") as registry:
        here = Terminal(tmp_path, Path(registry), "compose")
        yield here
        here.call("down", "--all")
        here.wait_no_process(END_S)


@pytest.fixture
def run(terminal: Terminal) -> Iterator[Kept]:
    started = Kept(terminal.start("run", str(LEAST), "--keep"), terminal)
    yield started
    started.end()


def wait(holds: Callable[[], object], run: Kept) -> None:
    deadline = time.monotonic() + STARTS_S
    pause = threading.Event()
    while not holds():
        if run.process.poll() is not None or time.monotonic() > deadline:
            run.end()
            raise AssertionError("it did not come so far")
        pause.wait(0.02)


def record(terminal: Terminal) -> dict[str, Any]:
    found = terminal.recorded()
    return found[0] if found else {}


def containers(client: docker.DockerClient, terminal: Terminal) -> int:
    secrets = record(terminal).get("secrets")
    left = traces(client, Path(secrets).name) if secrets else []
    return sum(one.startswith("container") for one in left)


@pytest.mark.parametrize("least", [1, pytest.param(4, marks=pytest.mark.long), 8])
def test_killed_while_it_comes_up_nothing_is_left_after_down(
    least: int, run: Kept, terminal: Terminal, client: docker.DockerClient
) -> None:
    wait(lambda: record(terminal).get("up") and containers(client, terminal) >= least, run)
    fleet = Path(record(terminal)["secrets"])
    run.process.kill()
    run.process.communicate()
    assert terminal.call("down") == (0, "no run is living\n")
    assert traces(client, fleet.name) == []
    assert not fleet.exists()
    assert terminal.recorded() == []
    terminal.wait_no_process(CALL_S)  # not even Compose, which would have brought up more
    assert traces(client, fleet.name) == []


@pytest.mark.long  # test_limited_runs does the same to a run that has control groups as well
def test_killed_in_mid_run_nothing_is_left_after_the_next_command(
    run: Kept, terminal: Terminal, client: docker.DockerClient
) -> None:
    wait(lambda: '"round_closed"' in history(terminal), run)
    fleet = Path(record(terminal)["secrets"])
    run.process.kill()
    run.process.communicate()
    assert traces(client, fleet.name) != []
    status, said = terminal.call("exec", "w01", "--", "true")
    assert (status, "no run is living" in said) == (64, True)
    assert traces(client, fleet.name) == []
    assert not fleet.exists()


# In mid-run `down` does the same to the run, below.
@pytest.mark.parametrize("moment", ["coming up", pytest.param("in mid-run", marks=pytest.mark.long)])
def test_after_ctrl_c_nothing_is_left(
    moment: str, run: Kept, terminal: Terminal, client: docker.DockerClient
) -> None:
    if moment == "coming up":
        wait(lambda: record(terminal).get("up") and containers(client, terminal) >= 4, run)
    else:
        wait(lambda: '"round_closed"' in history(terminal), run)
    fleet = Path(record(terminal)["secrets"])
    os.killpg(run.process.pid, signal.SIGINT)
    said, _ = run.process.communicate(timeout=END_S)
    assert run.process.returncode == 130, said
    wait_no_trace(client, fleet.name, 0)
    assert not fleet.exists()
    assert terminal.recorded() == []


def test_down_from_another_terminal_ends_what_is_in_mid_run(
    run: Kept, terminal: Terminal, client: docker.DockerClient, tmp_path: Path
) -> None:
    wait(lambda: '"round_closed"' in history(terminal), run)
    fleet = Path(record(terminal)["secrets"])
    status, said = terminal.call("down")
    assert (status, said.startswith("ending least-")) == (0, True)
    wait_no_trace(client, fleet.name, 0)
    assert not fleet.exists()
    run.process.communicate(timeout=CALL_S)
    assert run.process.returncode == 130


def history(terminal: Terminal) -> str:
    file = terminal.folder / "runs" / "least" / "latest" / "history.jsonl"
    return file.read_text() if file.exists() else ""
