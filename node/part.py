"""The parts of a node: processes that the supervisor starts, asks after and ends."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Final

from node.contract import ShoalError
from node.contract.settings import NodeSettings
from node.events import Events
from node.fork import Signals, exit_status, fork
from node.ipfs.daemon import STOP_S, Daemon
from node.process import ProcessId

PART_STOP_S: Final = 10.0
KILL_S: Final = 5.0
AGENT_RESTARTS: Final = 5
READY: Final = b"+"


class Part(ABC):
    """One process of a node."""

    name: str
    is_role = False  # a role may end by itself, when its work is done
    id: ProcessId | None = None
    restarts_left = 0

    @abstractmethod
    def start(self) -> ProcessId:
        """Start it; ShoalError when that cannot be."""

    @abstractmethod
    def poll(self) -> int | None:
        """Its exit status, negative for a signal; nothing while it runs."""

    @abstractmethod
    def stop(self, signals: Signals, /) -> int:
        """End it, by force at last; its exit status."""

    def kill(self) -> int:
        """End it at once; its exit status, whatever it is doing."""
        assert self.id is not None
        with contextlib.suppress(ProcessLookupError):  # it has ended, and was reaped
            descriptor = os.pidfd_open(self.id.pid)
            try:
                self.id.signal(signal.SIGKILL)
                select.select([descriptor], [], [], KILL_S)
            finally:
                os.close(descriptor)
        if (status := self.poll()) is None:
            raise ShoalError(f"part {self.name}, process {self.id.pid}, does not die of SIGKILL")
        return status

    def last_words(self) -> str:
        """What it said before it ended, where it does not tell events itself."""
        return ""

    def wait_ready(self, _: Signals, _timeout_s: float, /) -> bool:
        """Whether those that come after it may start; it is asked once, after the first start."""
        return True


class Forked(Part):
    """A part that is our own code in a forked child."""

    def __init__(self, name: str, run: Callable[[], int], events: Events, *, is_role: bool = False) -> None:
        self.name = name
        self.is_role = is_role
        self._run = run
        self._events = events
        self._status: int | None = None

    def start(self) -> ProcessId:
        self._status = None
        self.id = fork(self._tell_failure, log=self._log)
        return self.id

    def poll(self) -> int | None:
        if self._status is None and self.id is not None:
            self._status = exit_status(self.id.pid)
        return self._status

    def stop(self, signals: Signals, /) -> int:
        assert self.id is not None
        for number, patience_s in ((signal.SIGTERM, PART_STOP_S), (signal.SIGKILL, KILL_S)):
            deadline = time.monotonic() + patience_s
            self.id.signal(number)
            while (status := self.poll()) is None and (left_s := deadline - time.monotonic()) > 0:
                signals.wait(left_s)
            if status is not None:
                return status
        raise ShoalError(f"part {self.name}, process {self.id.pid}, does not die of SIGKILL")

    @property
    def _log(self) -> Path:
        return self._events.path.with_name(f"{self.name}.log")

    def _tell_failure(self) -> int:
        """In the child: whatever ends it is told as an event before."""
        try:
            return self._run()
        except ShoalError as error:
            self._events.write("failed", part=self.name, message=error.message, hint=error.hint)
            raise
        finally:
            error_now = sys.exc_info()[1]
            if error_now is not None and not isinstance(error_now, ShoalError):
                message = f"{type(error_now).__name__}: {error_now}"
                self._events.write("failed", part=self.name, message=message, hint=f"see {self._log.name}")


class Agent(Forked):
    """The agent: others wait until the node's links are in force, and it is started again when it dies."""

    def __init__(self, settings: NodeSettings, events: Events) -> None:
        super().__init__("agent", self._run_agent, events)
        self._settings = settings
        self._ready = self._tells = -1
        self.restarts_left = AGENT_RESTARTS

    def start(self) -> ProcessId:
        self._forget()
        self._ready, self._tells = os.pipe()
        try:
            return super().start()
        finally:
            os.close(self._tells)

    def wait_ready(self, signals: Signals, timeout_s: float, /) -> bool:
        """Whether the links are in force; False when the agent ended, was too slow, or all is to end."""
        if self._settings.links is None:  # nothing to wait for
            return True
        came = select.select([self._ready, signals.fileno()], [], [], timeout_s)[0]
        return self._ready in came and os.read(self._ready, 1) == READY

    def _forget(self) -> None:
        if self._ready >= 0:
            os.close(self._ready)
        self._ready = -1

    def _run_agent(self) -> int:
        from node import agent  # the parts import what is theirs alone, after the fork

        os.close(self._ready)

        def ready() -> None:
            with contextlib.suppress(BrokenPipeError):  # nobody waits
                os.write(self._tells, READY)
            os.close(self._tells)

        return agent.run(self._settings, ready)


class Ipfs(Part):
    """The node's IPFS daemon."""

    name = "ipfs"

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    def start(self) -> ProcessId:
        self._daemon.start()
        assert self._daemon.process is not None
        self.id = self._daemon.process.id
        return self.id

    def poll(self) -> int | None:
        return self._daemon.process.exit_status if self._daemon.process is not None else None

    def stop(self, _: Signals, /) -> int:
        return self._daemon.stop(STOP_S)

    def last_words(self) -> str:
        return self._daemon.last_lines()
