"""What the parts of a run's nodes say: read from their folders while it lives, else from its directory."""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from node.contract import ExitCode, UsageError
from orchestrator.runs import finished, living
from orchestrator import nearest

POLL_S: Final = 0.2


class Tail:
    """A log that may still grow, in whole lines."""

    def __init__(self, label: str, path: Path) -> None:
        self.label = label
        self._file = path.open("rb")  # it stays readable when the folder is removed
        self._rest = b""

    def lines(self, is_last: bool) -> list[str]:
        """What is new; an unfinished line comes with its end, or at the end of all."""
        *whole, self._rest = (self._rest + self._file.read()).split(b"\n")
        if is_last and self._rest:
            whole.append(self._rest)
        return [line.decode(errors="replace") for line in whole]

    def close(self) -> None:
        self._file.close()


class Logs:
    """The logs of some nodes, also those that begin later."""

    def __init__(self, find: Callable[[], dict[str, Path]], say: Callable[[str], None]) -> None:
        self._find, self._say = find, say
        self._tails: dict[str, Tail] = {}

    def show(self, is_last: bool) -> None:
        """All that is new."""
        for label, path in self._find().items():
            if label not in self._tails:
                try:
                    self._tails[label] = Tail(label, path)
                except FileNotFoundError:
                    continue  # the run has ended in between
        for tail in self._tails.values():
            for line in tail.lines(is_last):
                self._say(f"{tail.label} | {line}")

    def close(self) -> None:
        for tail in self._tails.values():
            tail.close()


def show(options: argparse.Namespace) -> int:
    """Print the logs of one node or of all; with -f until the run ends."""
    directory, one = chosen(options.run)
    names = living.node_names(directory)
    if options.node is not None and options.node not in names:
        raise UsageError(f"the run has no node {options.node!r}", nearest.hint(options.node, names))
    secrets = Path(one.secrets) if one and one.secrets else None
    logs = Logs(lambda: found(directory / "logs", secrets, names, options.node), say)
    pause = threading.Event()
    try:
        while True:
            # Asked before reading, so that the last words of a run that ends now are read, too.
            is_last = not options.follow or one is None or not one.is_alive()
            logs.show(is_last)
            if is_last:
                return ExitCode.HELD
            pause.wait(POLL_S)
    finally:
        logs.close()


def chosen(named: str | None) -> tuple[Path, living.Living | None]:
    """A run's directory, and the run where it lives."""
    if named is not None and not any(living.is_named(one, named) for one in living.sweep()):
        return finished.find(named), None
    try:
        one = living.choose(named)
    except UsageError as error:
        raise UsageError(
            error.message, f"{error.hint}\n  or one that has finished: --run DIRECTORY"
        ) from None
    return Path(one.directory), one


def found(logs: Path, secrets: Path | None, names: list[str], node: str | None) -> dict[str, Path]:
    """The files by what to call them: those of the nodes as NODE/PART, those of the fleet as they are."""
    files = {} if node else {file.stem: file for file in sorted(logs.glob("*.log"))}
    for name in [node] if node else names:
        kept = {file.stem: file for file in (logs / name).glob("*.log")}
        live = {file.stem: file for file in (secrets / name).glob("*.log")} if secrets else {}
        files |= {f"{name}/{part}": file for part, file in sorted({**kept, **live}.items())}
    return files


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
