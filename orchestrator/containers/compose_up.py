"""Compose at work: it brings a fleet up, and is ended with whoever asked for it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from node.contract import HostError
from orchestrator import process
from orchestrator.containers import dockerd
from orchestrator.process import Identity

UP_S: Final = 600.0
LOOK_S: Final = 2.0
END_S: Final = 10.0
SAID_LINES: Final = 6


def bring_up(
    compose: Sequence[str],
    env: Mapping[str, str],
    file: Path,
    log: Path,
    known: Callable[[Identity | None], None],
    look: Callable[[], None],
) -> None:
    """`up` to its end; `known` is told of the process while it lives, and `look` called now and then."""
    argv = [*compose, "--file", str(file), "--progress", "plain", "--profile", "observability"]
    deadline = time.monotonic() + UP_S
    with log.open("wb") as output:
        up = process.start(
            [*argv, "up", "--detach", "--no-build"], env=env, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        known(Identity.of(up.pid))
        while not has_ended(up):
            look()
            if time.monotonic() > deadline:
                raise HostError(f"the containers do not run after {UP_S:g} s", f"see {log}")
    finally:
        if still := Identity.of(up.pid):
            process.end_family(still, END_S)
        up.wait()
        known(None)
    if up.returncode != 0:
        raise dockerd.complaint(last_words(log.read_text(errors="replace")), "Docker Compose refused")


def has_ended(up: process.Process) -> bool:
    try:
        up.wait(LOOK_S)
    except subprocess.TimeoutExpired:
        return False
    return True


def last_words(said: str) -> str:
    """The end of it, without how far each container had come."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(("Container ", "Network "))]
    return "\n".join((told or lines)[-SAID_LINES:])
