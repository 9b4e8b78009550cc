"""Forking children that end with their parent, and waiting for signals without threads or loops.

A child of ours must be forked before the parent has a thread or an event loop of its own; libraries
that were only imported may have threads, which do no harm.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType
from typing import Final

from node.contract import ExitCode, ShoalError
from node.process import ProcessId

PR_SET_PDEATHSIG: Final = 1
LIBC: Final = ctypes.CDLL(None, use_errno=True)


def fork(
    run: Callable[[], int], *, parent_death: signal.Signals = signal.SIGKILL, log: Path | None = None
) -> ProcessId:
    """Run `run` in a child, its result is the exit status; with `log` all output is appended there.

    The parent-death signal fires when the *thread* that calls this ends.
    """
    parent = os.getpid()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return ProcessId.of(pid)  # it is there, be it as a zombie: nobody has reaped it yet
    status = int(ExitCode.BUG)
    try:
        _become_child(parent, parent_death, log)
        status = run()
    except ShoalError as error:
        status = int(error.exit_code)
        print(error, file=sys.stderr)
    finally:
        # Never back into the parent's stack, whatever was raised, and though there be no room to say it.
        try:
            if sys.exc_info()[0] is not None:
                traceback.print_exc()
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(status)


def _become_child(parent: int, parent_death: signal.Signals, log: Path | None) -> None:
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    end_with_parent(parent, parent_death)
    # No session: Linux shares processors out between those first, and only within one counts who is nicer.
    os.setpgid(0, 0)
    _close_sockets()
    if log is not None:
        _redirect(log)


def end_with_parent(parent: int, number: signal.Signals) -> None:
    """Ask the kernel for a signal at the parent's end; end now when that has passed already."""
    if LIBC.prctl(PR_SET_PDEATHSIG, int(number), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        os._exit(int(ExitCode.BUG))


def _close_sockets() -> None:
    """The parent's sockets are its own; the Python objects are never used again in the child."""
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                os.close(int(name))


def _redirect(log: Path) -> None:
    out = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o660)  # less the umask
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(out, 1)
    os.dup2(out, 2)
    for descriptor in (out, nothing):
        if descriptor > 2:
            os.close(descriptor)
    # By line, so that a log shows what was said before a kill.
    sys.stdout = open(1, "w", buffering=1, closefd=False, errors="replace")  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False, errors="replace")  # noqa: SIM115


def exit_status(pid: int) -> int | None:
    """Reap a forked child: its status, negative for a signal; nothing while it runs."""
    reaped, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if reaped else None


class Signals:
    """Signals as something to wait for; for the main thread of a process that has no event loop."""

    def __init__(self, *numbers: signal.Signals) -> None:
        self._numbers = numbers

    def __enter__(self) -> Signals:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._wakeup_before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._before = {number: signal.signal(number, _noted) for number in self._numbers}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        self._reader.close()
        self._writer.close()

    def fileno(self) -> int:
        return self._reader.fileno()

    def wait(self, timeout_s: float | None) -> set[int]:
        """The numbers of those that came since the last call; empty when none came in time."""
        select.select([self._reader], [], [], timeout_s)
        try:
            return set(self._reader.recv(4096))
        except BlockingIOError:
            return set()


def _noted(number: int, frame: FrameType | None) -> None:
    """The number is in the wake-up descriptor already."""
