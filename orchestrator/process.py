"""The one place of the orchestrator that starts processes."""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NoReturn

from node.contract import HostError, ShoalError
from orchestrator import host

Stream = int | IO[bytes] | None  # as subprocess takes it; None is the orchestrator's own stream


@dataclass(frozen=True)
class Identity:
    """A process for certain: a PID alone may belong to another one a moment later."""

    pid: int
    start_ticks: int

    @staticmethod
    def of(pid: int) -> Identity | None:
        """The identity of a living process; a zombie has ended."""
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        return None if fields[0] in "ZX" else Identity(pid, int(fields[19]))

    def is_alive(self) -> bool:
        """Whether this very process still runs."""
        return Identity.of(self.pid) == self

    def end(self, number: signal.Signals, timeout_s: float) -> bool:
        """Signal this very process, which need not be our child, and wait for its end; whether it came."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return True
        try:
            # From here on the descriptor means one process, whoever has the PID later.
            if not self.is_alive():
                return True
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, number)
            ended = select.poll()
            ended.register(descriptor, select.POLLIN)
            return bool(ended.poll(timeout_s * 1000))
        finally:
            os.close(descriptor)


@dataclass(frozen=True)
class Completed:
    """A command that ended, and what it said."""

    argv: tuple[str, ...]
    status: int
    stdout: str
    stderr: str


class CommandFailedError(ShoalError):
    """A command ended badly or not in time; `status` is None when it did not end."""

    def __init__(self, completed: Completed, status: int | None, outcome: str) -> None:
        said = (completed.stderr or completed.stdout).strip()
        super().__init__(f"`{shlex.join(completed.argv)}` {outcome}" + (f": {said}" if said else "."))
        self.status = status
        self.stderr = completed.stderr


class Process(subprocess.Popen[bytes]):
    """A Popen that may have a relay (nsenter) before the program; signals go to the program itself."""

    is_relayed = False

    def send_signal(self, sig: int) -> None:
        """Signal the program: a signal to the relay would end the relay alone."""
        inner = children_of(self.pid) if self.is_relayed and self.poll() is None else []
        if not inner:
            super().send_signal(sig)
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(inner[0], sig)


def children_of(pid: int) -> list[int]:
    """The PIDs that this process forked and has not reaped."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def end_family(first: Identity, timeout_s: float) -> None:
    """SIGKILL for a process and those that it has forked: a plugin may go on without its program."""
    family = [Identity.of(pid) for pid in (*children_of(first.pid), first.pid)] if first.is_alive() else []
    for member in family:
        if member is not None:
            member.end(signal.SIGKILL, timeout_s)


def start(
    argv: Sequence[str],
    *,
    stdin: Stream = subprocess.DEVNULL,
    stdout: Stream = subprocess.DEVNULL,
    stderr: Stream = subprocess.DEVNULL,
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    is_relayed: bool = False,
) -> Process:
    """Start a process in a session of its own, so that a terminal's Ctrl-C reaches the orchestrator alone."""
    environment = {**os.environ, "PATH": host.search_path(), **(env or {})}
    try:
        process = Process(
            list(argv),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=environment,
            pass_fds=pass_fds,
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise HostError(f"There is no program called {argv[0]} here.", "run `make setup`") from error
    process.is_relayed = is_relayed
    return process


def become(argv: Sequence[str], *, env: Mapping[str, str]) -> NoReturn:
    """Replace this process by a program, on the same terminal and with its exit status."""
    try:
        os.execvpe(argv[0], list(argv), {**os.environ, "PATH": host.search_path(), **env})
    except FileNotFoundError as error:
        raise HostError(f"There is no program called {argv[0]} here.", "run `make setup`") from error


def run(
    argv: Sequence[str],
    *,
    timeout_s: float,
    env: Mapping[str, str] | None = None,
    input_text: str = "",
    is_relayed: bool = False,
    check: bool = True,
    shown: Sequence[str] | None = None,
) -> Completed:
    """Run a command to its end; `shown` is what to call it in a complaint.

    Its output goes to files, not pipes: a stray grandchild that holds a pipe would be waited for.
    """
    with (
        tempfile.TemporaryFile() as stdin,
        tempfile.TemporaryFile() as stdout,
        tempfile.TemporaryFile() as stderr,
    ):
        stdin.write(input_text.encode())
        stdin.seek(0)
        process = start(argv, stdin=stdin, stdout=stdout, stderr=stderr, env=env, is_relayed=is_relayed)
        in_time = _wait(process, timeout_s)
        stdout.seek(0)
        stderr.seek(0)
        completed = Completed(
            tuple(shown or argv),
            process.returncode,
            stdout.read().decode(errors="replace"),
            stderr.read().decode(errors="replace"),
        )
    if not in_time:
        raise CommandFailedError(completed, None, f"did not end within {timeout_s:g} s")
    if check and completed.status != 0:
        raise CommandFailedError(completed, completed.status, f"ended with {completed.status}")
    return completed


def _wait(process: Process, timeout_s: float) -> bool:
    """Wait for the end, and make it when it does not come; whether it came by itself."""
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        return False
    else:
        return True
    finally:
        # Also after Ctrl-C in the middle of the wait: nothing is left behind.
        if process.poll() is None:
            process.kill()
            process.wait()
