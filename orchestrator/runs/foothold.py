"""What another command holds of a living fleet: the ways into its nodes, and its end by force."""

from __future__ import annotations

import secrets
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL
from typing import TYPE_CHECKING, Final, NoReturn, Protocol

from node.contract import HostError, ShoalError, UsageError
from orchestrator import process
from orchestrator.boxes.box import Box, Node
from orchestrator.process import Identity, Process, Stream

if TYPE_CHECKING:
    from orchestrator.containers.containers import Containers

AGENT: Final = "agent"  # of a node's containers the one with all the tools, and the right to use them
KILLED_END_S: Final = 10.0
SIGNAL_S: Final = 30.0
NO_CONTEXT: Final = {"DOCKER_CONTEXT": ""}  # the engine is the run's, whatever the user has chosen since
# Its PID is left where a second `docker exec` finds it: the first one passes no signals on.
KNOWN: Final = 'echo $$ > "$0" && exec "$@"'
TOLD: Final = 'kill -s "$1" "$(cat "$0")"'


class Way(Protocol):
    """A way into a node."""

    def become(self, argv: Sequence[str]) -> NoReturn:
        """Replace this process by a command there, on our streams and with its exit status."""

    def start(
        self, argv: Sequence[str], *, stdin: Stream = ..., stdout: Stream = ..., stderr: Stream = ...
    ) -> Process:
        """Start a command there."""


class Foothold(Protocol):
    """One kind of fleet, as it is found by what its run has recorded."""

    def is_alive(self) -> bool: ...

    def enter(self, node: str) -> Way:
        """UsageError when there is nothing to enter."""

    def program(self, file: Path) -> list[str]:
        """The words that run one of our own files there, which needs the standard library alone."""

    def remove(self) -> None:
        """All of it, by force; what is gone already is no error."""


@dataclass(frozen=True)
class BoxFoothold:
    """The first process of a box, with which everything in it ends."""

    init: Identity
    in_user_namespace: bool

    def is_alive(self) -> bool:
        return self.init.is_alive()

    def enter(self, node: str) -> Way:
        if not self.is_alive():
            raise ended()
        return Node(Box(self.init, self.in_user_namespace), node, {})

    def program(self, file: Path) -> list[str]:
        return [sys.executable, "-I", "-S", str(file)]

    def remove(self) -> None:
        if not self.init.end(signal.SIGKILL, KILLED_END_S):
            raise ShoalError(f"the box, process {self.init.pid}, does not die of SIGKILL")


@dataclass(frozen=True)
class EngineFoothold:
    """Containers with a label, on one Docker engine."""

    url: str
    run: str
    fleet: str
    up: Identity | None = None  # Compose, while it brings the fleet up: it does not end with its caller

    def is_alive(self) -> bool:
        with self._containers() as mine:
            return any(one.status == "running" for one in mine.all())

    def enter(self, node: str) -> Way:
        with self._containers() as mine:
            found = [one for one in mine.all() if (one.node, one.part) == (node, AGENT)]
        if not found:
            raise UsageError(f"the nodes of run {self.run} are not there yet", "it is still being prepared")
        if found[0].status != "running":
            raise ended()
        return ContainerWay(self.url, found[0].id)

    def program(self, file: Path) -> list[str]:
        return ["python3", "-I", "-S", "-c", file.read_text()]  # the image has only what nodes need

    def remove(self) -> None:
        if self.up is not None:
            process.end_family(self.up, KILLED_END_S)
        from orchestrator.containers import container_limits, containers, dockerd

        with dockerd.connected(self.url) as client:
            container_limits.remove(containers.Containers(client, self.run, self.fleet), client)

    @contextmanager
    def _containers(self) -> Iterator[Containers]:
        from orchestrator.containers import containers, dockerd

        with dockerd.connected(self.url) as client:
            yield containers.Containers(client, self.run, self.fleet)


@dataclass(frozen=True)
class ContainerWay:
    """Commands in a container, by Docker's own program, which knows about terminals."""

    url: str
    container: str

    def become(self, argv: Sequence[str]) -> NoReturn:
        if sys.stdin.isatty() and sys.stdout.isatty():
            process.become([*self._entry("--interactive", "--tty"), *argv], env=NO_CONTEXT)
        sys.exit(self._supervise(argv))

    def start(
        self,
        argv: Sequence[str],
        *,
        stdin: Stream = DEVNULL,
        stdout: Stream = DEVNULL,
        stderr: Stream = DEVNULL,
    ) -> Process:
        entry = self._entry("--interactive")
        return process.start([*entry, *argv], stdin=stdin, stdout=stdout, stderr=stderr, env=NO_CONTEXT)

    def _supervise(self, argv: Sequence[str]) -> int:
        """Without a terminal nobody else passes Ctrl-C on to the command; its exit status."""
        pid_file = f"/tmp/exec-{secrets.token_hex(4)}"

        def pass_on(number: int, _: object) -> None:
            name = signal.Signals(number).name.removeprefix("SIG")
            tell = [*self._entry(), "sh", "-c", TOLD, pid_file, name]
            process.run(tell, timeout_s=SIGNAL_S, check=False, env=NO_CONTEXT)  # it may have ended just now

        before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            known = ["sh", "-c", KNOWN, pid_file, *argv]
            return self.start(known, stdin=None, stdout=None, stderr=None).wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _entry(self, *options: str) -> list[str]:
        if shutil.which("docker") is None:
            raise HostError(
                "There is no program called docker here, which enters containers.",
                "install Docker's command line: sudo apt-get install docker-cli, or docker.io",
            )
        return ["docker", "--host", self.url, "exec", *options, self.container]


def ended() -> UsageError:
    return UsageError("the nodes of this run have ended", "its logs: shoal logs")
