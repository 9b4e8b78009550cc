"""Running soon after waking, though the processors are busy."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from typing import Final

from node.contract.links import Waking
from node.process import PR_SET_TIMERSLACK

HOLDER_NAME: Final = "shoal-holder"  # 15 bytes are what the kernel keeps
PR_SET_NAME: Final = 15
SLICE_NS: Final = 100_000
# sched_setattr(2) has no wrapper in the C library, and its number differs.
SCHED_SETATTR: Final = {"x86_64": 314, "aarch64": 274}
SCHED_ATTR = struct.Struct("=IIQiIQQQ")
SCHED_OTHER: Final = 0
SCHED_DEADLINE: Final = 6
RECLAIM: Final = 2  # what others of this kind leave of their reservations may be used
# Of each period so much is sure; whoever has more to do gets what nobody else of this kind uses.
SURE_NS: Final = 500_000
PERIOD_NS: Final = 10_000_000


class Priority:
    """That of this process, which holds packets; it bears a name by which others may raise it."""

    def __init__(self) -> None:
        """Ask for exact timers, and to come before all others; else, as without root, for short turns.

        Who asks for short turns is let in before those with long ones, from Linux 6.12 on; kernels before
        that take the call and do nothing of it.
        """
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)
        libc.prctl(PR_SET_NAME, ctypes.c_char_p(HOLDER_NAME.encode()), 0, 0, 0)
        self._has_short_turns = False
        try:
            come_first(0)
        except PermissionError:
            self._has_short_turns = _take_short_turns(libc)

    @property
    def waking(self) -> Waking:
        """As it is now: somebody may have raised it, or not."""
        if os.sched_getscheduler(0) in (os.SCHED_FIFO, SCHED_DEADLINE):
            return "first"
        return "soon" if self._has_short_turns else "in turn"


def come_first(pid: int) -> None:
    """Give a process, 0 is this one, the least of the real-time priorities: it does little, but in time."""
    os.sched_setscheduler(pid, os.SCHED_FIFO, os.sched_param(os.sched_get_priority_min(os.SCHED_FIFO)))


def lend(pid: int) -> None:
    """Let a process, 0 is this one, come before all others for as long as it needs.

    By deadlines: unlike real-time priority kernels do not share that out by control groups, where what one
    group does not use is lost to the others.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if not _set(libc, pid, SCHED_DEADLINE, RECLAIM, 0, (SURE_NS, PERIOD_NS, PERIOD_NS)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _take_short_turns(libc: ctypes.CDLL) -> bool:
    return _set(libc, 0, SCHED_OTHER, 0, os.getpriority(os.PRIO_PROCESS, 0), (SLICE_NS, 0, 0))


def _set(
    libc: ctypes.CDLL, pid: int, policy: int, flags: int, nice: int, times_ns: tuple[int, int, int]
) -> bool:
    number = SCHED_SETATTR.get(platform.machine())
    if number is None:
        ctypes.set_errno(errno.ENOSYS)
        return False
    wanted = SCHED_ATTR.pack(SCHED_ATTR.size, policy, flags, nice, 0, *times_ns)
    return bool(libc.syscall(number, pid, ctypes.c_char_p(wanted), 0) == 0)
