"""Running soon after waking, though the processors are busy."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from typing import Final, Literal

Waking = Literal["first", "soon", "in turn"]

PR_SET_TIMERSLACK: Final = 29
SLICE_NS: Final = 100_000
# sched_setattr(2) has no wrapper in the C library, and its number differs.
SCHED_SETATTR: Final = {"x86_64": 314, "aarch64": 274}
SCHED_ATTR = struct.Struct("=IIQiIQQQ")
SCHED_OTHER: Final = 0


def run_soon_after_waking() -> Waking:
    """Ask for exact timers, and to come before all others; else, as without root, for short turns.

    Who asks for short turns is let in before those with long ones, from Linux 6.12 on; kernels before that
    take the call and do nothing of it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)
    try:
        # The least of the real-time priorities: all that it does is moving packets that are due.
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(os.sched_get_priority_min(os.SCHED_FIFO)))
    except PermissionError:
        return "soon" if _take_short_turns(libc) else "in turn"
    return "first"


def _take_short_turns(libc: ctypes.CDLL) -> bool:
    number = SCHED_SETATTR.get(platform.machine())
    if number is None:
        return False
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    wanted = SCHED_ATTR.pack(SCHED_ATTR.size, SCHED_OTHER, 0, nice, 0, SLICE_NS, 0, 0)
    return bool(libc.syscall(number, 0, ctypes.c_char_p(wanted), 0) == 0)
