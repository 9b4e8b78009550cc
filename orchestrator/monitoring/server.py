"""A program that answers HTTP on loopback for as long as it is wanted, and not a moment longer."""

from __future__ import annotations

import http.client
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from node.contract import HostError, ShoalError
from orchestrator import process

LOOPBACK: Final = "127.0.0.1"
READY_S: Final = 60.0
END_S: Final = 10.0
PROBE_S: Final = 0.1
ANSWER_S: Final = 30.0
SHOWN_LINES: Final = 5
# A parent's death ends it, however we die; process.start gives it a session of its own.
WITH_US: Final = ("setpriv", "--pdeathsig", "KILL", "--")


class Server:
    """One that is up; made by `started`."""

    def __init__(self, name: str, port: int) -> None:
        self.name = name
        self.url = f"http://{LOOPBACK}:{port}"

    def get(self, path: str) -> bytes:
        """The body of an answer, also of one that is a refusal: that has its reason in it."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=ANSWER_S) as reply:
                return bytes(reply.read())
        except urllib.error.HTTPError as refusal:
            return refusal.read()
        except (OSError, http.client.HTTPException) as error:
            raise ShoalError(f"{self.name} at {self.url} does not answer: {error}") from error


@contextmanager
def started(
    name: str,
    argv: Sequence[str],
    port: int,
    ready_path: str,
    log: Path,
    env: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """Start it, wait until it is ready, and end it in order."""
    server = Server(name, port)
    with log.open("wb") as said:
        running = process.start([*WITH_US, *argv], stdout=said, stderr=said, env=env)
    try:
        wait_ready(server, running, ready_path, log)
        yield server
    finally:
        running.terminate()
        try:
            running.wait(END_S)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


def wait_ready(
    server: Server, running: process.Process, path: str, log: Path, timeout_s: float = READY_S
) -> None:
    """Until it answers 200; what it said last stands in the complaint."""
    deadline = time.monotonic() + timeout_s
    while not is_ready(server.url + path):
        status = running.poll()
        if status is not None or time.monotonic() >= deadline:
            last = "\n  ".join(log.read_text(errors="replace").splitlines()[-SHOWN_LINES:])
            what = f"ended with {status}" if status is not None else f"was not ready within {timeout_s:g} s"
            raise HostError(
                f"{server.name}, started on {server.url}, {what}. It said last:\n  {last}",
                "run it again, in case that another program has just taken its port",
            )
        time.sleep(PROBE_S)


def is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=PROBE_S * 10) as reply:
            return bool(reply.status == http.client.OK)
    except (OSError, http.client.HTTPException):
        return False


def free_port() -> int:
    """One that nobody listens on at this moment."""
    with socket.create_server((LOOPBACK, 0)) as probe:
        return int(probe.getsockname()[1])
