"""Members: programs that are told and tell in lines of JSON, and the one queue of what they say."""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

from node.contract import ExitCode, HostError, ShoalError, UsageError
from orchestrator.process import Process, Stream

LOG_TAIL_LINES = 5

Event = dict[str, Any]


class Starter(Protocol):
    """Where a member can be started: a node of a box, or a fake in a test."""

    def start(
        self,
        argv: Sequence[str],
        *,
        stdin: Stream,
        stdout: Stream,
        stderr: Stream,
        env: Mapping[str, str] | None,
    ) -> Process:
        """Start a program there."""


class MemberFailedError(ShoalError):
    """A member said that it failed, ended early, or was not heard of in time."""

    exit_code = ExitCode.VIOLATED


class Members:
    """Programs in their nodes; `with` ends them all."""

    def __init__(self) -> None:
        self._processes: dict[str, Process] = {}
        self._logs: dict[str, Path] = {}
        self._readers: list[threading.Thread] = []
        self._said: queue.Queue[tuple[str, Event | None]] = queue.Queue()

    def start(
        self, name: str, place: Starter, argv: Sequence[str], env: Mapping[str, str], log: Path
    ) -> None:
        """Start one; what it writes to standard error goes to its log."""
        with log.open("wb") as stderr:
            process = place.start(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, env=env)
        assert process.stdout is not None
        self._processes[name] = process
        self._logs[name] = log
        reader = threading.Thread(target=self._read, args=(name, process.stdout), name=f"reader-{name}")
        reader.start()
        self._readers.append(reader)

    def tell(self, name: str, order: Mapping[str, object]) -> None:
        """Send one order; a member that has ended is noticed when it is waited for."""
        stdin = self._processes[name].stdin
        assert stdin is not None
        with contextlib.suppress(BrokenPipeError):
            stdin.write(json.dumps(order).encode() + b"\n")
            stdin.flush()

    def wait_events(self, kind: str, timeout_s: float) -> dict[str, list[Event]]:
        """All that is said until each member has said `kind`; in order, by member."""
        said: dict[str, list[Event]] = {name: [] for name in self._processes}
        waiting = set(said)
        deadline_s = time.monotonic() + timeout_s
        while waiting:
            try:
                name, event = self._said.get(timeout=max(0.0, deadline_s - time.monotonic()))
            except queue.Empty:
                names = ", ".join(sorted(waiting))
                raise MemberFailedError(f"No `{kind}` from {names} within {timeout_s:g} s.") from None
            if event is None or event.get("event") == "failed":
                raise self._failure(name, event)
            said[name].append(event)
            if event.get("event") == kind:
                waiting.discard(name)
        return said

    def leave(self, timeout_s: float) -> None:
        """End all inputs, upon which each member stops its work and exits with 0."""
        for process in self._processes.values():
            _close(process.stdin)
        deadline_s = time.monotonic() + timeout_s
        for name, process in self._processes.items():
            try:
                status = process.wait(max(0.0, deadline_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                raise MemberFailedError(f"{name} did not end within {timeout_s:g} s.") from None
            if status != 0:
                raise MemberFailedError(f"{name} ended with {status}.", self._log_tail(name))

    def __enter__(self) -> Members:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes.values():
            _close(process.stdin)
            process.kill()
            process.wait()
        for reader in self._readers:
            reader.join()

    def _read(self, name: str, stdout: IO[bytes]) -> None:
        """Hand over each line as an event, and the end as None."""
        with stdout:
            for line in stdout:
                try:
                    event = json.loads(line)
                except ValueError:
                    event = None
                if not isinstance(event, dict):
                    text = line.decode(errors="replace").strip()[:200]
                    event = {"event": "failed", "message": f"said something that is no event: {text}"}
                self._said.put((name, event))
        self._said.put((name, None))

    def _failure(self, name: str, event: Event | None) -> ShoalError:
        """The complaint about a failed member; its exit status says whose fault it was."""
        process = self._processes[name]
        _close(process.stdin)
        try:
            status: int | None = process.wait(5.0)
        except subprocess.TimeoutExpired:
            status = None
        if event is None:
            # A failure that a member knows has its own event; without one the member itself is broken.
            return ShoalError(f"{name} ended early with {status}.", self._log_tail(name))
        kinds: dict[int | None, type[ShoalError]] = {ExitCode.HOST: HostError, ExitCode.USAGE: UsageError}
        kind = kinds.get(status, MemberFailedError)
        return kind(f"{name}: {event.get('message')}", str(event.get("hint") or self._log_tail(name)))

    def _log_tail(self, name: str) -> str:
        lines = self._logs[name].read_text(errors="replace").splitlines()
        return "\n  ".join(lines[-LOG_TAIL_LINES:])


def _close(stdin: IO[bytes] | None) -> None:
    """Closing flushes, and the other end may be gone."""
    assert stdin is not None
    with contextlib.suppress(BrokenPipeError):
        stdin.close()
