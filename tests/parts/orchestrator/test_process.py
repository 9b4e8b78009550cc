from __future__ import annotations

import os
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from node.contract import HostError
from orchestrator import process
from orchestrator.process import CommandFailedError, Identity

SOON_S = 20.0


def test_an_identity_is_of_one_process() -> None:
    child = process.start(["sleep", "1000"])
    identity = Identity.of(child.pid)
    assert identity is not None
    assert identity.is_alive()
    assert not Identity(child.pid, identity.start_ticks + 1).is_alive()
    os.kill(child.pid, signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not identity.is_alive(), "a zombie has ended"
    child.wait()
    assert Identity.of(child.pid) is None


def test_a_family_ends_with_whom_it_has_forked_and_a_reused_pid_is_left_alone() -> None:
    first = process.start(["sh", "-c", "sleep 1000 & echo $!; wait"], stdout=subprocess.PIPE)
    assert first.stdout is not None
    forked = Identity.of(int(first.stdout.readline()))
    identity = Identity.of(first.pid)
    assert forked is not None
    assert identity is not None
    try:
        process.end_family(Identity(identity.pid, identity.start_ticks + 1), SOON_S)
        assert identity.is_alive()
        assert forked.is_alive()
        process.end_family(identity, SOON_S)
        assert not identity.is_alive()
        assert not forked.is_alive()
    finally:
        forked.end(signal.SIGKILL, SOON_S)
        first.kill()
        first.wait()
        first.stdout.close()


def test_a_name_with_spaces_and_brackets_is_no_trouble(tmp_path: Path) -> None:
    odd = tmp_path / "a) b (c"
    odd.symlink_to("/bin/sleep")
    child = process.start([str(odd), "1000"])
    try:
        identity = Identity.of(child.pid)
        assert identity is not None
        assert identity.start_ticks > 0
    finally:
        child.kill()
        child.wait()


def test_run_brings_back_what_was_said() -> None:
    done = process.run(
        ["sh", "-c", "cat; echo no >&2; exit 3"], input_text="yes", timeout_s=SOON_S, check=False
    )
    assert (done.status, done.stdout, done.stderr) == (3, "yes", "no\n")


def test_a_failure_can_be_pasted() -> None:
    with pytest.raises(CommandFailedError, match=r"`sh -c 'echo no; exit 3'` ended with 3: no"):
        process.run(["sh", "-c", "echo no; exit 3"], timeout_s=SOON_S)


def test_a_missing_program_is_the_hosts_fault() -> None:
    with pytest.raises(HostError, match="no program called nosuchprogram"):
        process.run(["nosuchprogram"], timeout_s=SOON_S)


def test_a_command_beyond_its_time_is_killed(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    os.mkfifo(pid_file)
    told: list[str] = []
    reader = threading.Thread(target=lambda: told.append(pid_file.read_text()))
    reader.start()
    with pytest.raises(CommandFailedError, match=r"did not end within 0\.5 s"):
        process.run(["sh", "-c", f"echo $$ > {pid_file}; exec sleep 1000"], timeout_s=0.5)
    reader.join()
    assert Identity.of(int(told[0])) is None


def test_a_stray_grandchild_that_holds_the_output_is_not_waited_for() -> None:
    done = process.run(["sh", "-c", "sleep 1000 & echo $!"], timeout_s=SOON_S)
    os.kill(int(done.stdout), signal.SIGKILL)


def test_what_is_started_has_none_of_our_streams() -> None:
    child = process.start(["sleep", "1000"])
    try:
        assert {os.readlink(f"/proc/{child.pid}/fd/{n}") for n in (0, 1, 2)} == {"/dev/null"}
        assert os.getsid(child.pid) == child.pid
    finally:
        child.kill()
        child.wait()


def test_signals_pass_the_relay_by() -> None:
    # A shell that waits for its child is a relay as nsenter is.
    program = "sleep 1000 >&- & trap 'kill $!; exit 5' TERM; echo ready; wait"
    relay = process.start(
        ["sh", "-c", 'sh -c "$0"; exit $?', program], stdout=subprocess.PIPE, is_relayed=True
    )
    assert relay.stdout is not None
    with relay.stdout:
        assert relay.stdout.readline() == b"ready\n"
        relay.terminate()
        assert relay.wait(SOON_S) == 5
