"""A process that we started, or that somebody recorded: known by its PID and its start time.

A PID alone may by now be somebody else's. What `start` starts ends with its parent, by the
parent-death signal. The kernel sends that when the *thread* that forked ends, not the process:
call `start` from a thread that lives as long as the process shall, which a pool's thread is not.
It is armed by setpriv in the child, which then makes sure that its parent still lives.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from node.contract import HostError

PR_SET_TIMERSLACK: Final = 29

# A parent that dies before the parent-death signal is armed sends none; its child then has another parent.
ONLY_UNDER_PARENT = ("sh", "-c", '[ "$PPID" = "$0" ] && exec "$@"')


@dataclass(frozen=True)
class ProcessId:
    """A PID and the clock tick since boot at which it began."""

    pid: int
    start_ticks: int

    @classmethod
    def of(cls, pid: int) -> ProcessId:
        """The identity of a process that exists now; ProcessLookupError when there is none."""
        return cls(pid, _stat(pid)[1])

    def is_alive(self) -> bool:
        """Whether this very process still runs; a zombie does not."""
        try:
            state, start_ticks = _stat(self.pid)
        except ProcessLookupError:
            return False
        return start_ticks == self.start_ticks and state not in "ZX"

    def is_stopped(self) -> bool:
        """Whether it was stopped by a signal, and not continued yet."""
        try:
            state, start_ticks = _stat(self.pid)
        except ProcessLookupError:
            return False
        return start_ticks == self.start_ticks and state == "T"

    def signal(self, number: signal.Signals) -> bool:
        """Signal this very process; False when it is gone."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return False
        try:
            # The descriptor pins one process; only now does the check say which one it is.
            if not self.is_alive():
                return False
            signal.pidfd_send_signal(descriptor, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(descriptor)
        return True


def _stat(pid: int) -> tuple[str, int]:
    """State and start time from /proc/<pid>/stat."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError) as err:
        raise ProcessLookupError(pid) from err
    fields = text[text.rindex(")") + 2 :].split()  # the name before it may hold spaces and brackets
    return fields[0], int(fields[19])  # fields 3 and 22 of proc(5)


class Process:
    """A child of ours, its output in a log file."""

    def __init__(self, popen: subprocess.Popen[bytes]) -> None:
        self._popen = popen
        self.id = ProcessId.of(popen.pid)

    @classmethod
    def start(
        cls, argv: Sequence[str], *, env: Mapping[str, str], log: Path, timer_slack_ns: int = 0
    ) -> Process:
        """Start `argv` in a process group of its own, appending its output to `log`.

        With a slack its sleeps may last so much longer than asked, as may those of all that it starts.
        """
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            raise HostError("setpriv is missing", "install util-linux")
        with open(log, "ab") as out, _timer_slack(timer_slack_ns):
            try:
                popen = subprocess.Popen(
                    [setpriv, "--pdeathsig", "KILL", "--", *ONLY_UNDER_PARENT, str(os.getpid()), *argv],
                    env=dict(env),
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    process_group=0,  # a Ctrl-C at the terminal is ours alone to handle
                )
            except OSError as err:
                raise HostError(f"cannot start {argv[0]}: {err.strerror}") from err
        return cls(popen)

    @property
    def exit_status(self) -> int | None:
        """Nothing while it runs; the negative signal number when one ended it."""
        return self._popen.poll()

    def signal(self, number: signal.Signals) -> bool:
        """Signal it; False when it has ended."""
        with contextlib.suppress(ProcessLookupError):
            if self._popen.poll() is None:  # not reaped, so the PID is still ours
                return self.id.signal(number)
        return False

    def wait_exit(self, timeout_s: float) -> int | None:
        """Its exit status, or nothing when it still runs after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while self._popen.poll() is None:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return None
            try:
                descriptor = os.pidfd_open(self._popen.pid)
            except ProcessLookupError:
                continue  # somebody else of us has just reaped it
            try:
                select.select([descriptor], [], [], left_s)
            finally:
                os.close(descriptor)
        return self._popen.returncode


@contextlib.contextmanager
def _timer_slack(slack_ns: int) -> Iterator[None]:
    """That of this thread, from which a child takes it; 0 leaves the thread's own."""
    prctl = ctypes.CDLL(None).prctl
    prctl(PR_SET_TIMERSLACK, slack_ns, 0, 0, 0)
    try:
        yield
    finally:
        prctl(PR_SET_TIMERSLACK, 0, 0, 0, 0)
