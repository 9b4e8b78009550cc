"""Starts the parts of a node, tells what becomes of them, and ends them in order."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final

from node.cgroup import Group, inside
from node.contract import ExitCode, ShoalError, UsageError
from node.contract.plan import Role
from node.contract.settings import EVENTS_FILE, NodeSettings
from node.events import Events
from node.fork import Signals
from node.ipfs.config import Peer, Settings
from node.ipfs.daemon import Daemon
from node.ipfs.engine import EMBEDDED, KUBO, Engine
from node.orders import Orders, Verb
from node.part import Agent, Forked, Ipfs, Part

ENDING: Final = {signal.SIGTERM, signal.SIGINT}
LINKS_S: Final = 60.0
WHOLE: Final = "node"  # in orders, for all parts
SIGNALS: Final = {"pause": signal.SIGSTOP, "resume": signal.SIGCONT}


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


def supervise(
    parts: Sequence[Part], events: Events, groups: Sequence[Group] = (), orders: Path | None = None
) -> int:
    """Run parts until SIGTERM, or until all have ended; 0, or the first failure's status.

    All but the agent belong to the control groups, which limit them. With `orders` there is a socket of that
    name, where somebody may kill, pause and start parts; what he has killed is waited for.
    """
    return _Supervisor(parts, events, groups, orders).run()


class _Supervisor:
    def __init__(
        self, parts: Sequence[Part], events: Events, groups: Sequence[Group], orders: Path | None
    ) -> None:
        self._groups = groups
        self._parts = {part.name: part for part in parts}
        self._waiting = list(parts)
        self._running: list[Part] = []
        self._killed: list[Part] = []  # by order, and not started since
        self._orders = orders
        self._events = events
        self._failure = 0

    def run(self) -> int:
        with Signals(*ENDING, signal.SIGCHLD) as signals, ExitStack() as open_things:
            orders = open_things.enter_context(Orders(self._orders)) if self._orders is not None else None
            try:
                came: set[int] = set()
                while self._waiting and not came & ENDING:
                    self._start(self._waiting.pop(0), signals)
                    came |= signals.wait(0)
                while (self._running or self._killed) and not came & ENDING:
                    self._notice_ends(restarts=True)
                    if self._running or self._killed:
                        came |= self._wait(signals, orders)
            finally:
                self._notice_ends(restarts=False)
                for part in self._running:
                    _signal(part, signal.SIGCONT)  # one that is paused hears no SIGTERM
                # Roles before the daemon that they use, and last whoever tells of it all.
                for part in sorted(self._running, key=_ending_rank):
                    self._told_end(part, part.stop(signals), expected=True)
        return self._failure

    def _wait(self, signals: Signals, orders: Orders | None) -> set[int]:
        """Until a signal or an order has come; the order is obeyed."""
        if orders is None:
            return signals.wait(None)
        if orders in select.select([signals, orders], [], [])[0]:
            orders.serve(self._obey)
        return signals.wait(0)

    def _obey(self, verb: Verb, name: str) -> str:
        """Do it to a part, or to all of them: `node`; what has become of it."""
        if name != WHOLE and name not in self._parts:
            raise UsageError(f"there is no part {name!r}, only {', '.join(self._parts)}")
        if (verb, name) == ("kill", WHOLE):
            os.kill(os.getpid(), signal.SIGKILL)  # all parts end with their parent, and nobody tells of it
        chosen = list(self._parts.values()) if name == WHOLE else [self._parts[name]]
        for part in chosen:
            if verb == "kill" and part in self._running:
                self._running.remove(part)
                self._killed.append(part)
                self._told_end(part, part.kill(), expected=True)
            elif verb == "start" and part in self._killed:
                self._killed.remove(part)
                self._start(part)
                if part not in self._running:
                    raise ShoalError(f"{part.name} could not be started; see its log")
            elif verb in SIGNALS and part in self._running:
                _signal(part, SIGNALS[verb])
        states = {self._state(part) for part in chosen}
        return next(state for state in ("running", "paused", "ended") if state in states)

    def _state(self, part: Part) -> str:
        if part not in self._running or part.id is None:
            return "ended"
        return "paused" if part.id.is_stopped() else "running"

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


def _signal(part: Part, number: signal.Signals) -> None:
    if part.id is not None:
        part.id.signal(number)


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
