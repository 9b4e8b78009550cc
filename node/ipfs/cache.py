"""The project's cache folder, and the three habits that make it safe to share and to interrupt.

Also used before the project's Python exists: standard library only, any Python from 3.8 on.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from node.contract import ENV_CACHE, ExitCode, HostError, ShoalError

TOP = Path(__file__).resolve().parents[2]


def folder() -> Path:
    """.cache/ at the top of the checkout, or where SHOAL_CACHE says; made when missing."""
    path = Path(os.environ.get(ENV_CACHE) or TOP / ".cache").absolute()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise HostError(
            f"cannot make the cache folder {path}: {err.strerror}",
            f"set {ENV_CACHE} to a folder that you may write to",
        ) from err
    return path


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path`; says so when somebody else holds it, and waits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for the process that holds {path}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield  # the kernel releases the lock with the descriptor, also after a kill


def put_in_place(made: Path, final: Path) -> None:
    """Flush the complete file `made` and give it its name: whoever sees `final` sees all of it."""
    with open(made, "rb") as file:
        os.fsync(file.fileno())
    os.replace(made, final)
    descriptor = os.open(final.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def keep_newest(parent: Path, count: int) -> None:
    """Remove all but the `count` folders of `parent` that were used last."""
    folders = sorted((p for p in parent.iterdir() if p.is_dir()), key=lambda p: p.stat().st_mtime)
    for path in folders[:-count]:
        shutil.rmtree(path, ignore_errors=True)


def say(text: str) -> None:
    """Progress goes to standard error: standard output carries the result alone."""
    print(text, file=sys.stderr, flush=True)


def answer(command: str, find: Callable[[], object]) -> int:
    """Print what a command finds, or its complaint; the exit status."""
    try:
        print(find())
    except ShoalError as err:
        say(f"{command}: {err}")
        return int(err.exit_code)
    except KeyboardInterrupt:
        return 130
    return int(ExitCode.HELD)


class Progress:
    """One line that is rewritten on a terminal; elsewhere one line every `every` steps."""

    def __init__(self, every: int) -> None:
        self._every = every
        self._terminal = sys.stderr.isatty()
        self._step = 0

    def show(self, text: str) -> None:
        self._step += 1
        if self._terminal:
            sys.stderr.write(f"\r\033[K{text}"[: shutil.get_terminal_size().columns + 3])
            sys.stderr.flush()
        elif self._step % self._every == 1 or self._every == 1:
            say(text)

    def done(self) -> None:
        if self._terminal and self._step:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()
