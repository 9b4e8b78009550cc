"""Starts the parts of a node, tells what becomes of them, and ends them in order."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from node.cgroup import Group, inside
from node.contract import ExitCode, ShoalError, UsageError
from node.contract.plan import Role
from node.contract.settings import EVENTS_FILE, NodeSettings
from node.events import Events
from node.fork import Signals, exit_status, fork
from node.ipfs.config import Peer, Settings
from node.ipfs.daemon import STOP_S, Daemon
from node.ipfs.engine import EMBEDDED, KUBO, Engine
from node.process import ProcessId

ENDING: Final = {signal.SIGTERM, signal.SIGINT}
PART_STOP_S: Final = 10.0
KILL_S: Final = 5.0
LINKS_S: Final = 60.0
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
        self._status = None
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


def daemon_of(settings: NodeSettings) -> Daemon:
    """The IPFS daemon that a node's settings describe."""
    capabilities = KUBO if settings.engine == "kubo" else EMBEDDED
    engine = Engine(settings.engine, Path(settings.engine_path), "", capabilities)
    peers = tuple(Peer(neighbour.peer_id, neighbour.address) for neighbour in settings.neighbours)
    # A swarm.key as daemons want it has its digits in the last line.
    lines = _text(settings.swarm_key_file, "swarm key").split() or [""]
    wanted = Settings(data_address=settings.data_address, transport=settings.transport, peers=peers)
    return Daemon(engine, Path(settings.folder), wanted, lines[-1])


def parts_of(settings: NodeSettings, names: Sequence[str]) -> list[Part]:
    """The parts of these names, in the order in which they start."""
    known = ("agent", "ipfs", *settings.roles)
    for name in names:
        if name not in known:
            raise UsageError(
                f"node {settings.name} has no part {name!r}",
                f"it has {', '.join(known)}; its settings say so",
            )
    events = events_of(settings)
    parts: list[Part] = []
    if "agent" in names:
        parts.append(Agent(settings, events))
    if "ipfs" in names:
        parts.append(Ipfs(daemon_of(settings)))
    parts += [
        Forked(role, partial(_run_role, settings, role), events, is_role=True)
        for role in settings.roles
        if role in names
    ]
    return parts


def events_of(settings: NodeSettings) -> Events:
    return Events(Path(settings.folder) / EVENTS_FILE, settings.name)


def supervise(parts: Sequence[Part], events: Events, groups: Sequence[Group] = ()) -> int:
    """Run parts until SIGTERM, or until all have ended; 0, or the first failure's status.

    All but the agent belong to the control groups, which limit them.
    """
    return _Supervisor(parts, events, groups).run()


class _Supervisor:
    def __init__(self, parts: Sequence[Part], events: Events, groups: Sequence[Group]) -> None:
        self._groups = groups
        self._waiting = list(parts)
        self._running: list[Part] = []
        self._events = events
        self._failure = 0

    def run(self) -> int:
        with Signals(*ENDING, signal.SIGCHLD) as signals:
            try:
                came: set[int] = set()
                while self._waiting and not came & ENDING:
                    self._start(self._waiting.pop(0), signals)
                    came |= signals.wait(0)
                while self._running and not came & ENDING:
                    self._notice_ends(restarts=True)
                    if self._running:
                        came |= signals.wait(None)
            finally:
                self._notice_ends(restarts=False)
                # Roles before the daemon that they use, and last whoever tells of it all.
                for part in sorted(self._running, key=_ending_rank):
                    self._told_end(part, part.stop(signals), expected=True)
        return self._failure

    def _start(self, part: Part, signals: Signals | None = None) -> None:
        """Start a part; with signals also wait until those that come after it may."""
        try:
            with inside(() if part.name == "agent" else self._groups):
                started = part.start()
        except ShoalError as error:
            self._events.write("failed", part=part.name, message=error.message, hint=error.hint)
            self._failure = self._failure or int(error.exit_code)
            self._waiting.clear()  # they would wait for it in vain
            return
        self._running.append(part)
        self._events.write("part_started", part=part.name, pid=started.pid, start_ticks=started.start_ticks)
        if signals is not None and not part.wait_ready(signals, LINKS_S):
            self._waiting.clear()  # a role on links that are not as told would spoil what it measures
            part.restarts_left = 0

    def _notice_ends(self, *, restarts: bool) -> None:
        for part in list(self._running):
            status = part.poll()
            if status is not None:
                self._running.remove(part)
                again = restarts and part.restarts_left > 0 and (status < 0 or status == ExitCode.BUG)
                failure = self._failure
                self._told_end(part, status, expected=part.is_role and status == 0)
                if again:
                    part.restarts_left -= 1
                    self._failure = failure
                    self._start(part)

    def _told_end(self, part: Part, status: int, *, expected: bool) -> None:
        if not expected:
            self._failure = self._failure or (status if status > 0 else int(ExitCode.BUG))
            if words := part.last_words():
                message = f"{part.name} ended with {status}; its log ends:\n{words}"
                self._events.write("failed", part=part.name, message=message, hint=f"see {part.name}.log")
        self._events.write("part_ended", part=part.name, status=status, expected=expected)


def _ending_rank(part: Part) -> int:
    return 0 if part.is_role else 1 if part.name == "ipfs" else 2


def _run_role(settings: NodeSettings, role: Role) -> int:
    # The parts import what is theirs alone, after the fork.
    from node import role as roles

    return roles.run(settings, role)


def _text(path: str, what: str) -> str:
    try:
        return Path(path).read_text()
    except OSError as error:
        raise UsageError(f"cannot read the {what} {path}: {error.strerror}") from error
