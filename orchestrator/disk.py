"""A disk that is full: the host's fault, wherever it is met."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from node.contract import HostError

RUNS = Path("runs")
LEAST_FREE_BYTES = 1 << 16


def full_disk() -> HostError:
    return HostError(
        f"No space is left on a disk that the run writes to: {RUNS.absolute()} or {tempfile.gettempdir()}.",
        "free some, or set TMPDIR to a folder with more; `df -h` shows what is full",
    )


@contextmanager
def full_disk_told() -> Iterator[None]:
    """Whatever finds no room says so, and where to look."""
    try:
        yield
    except OSError as err:
        if err.errno != errno.ENOSPC:
            raise
        raise full_disk() from err
