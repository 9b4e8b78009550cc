"""The delay engine for kernels without netem: a child of the agent that holds packets back."""

from __future__ import annotations

import json
import os
import select
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from node import fork
from node.contract import ShoalError
from node.contract.links import LinkTable
from node.contract.schema import from_json, to_json
from node.links import holding
from node.links.holding import HoldState, Orders
from node.links.incoming import HeldLink, HeldState
from node.process import ProcessId

__all__ = ["HeldLink", "HeldState", "HoldState", "Holder", "HolderGoneError", "held_by"]

ANSWER_TIMEOUT_S: Final = 10.0
PIECE_BYTES: Final = 1 << 16


class HolderGoneError(ShoalError):
    """The holder does not answer: its links are dark until it is started again."""


def held_by(table: LinkTable, queues: Mapping[str, int], traces_began_ns: int) -> Orders:
    """What the holder is told: only the peers that have a queue."""
    links = tuple(
        HeldLink(link.peer, queues[link.peer], link.into) for link in table.peers if link.peer in queues
    )
    if unknown := queues.keys() - {link.peer for link in table.peers}:
        raise ShoalError(
            f"There are queues for {', '.join(sorted(unknown))}, of which the table knows nothing."
        )
    return Orders(table.node, table.address, table.seed, traces_began_ns, links)


class Holder:
    """The holder of one node, started from a thread in the node that lives at least as long.

    When it dies its links go dark: nothing bypasses a queue. `poll` tells, `start` brings it back as it was.
    It is a fork, since that costs a few MB less than a Python of its own.
    """

    def __init__(self, log: Path | None = None) -> None:
        self._log = log
        self._process: ProcessId | None = None
        self._exit_status: int | None = None
        self._orders = self._answers = -1
        self._said = b""
        self._asked = 0
        self._last: Orders | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start it, and tell it again what it was told before."""
        if self._process is not None and self.poll() is None:
            raise RuntimeError("the holder runs already")
        self._close()
        orders, self._orders = os.pipe()
        self._answers, answers = os.pipe()

        def run() -> int:
            os.close(self._orders)  # else the end of our parent would not be heard
            os.close(self._answers)
            return holding.run(orders, answers)

        try:
            self._process = fork.fork(run, log=self._log)
        finally:
            os.close(orders)
            os.close(answers)
        self._exit_status = None
        os.set_blocking(self._orders, False)
        if self._last is not None:
            self._ask({"apply": to_json(self._last)})

    def apply(
        self, table: LinkTable, queues: Mapping[str, int], traces_began_mono_ns: int | None = None
    ) -> HoldState:
        """Put a whole table in force; packets that are held keep their time.

        `queues` says which queue each peer's packets come to; peers without one are not held. Traces begin
        when they are first applied, unless it is said when they did.
        """
        if traces_began_mono_ns is None:
            traces_began_mono_ns = self._last.traces_began_ns if self._last else time.monotonic_ns()
        wanted = held_by(table, queues, traces_began_mono_ns)
        state = self._ask({"apply": to_json(wanted)})
        self._last = wanted
        return state

    def state(self) -> HoldState:
        """What is in force, and the counters."""
        return self._ask({})

    def poll(self) -> int | None:
        """How it ended; None while it runs."""
        if self._process is not None and self._exit_status is None:
            self._exit_status = fork.exit_status(self._process.pid)
        return self._exit_status

    def stop(self) -> None:
        """End it. What it holds is lost."""
        if self._process is not None and self.poll() is None:
            descriptor = os.pidfd_open(self._process.pid)  # ours, and not reaped yet
            try:
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                select.select([descriptor], [], [])
            finally:
                os.close(descriptor)
            self.poll()
        self._close()
        self._process = None

    def _close(self) -> None:
        for descriptor in (self._orders, self._answers):
            if descriptor >= 0:
                os.close(descriptor)
        self._orders = self._answers = -1
        self._said = b""

    def _ask(self, order: Mapping[str, Any]) -> HoldState:
        """Send an order and wait for its answer, for a bounded time."""
        if self._orders < 0:
            raise HolderGoneError("The holder was not started.")
        deadline = time.monotonic() + ANSWER_TIMEOUT_S
        self._asked += 1
        self._send(json.dumps({**order, "number": self._asked}).encode() + b"\n", deadline)
        # An answer that an earlier call has waited for in vain may come first.
        while (answer := json.loads(self._receive(deadline)))["number"] != self._asked:
            pass
        if "error" in answer:
            raise ShoalError(answer["error"], answer["hint"])
        return from_json(HoldState, answer["state"])

    def _send(self, rest: bytes, deadline: float) -> None:
        while rest:
            if not select.select([], [self._orders], [], max(0.0, deadline - time.monotonic()))[1]:
                raise HolderGoneError("The holder takes no orders.", "its log says why")
            try:
                rest = rest[os.write(self._orders, rest[:PIECE_BYTES]) :]
            except BlockingIOError:
                continue
            except BrokenPipeError as error:
                raise HolderGoneError("The holder has ended.", "its log says why") from error

    def _receive(self, deadline: float) -> bytes:
        while b"\n" not in self._said:
            if not select.select([self._answers], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise HolderGoneError("The holder does not answer.", "its log says why")
            piece = os.read(self._answers, PIECE_BYTES)
            if not piece:
                raise HolderGoneError("The holder has ended.", "its log says why")
            self._said += piece
        line, _, self._said = self._said.partition(b"\n")
        return line
