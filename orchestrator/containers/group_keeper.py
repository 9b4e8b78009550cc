"""Writes and reads the control groups of a run's nodes, in a container that is shown the host's.

group_keeper.py FOLDER VERSION                answers requests, lines of JSON, until its input ends
group_keeper.py FOLDER VERSION --remove GROUP removes a group with those in it; prints what is left of it

A request has `do` (make, write or read), `kind` (cpu or memory), `group` and either `settings` or `files`;
the answer has `error` or what was read. It imports nothing of ours: its text is all that the container gets.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

# An engine that may give real time to containers gives all that it has, in microseconds of the group's
# period, to each group in which it makes one: of such long periods that is next to nothing, else too much.
REAL_TIME: Final = "cpu.rt_period_us"
LONG_US: Final = (100_000_000, 10_000_000_000)  # of a run's group, and of a node's in it
REMOVE_S: Final = 5.0
POLL_S: Final = 0.05

Act = Callable[..., dict[str, Any]]


class Groups:
    def __init__(self, root: Path, version: int) -> None:
        self._root, self._version = root, version
        self._acts: dict[str, Act] = {"make": self.make, "write": self.write, "read": self.read}
        self._ooms: dict[Path, int] = {}  # by group: who counts
        self._killed: dict[Path, int] = {}

    def folder(self, kind: str, group: str) -> Path:
        return self._root / kind / group if self._version == 1 else self._root / group

    def make(self, kind: str, group: str) -> dict[str, Any]:
        """Before the engine does, where it would not make it so that others have room beside it."""
        folder = self.folder(kind, group)
        for place, period_us in zip((folder.parent, folder), LONG_US, strict=True):
            place.mkdir(exist_ok=True)
            if (place / REAL_TIME).exists() and kind == "cpu":
                (place / REAL_TIME).write_text(str(period_us))
        return {}

    def write(self, kind: str, group: str, settings: list[tuple[str, str, bool]]) -> dict[str, Any]:
        """Read back; what the kernel does not hold is an error."""
        folder = self.folder(kind, group)
        for name, value, is_optional in settings:
            file = folder / name
            if is_optional and not file.exists():
                continue
            file.write_text(value)
            if (held := file.read_text().strip()) != value:
                raise OSError(0, f"holds {held} instead of {value}", str(file))
        if kind == "memory" and self._version == 1 and folder not in self._ooms:
            self._ooms[folder] = watch(folder)
        return {}

    def read(self, kind: str, group: str, files: list[str]) -> dict[str, Any]:
        """The files that there are, and how many groups are in it: the engine's, one for each that runs."""
        folder = self.folder(kind, group)
        texts = {name: (folder / name).read_text() for name in files if (folder / name).exists()}
        found: dict[str, Any] = {"files": texts, "containers": sum(one.is_dir() for one in folder.iterdir())}
        if folder in self._ooms:
            with contextlib.suppress(BlockingIOError):  # not once since it was last read
                self._killed[folder] = self._killed.get(folder, 0) + os.eventfd_read(self._ooms[folder])
            found["ooms"] = self._killed.get(folder, 0)
        return found

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            return {"error": None, **self._acts[request.pop("do")](**request)}
        except OSError as error:
            return {"error": f"{error.filename or 'the control group'}: {error.strerror}"}

    def remove(self, group: str) -> list[str]:
        """It and what is in it, in all hierarchies: the engine makes groups in each; what is left."""
        deadline = time.monotonic() + REMOVE_S
        hierarchies = [self._root]
        if self._version == 1:
            hierarchies = [one for one in self._root.iterdir() if one.is_dir() and not one.is_symlink()]
        while left := [str(one / group) for one in hierarchies if not remove(one / group)]:
            if time.monotonic() > deadline:
                break
            time.sleep(POLL_S)  # a process that was killed may be about to leave it
        return left


def watch(folder: Path) -> int:
    """An eventfd that counts how often the group had no memory left and somebody was killed for it.

    Version 1 counts the killed in their own container's group, which is gone with the container.
    """
    counter = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    told = os.open(folder / "memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
    (folder / "cgroup.event_control").write_text(f"{counter} {told}")
    return counter


def remove(folder: Path) -> bool:
    """Whether it is gone."""
    for below in sorted(folder.glob("**/"), reverse=True):  # the innermost first
        with contextlib.suppress(OSError):  # somebody is in it, or it is gone
            below.rmdir()
    return not folder.exists()


def main(arguments: list[str]) -> int:
    root, version, *rest = arguments
    groups = Groups(Path(root), int(version))
    if rest:
        print(json.dumps(groups.remove(rest[1])))
        return 0
    for line in sys.stdin:
        print(json.dumps(groups.answer(json.loads(line))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
