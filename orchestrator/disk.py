"""A disk that is full: the host's fault, wherever it is met."""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from node.contract import HostError
from orchestrator.vigil import FleetFailedError

RUNS = Path("runs")
LEAST_FREE_BYTES = 1 << 16


def is_full(folder: Path) -> bool:
    """Whether there is no room; of a folder that is gone already nobody asks."""
    try:
        return shutil.disk_usage(folder).free < LEAST_FREE_BYTES
    except FileNotFoundError:
        return False


def full_disk(folder: Path | None = None) -> HostError:
    where = folder or f"{RUNS.absolute()} or {tempfile.gettempdir()}"
    return HostError(
        f"No space is left on a disk that the run writes to: {where}.",
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


@contextmanager
def full_nodes_told(folders: Iterable[Path]) -> Iterator[None]:
    """Nodes whose disk is full cannot say so: it may be why the fleet failed."""
    try:
        yield
    except FleetFailedError as err:
        for folder in folders:
            if is_full(folder):
                raise full_disk(folder) from err
        raise
