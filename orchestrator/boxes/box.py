"""The box: one set of namespaces that holds a whole fleet, and ends with the orchestrator.

python -m orchestrator.boxes.box run -- COMMAND...    run a command in a fresh box
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, NoReturn

from node.contract import ENV_BOX, ExitCode, HostError, ShoalError, UsageError
from orchestrator import host, process
from orchestrator.boxes import network
from orchestrator.process import Completed, Identity, Process, Stream

OPEN_TIMEOUT_S = 20.0
CLOSE_TIMEOUT_S = 10.0
NETWORK_TIMEOUT_S = 60.0


class Place:
    """Somewhere that commands can run: the box itself, or a node in it."""

    def __init__(self, box: Box, prefix: Sequence[str]) -> None:
        self._box = box
        self._prefix = tuple(prefix)

    def start(
        self,
        argv: Sequence[str],
        *,
        stdin: Stream = subprocess.DEVNULL,
        stdout: Stream = subprocess.DEVNULL,
        stderr: Stream = subprocess.DEVNULL,
        env: Mapping[str, str] | None = None,
    ) -> Process:
        """Start a command here; it inherits none of our streams unless asked (None)."""
        entry = self._box.entry()
        started = process.start(
            [*entry, *self._prefix, *argv],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env={ENV_BOX: "1", **(env or {})},
            is_relayed=bool(entry),
        )
        self._box.started.append(started)
        return started

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float,
        env: Mapping[str, str] | None = None,
        input_text: str = "",
        check: bool = True,
    ) -> Completed:
        """Run a command here to its end."""
        entry = self._box.entry()
        return process.run(
            [*entry, *self._prefix, *argv],
            timeout_s=timeout_s,
            env={ENV_BOX: "1", **(env or {})},
            input_text=input_text,
            is_relayed=bool(entry),
            check=check,
            shown=argv,
        )

    def become(self, argv: Sequence[str]) -> NoReturn:
        """Replace this process by a command here, on our terminal; the exit status is the command's."""
        # Ctrl-C is for the command alone: a relay that ends of it would take the command with it.
        for number in (signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)
        here = [*self._box.entry(), *self._prefix, "env", "--default-signal=INT,QUIT", "--", *argv]
        process.become(here, env={ENV_BOX: "1"})


class Node(Place):
    """A network namespace of the box."""

    def __init__(self, box: Box, name: str, addresses: Mapping[str, str]) -> None:
        super().__init__(box, ["ip", "netns", "exec", name])
        self.name = name
        self.addresses = dict(addresses)

    def address(self, bridge: str) -> str:
        """This node's address on a bridge, without the prefix length."""
        return self.addresses[bridge].partition("/")[0]


class Box(Place):
    """Namespaces with an init; `init` is None inside the box, where nothing needs to be entered."""

    def __init__(self, init: Identity | None, in_user_namespace: bool = False) -> None:
        super().__init__(self, [])
        self.init = init
        self.started: list[Process] = []
        self.in_user_namespace = in_user_namespace

    @staticmethod
    def current() -> Box:
        """The box that this process runs in."""
        if os.environ.get(ENV_BOX) != "1":
            raise UsageError(
                "This must run inside a box.",
                "start it with: python -m orchestrator.boxes.box run -- COMMAND",
            )
        return Box(None)

    @staticmethod
    @contextlib.contextmanager
    def open() -> Iterator[Box]:
        """A fresh box; everything in it has ended when this returns, or when we die."""
        if threading.current_thread() is not threading.main_thread():
            # The parent-death signal fires when the forking thread ends, not the process.
            raise RuntimeError("a box is opened from the main thread")
        if missing := host.missing_tools():
            names = ", ".join(tool.program for tool in missing)
            raise HostError(f"These programs are missing: {names}.", host.cure_for(missing))
        in_user_namespace = os.geteuid() != 0
        with tempfile.TemporaryFile() as complaints:
            outer, lifeline, answer = _start_init(in_user_namespace, complaints)
            box = None
            try:
                box = Box(_read_answer(answer, complaints), in_user_namespace)
                yield box
            finally:
                os.close(lifeline)
                _wait_end(outer)
                if box is not None:
                    box._reap()

    def entry(self) -> list[str]:
        """The words before a command that bring it into the box, in our working directory."""
        if self.init is None:
            return []
        if not self.init.is_alive():
            raise ShoalError("The box has ended.", "its first process was killed from outside")
        user = ["--user", "--preserve-credentials"] if self.in_user_namespace else []
        # setpriv: the program ends with nsenter, should somebody kill that.
        return [
            *("nsenter", f"--target={self.init.pid}", *user, "--mount", "--net", "--pid", "--uts", "--"),
            *("env", f"--chdir={os.getcwd()}", "setpriv", "--pdeathsig", "KILL", "--"),
        ]

    def add_bridge(self, name: str) -> None:
        """A switch that nodes can be plugged into."""
        self._build(network.bridge_commands(name))

    def add_node(self, name: str, addresses: Mapping[str, str]) -> Node:
        """A node with one interface per bridge, each named after its bridge, addresses as 10.77.0.1/24."""
        self._build(network.node_commands(name, addresses))
        return Node(self, name, addresses)

    def _build(self, commands: list[network.Command]) -> None:
        done = self.run(["sh"], input_text=network.script(commands), timeout_s=NETWORK_TIMEOUT_S, check=False)
        if done.status != 0:
            *_, command, complaint = ["", "", *done.stderr.strip().splitlines()]
            raise HostError(
                f"The box could not run `{command.removeprefix('+ ')}`: {complaint}",
                "if the kernel lacks a module, load it: sudo modprobe -a bridge veth",
            )

    def _reap(self) -> None:
        """All have ended with init; collect what is left of them."""
        for started in self.started:
            started.wait(CLOSE_TIMEOUT_S)


