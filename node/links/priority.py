"""Running soon after waking, though the processors are busy."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from typing import Final

from node.contract.links import Waking

HOLDER_NAME: Final = "shoal-holder"  # 15 bytes are what the kernel keeps
PR_SET_NAME: Final = 15
PR_SET_TIMERSLACK: Final = 29
SLICE_NS: Final = 100_000
# sched_setattr(2) has no wrapper in the C library, and its number differs.
SCHED_SETATTR: Final = {"x86_64": 314, "aarch64": 274}
SCHED_ATTR = struct.Struct("=IIQiIQQQ")
SCHED_OTHER: Final = 0


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
        if os.sched_getscheduler(0) == os.SCHED_FIFO:
            return "first"
        return "soon" if self._has_short_turns else "in turn"


def come_first(pid: int) -> None:
    """Give a process, 0 is this one, the least of the real-time priorities: it does little, but in time."""
    os.sched_setscheduler(pid, os.SCHED_FIFO, os.sched_param(os.sched_get_priority_min(os.SCHED_FIFO)))


def _take_short_turns(libc: ctypes.CDLL) -> bool:
    number = SCHED_SETATTR.get(platform.machine())
    if number is None:
        return False
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    wanted = SCHED_ATTR.pack(SCHED_ATTR.size, SCHED_OTHER, 0, nice, 0, SLICE_NS, 0, 0)
    return bool(libc.syscall(number, 0, ctypes.c_char_p(wanted), 0) == 0)
