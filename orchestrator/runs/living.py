"""The runs of this user that live now: one small file each, so that other commands find them.

A run writes its file before it makes anything else, and removes it last. What a killed run left is known by
the PID and start time of its processes, and the next command removes it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from node.contract import HostError, UsageError
from node.contract.schema import from_json, to_json
from orchestrator.boxes import cgroups
from orchestrator import nearest
from orchestrator.runs.foothold import KILLED_END_S, BoxFoothold, EngineFoothold, Foothold, Way
from orchestrator.process import Identity

ORDERLY_END_S: Final = 60.0  # the run writes its results, and its nodes stop their parts
SECRETS_PREFIX: Final = "shoal-"


@dataclass(frozen=True)
class Living:
    """What other commands need to know of a run; what is not there yet is None."""

    run: str
    directory: str
    orchestrator: Identity
    pid_namespace: str  # PIDs mean nothing elsewhere, as in another container that shares this folder
    secrets: str | None = None
    init: Identity | None = None  # of its box
    in_user_namespace: bool = False
    engine: str | None = None  # instead of a box: the URL of the Docker engine that has its containers
    up: Identity | None = None  # what is bringing these up

    def is_alive(self) -> bool:
        return self.orchestrator.is_alive()

    @property
    def foothold(self) -> Foothold | None:
        """What there is of its fleet."""
        if self.engine is not None and self.secrets is not None:
            return EngineFoothold(self.engine, self.run, Path(self.secrets).name, self.up)
        return BoxFoothold(self.init, self.in_user_namespace) if self.init is not None else None

    def node(self, name: str) -> Way:
        """The way into one of its nodes, to run something there."""
        names = node_names(Path(self.directory))
        if name not in names:
            raise UsageError(f"run {self.run} has no node {name!r}", nearest.hint(name, names))
        return self.fleet().enter(name)

    def fleet(self) -> Foothold:
        if self.foothold is None:
            raise UsageError(f"the nodes of run {self.run} are not there yet", "it is still being prepared")
        return self.foothold


class Registration:
    """A run's own file."""

    def __init__(self, file: Path, living: Living) -> None:
        self._file, self.living = file, living
        self._write()

    def add(self, **known: Any) -> None:
        """What has become known since."""
        self.living = replace(self.living, **known)
        self._write()

    def _write(self) -> None:
        part = self._file.with_suffix(".part")
        part.write_text(json.dumps(to_json(self.living)))
        part.replace(self._file)  # a reader never sees half of it


@contextmanager
def registered(run: str, directory: Path) -> Iterator[Registration]:
    """Make a run known while it lives, after removing what killed ones left."""
    sweep()
    me = Identity.of(os.getpid())
    if me is None:
        raise HostError("this process is not in /proc", "mount the /proc of its own PID namespace")
    # Runs from different folders may have begun in the same second, and are then called the same.
    file = folder() / f"{run}.{me.pid}.json"
    registration = Registration(file, Living(run, str(directory.resolve()), me, pid_namespace()))
    try:
        yield registration
    finally:
        # A box has ended with its run; an engine that was off for a while may have kept containers.
        remove_or_tell(file, replace(registration.living, init=None))


def sweep() -> list[Living]:
    """The living runs in order of name; those that were killed are removed with all that they left."""
    found = []
    for file, one in _recorded():
        if one.is_alive():
            found.append(one)
        else:
            remove_or_tell(file, one)
    return found


def choose(named: str | None) -> Living:
    """The run that was named, by ID or directory; without a name the only one that lives."""
    living = sweep()
    if named is not None:
        matching = [one for one in living if is_named(one, named)]
        if not matching:
            raise UsageError(f"no run {named!r} is living", nearest.hint(named, [one.run for one in living]))
        living = matching
    if not living:
        raise UsageError("no run is living", "start one that stays: shoal run SCENARIO --keep")
    if len(living) > 1:
        raise UsageError("several runs are living", "say which by --run:\n" + listing(living))
    return living[0]


def is_named(one: Living, named: str) -> bool:
    return named == one.run or Path(named).resolve() == Path(one.directory)


def listing(runs: list[Living]) -> str:
    """One line each, by ID and directory; either is good for --run."""
    return "\n".join(f"    {one.run}  {one.directory}" for one in runs)


def end(one: Living) -> None:
    """End a run in order, by force where it does not obey, and remove what is left."""
    # As Ctrl-C does; SIGINT itself may be ignored, where a shell started the run in its background.
    if not one.orchestrator.end(signal.SIGTERM, ORDERLY_END_S):
        one.orchestrator.end(signal.SIGKILL, KILLED_END_S)
    for file, recorded in _recorded():
        if recorded.orchestrator == one.orchestrator:
            remove(file, recorded)


def remove(file: Path, one: Living) -> None:
    """What a run left whose orchestrator has ended: fleet, control groups, secrets, and its file."""
    try:
        if one.foothold is not None:
            one.foothold.remove()
    finally:
        # Keys do not stay, whatever else does.
        if one.secrets is not None:
            cgroups.remove_left(Path(one.secrets).name)
        if one.secrets is not None and is_secret_folder(Path(one.secrets)):
            shutil.rmtree(one.secrets, ignore_errors=True)  # another command may be at it, too
    file.unlink(missing_ok=True)


def remove_or_tell(file: Path, one: Living) -> None:
    """Where its engine is off, what is left there is known until another command can remove it."""
    try:
        remove(file, one)
    except HostError as error:
        print(f"what run {one.run} has left is still there: {error}", file=sys.stderr)


def is_secret_folder(path: Path) -> bool:
    """Whether this is what we make, so that a wrong file never costs anybody's data."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    is_ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077
    return is_ours and path.name.startswith(SECRETS_PREFIX)


def node_names(directory: Path) -> list[str]:
    """The nodes of a run's plan."""
    return [node["name"] for node in json.loads((directory / "plan.json").read_text())["nodes"]]


def folder() -> Path:
    """The folder of this user's files, that nobody else can enter."""
    place = Path(os.environ.get("XDG_RUNTIME_DIR") or "/nowhere")
    # sudo may leave us another user's folder, where ours would be in that user's way.
    is_ours = place.is_dir() and place.stat().st_uid == os.geteuid() and os.access(place, os.W_OK)
    path = place / "shoal" if is_ours else Path(tempfile.gettempdir(), f"shoal-living-{os.geteuid()}")
    path.mkdir(mode=0o700, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise HostError(f"{path} is not a folder of this user alone", f"remove it, or: chmod 700 {path}")
    return path


def pid_namespace() -> str:
    return os.readlink("/proc/self/ns/pid")


def _recorded() -> list[tuple[Path, Living]]:
    """Every run that is recorded and can be judged from here."""
    found = []
    for file in sorted(folder().glob("*.json")):
        try:
            one = from_json(Living, json.loads(file.read_text()), file.name)
        except FileNotFoundError:
            continue  # it ended just now
        except (json.JSONDecodeError, UsageError):
            continue  # of another version of Shoal's
        if one.pid_namespace == pid_namespace():
            found.append((file, one))
    return found
