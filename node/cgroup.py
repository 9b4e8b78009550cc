"""Control groups as a node sees them: it is told which ones its parts belong to, and starts them in there.

A process charges memory to the group that it is in when it takes it, so parts are born in theirs: whoever
forks them goes in, forks, and comes out again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from node.contract import HostError

MEMBERS: Final = "cgroup.procs"


@dataclass(frozen=True)
class Group:
    """A folder of the cgroup file system, and the one that this process comes from."""

    folder: str
    home: str


@contextmanager
def inside(groups: Sequence[Group]) -> Iterator[None]:
    """What this process starts meanwhile belongs to these groups for good, the process itself does not."""
    with ExitStack() as leaving:
        for group in groups:
            _move(group.folder)
            leaving.callback(_move, group.home)
        yield


def _move(folder: str) -> None:
    try:
        (Path(folder) / MEMBERS).write_text(str(os.getpid()))
    except OSError as error:
        raise HostError(f"cannot enter the control group {folder}: {error.strerror}") from error
