"""Control groups of this host: where we may make some, and making and removing them.

Only what is ours is used: with cgroup v2 a group that was delegated to us, or the root of what we see; with
v1 the root alone, since any other group belongs to whoever put us into it.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

Kind = Literal["cpu", "memory"]
KINDS: Final[tuple[Kind, ...]] = ("cpu", "memory")
PREFIX: Final = "shoal-"
HOME: Final = "shoal-home"  # with v2 a group that has groups has no processes of its own
MEMBERS: Final = "cgroup.procs"
PASSED_ON: Final = "cgroup.subtree_control"
LIMIT_FILES: Final = {
    (1, "cpu"): "cpu.cfs_quota_us",
    (1, "memory"): "memory.limit_in_bytes",
    (2, "cpu"): "cpu.max",
    (2, "memory"): "memory.max",
}
DELEGATED: Final = ("user.delegate", "trusted.delegate")  # systemd marks a delegated group so
CURE: Final = "systemd-run {user}--scope -p Delegate=yes shoal run …"


@dataclass(frozen=True)
class Place:
    """Where groups of a kind can be made; `home` is where our own processes are."""

    version: Literal[1, 2]
    folder: Path
    home: Path


@dataclass(frozen=True)
class Refused:
    """Why there are no groups of a kind for us here."""

    reason: str
    cure: str = ""

    def __str__(self) -> str:
        return f"not enforced: {self.reason}" + (f"; cure: {self.cure}" if self.cure else "")

    @staticmethod
    def by(error: OSError) -> Refused:
        cure = CURE.format(user="--user ") if isinstance(error, PermissionError) and os.geteuid() else ""
        return Refused(f"{error.filename or 'the control group'}: {error.strerror}", cure)


Found = Place | Refused


def told(found: Found) -> str:
    """For people."""
    return f"enforced by cgroup v{found.version}" if isinstance(found, Place) else str(found)


def places(
    mountinfo: str,
    own: str,
    controllers: Callable[[Path], Iterable[str]],
    is_delegated: Callable[[Path], bool],
    cure: str,
) -> dict[Kind, Found]:
    """From the text of /proc/self/mountinfo and /proc/self/cgroup; pure but for what it looks with."""
    mine = dict(_memberships(own))
    mounted = dict(_mounts(mountinfo))
    return {
        kind: _first_version(kind, mine[kind], mounted.get(kind))
        if kind in mine
        else _second_version(kind, mine.get(""), mounted.get(""), controllers, is_delegated, cure)
        for kind in KINDS
    }


def _first_version(kind: Kind, own: str, mount: tuple[str, Path] | None) -> Found:
    if own != "/":
        return Refused(f"this process was put into the {kind} group {own}, which is not ours to change")
    if mount is None or mount[0] != "/":
        return Refused(f"the {kind} hierarchy of cgroup v1 is not mounted here")
    return Place(1, mount[1], mount[1])


def _second_version(
    kind: Kind,
    own: str | None,
    mount: tuple[str, Path] | None,
    controllers: Callable[[Path], Iterable[str]],
    is_delegated: Callable[[Path], bool],
    cure: str,
) -> Found:
    if own is None or mount is None:
        return Refused("no cgroup file system is mounted here")
    own = own.removesuffix(f"/{HOME}") or "/"
    inside = os.path.relpath(own, mount[0])
    if inside.startswith(".."):
        return Refused(f"the control group {own} of this process cannot be seen from here")
    folder = mount[1] / inside
    if kind not in controllers(folder):
        return Refused(f"the control group {own} has no {kind} controller", cure if own != "/" else "")
    if own == "/":
        return Place(2, folder, folder)
    if not is_delegated(folder):
        return Refused(f"the control group {own} was not delegated to us", cure)
    return Place(2, folder, folder / HOME)


def _memberships(text: str) -> Iterable[tuple[str, str]]:
    """Controller and path, from lines as `4:memory:/a` or, of v2, `0::/a`."""
    for line in text.splitlines():
        _, names, path = line.split(":", 2)
        for name in names.split(","):
            yield name, path


def _mounts(text: str) -> Iterable[tuple[str, tuple[str, Path]]]:
    """Controller (of v2: nothing), which of its groups is mounted, and where; from lines of mountinfo."""
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        root, point = (_plain(field) for field in before.split()[3:5])
        kind, _, options = after.split(maxsplit=2)
        for name in {"cgroup2": [""], "cgroup": options.split(",")}.get(kind, []):
            yield name, (root, Path(point))


def _plain(field: str) -> str:
    """mountinfo writes blanks and backslashes in octal."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def look() -> dict[Kind, Found]:
    """What this host allows this process; nothing is tried."""
    try:
        mountinfo = Path("/proc/self/mountinfo").read_text()
        own = Path("/proc/self/cgroup").read_text()
    except OSError as error:
        return dict.fromkeys(KINDS, Refused.by(error))
    cure = CURE.format(user="--user " if os.geteuid() else "")
    return places(mountinfo, own, _controllers, _is_delegated, cure)


def _controllers(folder: Path) -> list[str]:
    try:
        return (folder / "cgroup.controllers").read_text().split()
    except OSError:
        return []


def _is_delegated(folder: Path) -> bool:
    for name in DELEGATED:
        with contextlib.suppress(OSError):  # it has no such mark
            if os.getxattr(folder, name) == b"1":
                return True
    return False


def attempt() -> dict[Kind, Found]:
    """What this host really lets us do: a group of each kind is made and removed again."""
    tried = look()
    for kind, place in tried.items():
        if isinstance(place, Place):
            folder = place.folder / f"{PREFIX}probe-{os.getpid()}"
            try:
                make(place, kind, folder)
            except OSError as error:
                tried[kind] = Refused.by(error)
            finally:
                remove(folder)
    return tried


def make(place: Place, kind: Kind, folder: Path) -> None:
    """A group that can have this kind of limit, somewhere below the place; OSError when that cannot be."""
    if place.version == 2:
        _clear(place)
        for above in reversed(folder.relative_to(place.folder).parents):
            holder = place.folder / above
            holder.mkdir(exist_ok=True)
            if kind not in (holder / PASSED_ON).read_text().split():
                (holder / PASSED_ON).write_text(f"+{kind}")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / LIMIT_FILES[place.version, kind]).read_text()


def _clear(place: Place) -> None:
    """A delegated group passes controllers on only when its processes, all of them ours, are below it."""
    if place.home != place.folder:
        place.home.mkdir(exist_ok=True)
        for pid in (place.folder / MEMBERS).read_text().split():
            with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
                (place.home / MEMBERS).write_text(pid)


def remove(folder: Path) -> None:
    """A group and those below it; one that has processes stays, and so do those above it."""
    if folder.is_dir():
        for below in folder.iterdir():
            if below.is_dir():
                remove(below)
        with contextlib.suppress(OSError):  # processes are in it, or it is gone
            folder.rmdir()


def remove_left(name: str) -> None:
    """Whatever a run of this name left, when all of its processes have ended."""
    for place in look().values():
        if isinstance(place, Place) and name.startswith(PREFIX) and "/" not in name:
            remove(place.folder / name)