def _start_init(in_user_namespace: bool, complaints: IO[bytes]) -> tuple[Process, int, int]:
    """Start init in fresh namespaces; the caller owns the lifeline and the answer's reading end."""
    lifeline_read, lifeline = os.pipe()
    answer, answer_write = os.pipe()
    user = ["--user", "--map-root-user"] if in_user_namespace else []
    init = [sys.executable, "-I", "-S", str(Path(__file__).with_name("init.py"))]
    try:
        outer = process.start(
            [
                *(
                    "setpriv",
                    "--pdeathsig",
                    "KILL",
                    "--",
                    "unshare",
                    *user,
                    "--mount",
                    "--net",
                    "--pid",
                    "--uts",
                ),
                *("--fork", "--kill-child", "--", *init, str(lifeline_read), str(answer_write)),
            ],
            stderr=complaints,
            pass_fds=(lifeline_read, answer_write),
        )
    except BaseException:
        os.close(lifeline)
        os.close(answer)
        raise
    finally:
        os.close(lifeline_read)
        os.close(answer_write)
    return outer, lifeline, answer


def _read_answer(answer: int, complaints: IO[bytes]) -> Identity:
    """Wait until init is ready, or say which step failed and what cures it."""
    with open(answer, "rb") as stream:
        if not select.select([stream], [], [], OPEN_TIMEOUT_S)[0]:
            raise HostError(
                f"The box was not ready within {OPEN_TIMEOUT_S:g} s.", "see whether the host is overloaded"
            )
        # One line, not until the end: unshare holds the pipe open as long as init lives.
        said = json.loads(stream.readline() or b"{}")
    if "pid" in said:
        if init := Identity.of(said["pid"]):
            return init
        raise HostError(
            "The box ended as soon as it was ready.", "see whether something kills processes here"
        )
    complaints.seek(0)
    step = said.get("step", "making namespaces")
    error = said.get("error") or complaints.read().decode(errors="replace").strip()
    raise HostError(f"No box: {step} failed: {error or 'no reason given'}", host.cure_for_box(step))


def _wait_end(outer: Process) -> None:
    """Wait until init has ended with all that it held; by force when it does not obey its lifeline."""
    try:
        outer.wait(CLOSE_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        outer.kill()
        outer.wait()


def run_command(argv: Sequence[str]) -> int:
    """Run a command in a fresh box on our own terminal; its exit status, or 128 and its signal."""
    started: Process | None = None
    early: list[int] = []

    def relay(number: int, _: object) -> None:
        if started is None:
            early.append(number)
        else:
            started.send_signal(number)

    with Box.open() as box:
        relayed = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
        before = {number: signal.signal(number, relay) for number in relayed}
        try:
            started = box.start(argv, stdin=None, stdout=None, stderr=None)
            for number in early:
                started.send_signal(number)
            status = started.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    return status if status >= 0 else 128 - status


def main(argv: Sequence[str]) -> int:
    """The command line: `run -- COMMAND...`."""
    match argv:
        case ["run", "--", *command] if command:
            pass
        case _:
            print(__doc__, file=sys.stderr)
            return ExitCode.USAGE
    try:
        return run_command(command)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except ShoalError as error:
        print(f"box: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
