from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.contract import HostError
from node.process import Process, ProcessId


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[Process]:
    process = Process.start(["sleep", "60"], env=os.environ, log=tmp_path / "log")
    yield process
    process.signal(signal.SIGKILL)
    assert process.wait_exit(10) is not None


def test_output_goes_to_the_end_of_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("before\n")
    process = Process.start(
        ["sh", "-c", "echo out; echo $WORD >&2; exit 7"], env={**os.environ, "WORD": "err"}, log=log
    )
    assert process.wait_exit(10) == 7
    assert process.exit_status == 7
    assert log.read_text() == "before\nout\nerr\n"


def test_only_who_is_given_a_timer_slack_has_it(tmp_path: Path) -> None:
    own = Path("/proc/self/timerslack_ns").read_text()
    for slack_ns, told in ((1_000_000, "1000000\n"), (0, own)):
        log = tmp_path / f"log{slack_ns}"
        process = Process.start(
            ["cat", "/proc/self/timerslack_ns"], env=os.environ, log=log, timer_slack_ns=slack_ns
        )
        assert process.wait_exit(10) == 0
        assert log.read_text() == told
    assert Path("/proc/self/timerslack_ns").read_text() == own


def test_a_running_process_is_waited_for_only_so_long(sleeper: Process) -> None:
    assert sleeper.wait_exit(0.01) is None
    assert sleeper.exit_status is None
    assert sleeper.id.is_alive()


def test_a_signal_ends_it_and_then_finds_nobody(sleeper: Process) -> None:
    assert sleeper.signal(signal.SIGTERM)
    assert sleeper.wait_exit(10) == -signal.SIGTERM
    assert not sleeper.id.is_alive()
    assert not sleeper.signal(signal.SIGTERM)
    assert not sleeper.id.signal(signal.SIGTERM)


def test_the_same_pid_with_another_start_is_somebody_else(sleeper: Process) -> None:
    stranger = ProcessId(sleeper.id.pid, sleeper.id.start_ticks + 1)
    assert not stranger.is_alive()
    assert not stranger.signal(signal.SIGKILL)
    assert sleeper.id.is_alive()


def test_a_name_with_spaces_and_brackets_confuses_nobody(tmp_path: Path) -> None:
    program = tmp_path / "a) S 1 (b"
    program.symlink_to("/bin/sleep")
    process = Process.start([str(program), "60"], env=os.environ, log=tmp_path / "log")
    try:
        again = ProcessId.of(process.id.pid)
        assert again == process.id
        assert again.start_ticks > 0
        assert again.is_alive()
    finally:
        process.signal(signal.SIGKILL)
        process.wait_exit(10)


def test_a_zombie_is_not_alive() -> None:
    with subprocess.Popen(["true"]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended, nobody has reaped it
        assert not ProcessId.of(child.pid).is_alive()


def test_nobody_has_this_pid() -> None:
    with pytest.raises(ProcessLookupError):
        ProcessId.of(2**22 + 1)
    assert not ProcessId(2**22 + 1, 1).is_alive()


def test_it_leads_a_group_of_its_own_in_our_session(sleeper: Process) -> None:
    assert os.getpgid(sleeper.id.pid) == sleeper.id.pid  # a terminal's Ctrl-C does not reach it
    assert os.getsid(sleeper.id.pid) == os.getsid(0)  # and within one counts who is nicer


def test_it_ends_with_its_parent(tmp_path: Path) -> None:
    code = f"""
import os, sys
from pathlib import Path
from node.process import Process
command = ["sh", "-c", "echo up; exec sleep 60"]
child = Process.start(command, env=os.environ, log=Path({str(tmp_path / "log")!r}))
print(child.id.pid, child.id.start_ticks, flush=True)
sys.stdin.read()
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with parent:
        assert parent.stdout is not None
        pid, start_ticks = map(int, parent.stdout.readline().split())
        child = ProcessId(pid, start_ticks)
        descriptor = os.pidfd_open(pid)
        # `sh` is past setpriv, so the signal is armed, once it has spoken.
        _wait_text(tmp_path / "log", "up\n")
        assert child.is_alive()
        parent.kill()
    _wait_gone(descriptor)
    assert not child.is_alive()


def _wait_gone(descriptor: int) -> None:
    import select

    try:
        assert select.select([descriptor], [], [], 10)[0]
    finally:
        os.close(descriptor)


def _wait_text(file: Path, text: str) -> None:
    import time

    deadline = time.monotonic() + 10
    while file.read_text() != text:
        assert time.monotonic() < deadline
        os.sched_yield()


def test_a_program_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = Process.start(["/no/such/program"], env=os.environ, log=tmp_path / "log")
    assert process.wait_exit(10) == 127
    assert "/no/such/program" in (tmp_path / "log").read_text()
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(HostError, match="setpriv"):
        Process.start(["true"], env={}, log=tmp_path / "log")
