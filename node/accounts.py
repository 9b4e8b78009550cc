"""What the parts of a node and its interfaces have used, read from /proc."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from node.process import ProcessId

CLOCK_TICKS: Final = os.sysconf("SC_CLK_TCK")
PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
# For a proportional size the kernel walks every page: 25 ms where TensorFlow was imported. So it is asked
# when the resident size, which is cheap, is higher by this share than it ever was, and else seldom.
PROPORTIONAL_EVERY_S: Final = 2.0
PROPORTIONAL_SELDOM_S: Final = 30.0
PROPORTIONAL_GROWTH: Final = 0.02
READ_BYTES: Final = 1 << 16


@dataclass(frozen=True)
class Usage:
    """Of a part and all that it started; a figure that cannot be read is None."""

    is_up: bool
    cpu_seconds: float
    resident_bytes: int | None
    proportional_bytes: int | None
    proportional_peak_bytes: int | None


class Account:
    """One part's figures over time."""

    def __init__(
        self,
        process: ProcessId,
        *,
        alone: bool = False,
        proc: Path = Path("/proc"),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._process = process
        self._alone = alone  # without what it started
        self._proc = proc
        self._clock = clock
        self._cpu_seconds = 0.0
        self._proportional: int | None = None
        self._peak: int | None = None
        self._measured_at = -math.inf
        self._highest_resident = 0  # of the times when the proportional size was asked

    def is_up(self) -> bool:
        return self._process.is_alive()

    def usage(self) -> Usage:
        """The figures of now; the proportional size may be half a minute old."""
        if not self.is_up():
            return Usage(False, self._cpu_seconds, None, None, self._peak)
        pids = [self._process.pid] if self._alone else tree(self._process.pid, self._proc)
        used = sum(cpu_seconds(pid, self._proc, alone=self._alone) for pid in pids)
        # A counter never falls: what a child used is its parent's only once it was reaped.
        self._cpu_seconds = max(self._cpu_seconds, used)
        resident = sum(resident_bytes(pid, self._proc) for pid in pids)
        if self._is_due(resident):
            self._measure(pids, resident)
        return Usage(True, self._cpu_seconds, resident, self._proportional, self._peak)

    def _is_due(self, resident: int) -> bool:
        since_s = self._clock() - self._measured_at
        grown = resident > (1 + PROPORTIONAL_GROWTH) * self._highest_resident
        return since_s >= (PROPORTIONAL_EVERY_S if grown else PROPORTIONAL_SELDOM_S)

    def _measure(self, pids: list[int], resident: int) -> None:
        self._measured_at = self._clock()
        self._highest_resident = max(self._highest_resident, resident)
        sizes = [size for pid in pids if (size := proportional_bytes(pid, self._proc)) is not None]
        self._proportional = sum(sizes) if sizes else None
        if sizes:
            self._peak = max(self._peak or 0, sum(sizes))


def tree(pid: int, proc: Path = Path("/proc")) -> list[int]:
    """A process and its descendants, as far as they live."""
    found = [pid]
    threads = f"{proc}/{pid}/task"
    try:
        names = os.listdir(threads)
    except OSError:
        return found  # it is gone
    for name in names:
        for child in _read(f"{threads}/{name}/children").split():
            found += tree(int(child), proc)
    return found


def cpu_seconds(pid: int, proc: Path = Path("/proc"), *, alone: bool = False) -> float:
    """User and system time of a process, and of its reaped children if not alone; 0 when it is gone."""
    fields = _read(f"{proc}/{pid}/stat").rpartition(")")[2].split()
    ours = fields[11:13] if alone else fields[11:15]  # fields 14 to 17 of proc(5)
    return sum(map(int, ours)) / CLOCK_TICKS


def resident_bytes(pid: int, proc: Path = Path("/proc")) -> int:
    fields = _read(f"{proc}/{pid}/statm").split()
    return int(fields[1]) * PAGE_BYTES if fields else 0


def proportional_bytes(pid: int, proc: Path = Path("/proc")) -> int | None:
    """What is its own, and its share of what several have; None when it may not be read."""
    for line in _read(f"{proc}/{pid}/smaps_rollup").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return None


def interface_bytes(text: str) -> dict[str, tuple[int, int]]:
    """Received and sent bytes of each interface, from the text of /proc/net/dev."""
    counted = {}
    for line in text.splitlines()[2:]:
        name, _, figures = line.partition(":")
        fields = figures.split()
        counted[name.strip()] = (int(fields[0]), int(fields[8]))
    return counted


def received_bytes(interface: str) -> int:
    """What has come in on an interface of this thread's namespace; 0 where there is none of that name."""
    text = _read("/proc/thread-self/net/dev")
    return interface_bytes(text).get(interface, (0, 0))[0]


def _read(path: str) -> str:
    """The text, empty when the process is gone or not ours to look into."""
    try:  # not by pathlib: dozens of these files are read for every scrape
        file = os.open(path, os.O_RDONLY)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return ""
    try:
        text = b""
        while piece := os.read(file, READ_BYTES):
            text += piece
    except (ProcessLookupError, PermissionError):
        return ""
    finally:
        os.close(file)
    return text.decode(errors="replace")
