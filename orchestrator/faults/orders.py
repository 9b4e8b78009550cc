"""Parts of netns nodes killed, paused and started: by orders to supervisors, whole nodes by the zygote."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol, cast, get_args

from node.contract import ShoalError
from node.contract.settings import ORDERS_SOCKET
from orchestrator.faults.fault import PartState

WHOLE: Final = "node"
ANSWER_S: Final = 15.0  # a part that is killed has some seconds to die
END_S: Final = 15.0
LINE_BYTES: Final = 1000


class Nodes(Protocol):
    """What is needed of whoever forks nodes."""

    def start_node(self, name: str, settings: Path, /) -> dict[str, Any]: ...

    def is_forked(self, name: str, /) -> bool: ...

    def expect_end(self, name: str, /) -> None: ...

    def expect_life(self, name: str, /) -> None: ...

    def wait_ended(self, name: str, timeout_s: float, /) -> bool: ...


class OrderedParts:
    """PartControl of a netns fleet; `folder` holds every node's settings and its own folder."""

    def __init__(self, folder: Path, nodes: Nodes) -> None:
        self._folder, self._nodes = folder, nodes

    def kill(self, node: str, part: str) -> None:
        if part != WHOLE:
            self._order(node, "kill", part)
            return
        if not self._nodes.is_forked(node):
            return
        self._nodes.expect_end(node)  # it may end before it answers
        try:
            self._say(node, "kill", part)
        except ShoalError:
            self._nodes.expect_life(node)
            raise
        if not self._nodes.wait_ended(node, END_S):
            raise ShoalError(f"node {node} has not ended {END_S:g} s after it was killed")

    def pause(self, node: str, part: str) -> None:
        self._order(node, "pause", part)

    def resume(self, node: str, part: str) -> None:
        self._order(node, "resume", part)

    def start(self, node: str, part: str) -> None:
        if part != WHOLE:
            self._order(node, "start", part)
        elif not self._nodes.is_forked(node):
            self._nodes.start_node(node, self._folder / f"{node}.json")

    def state(self, node: str, part: str) -> PartState:
        if not self._nodes.is_forked(node):
            return "ended"
        return self._order(node, "state", part)

    def _order(self, node: str, verb: str, part: str) -> PartState:
        line = self._say(node, verb, part)
        if not line:
            raise ShoalError(f"{node} did not say whether it could {verb} {part}")
        answer = json.loads(line)
        if "error" in answer:
            raise ShoalError(f"{node} could not {verb} {part}: {answer['error']}")
        if answer["state"] not in get_args(PartState):
            raise ShoalError(f"{node} says that {part} is {answer['state']!r}")
        return cast(PartState, answer["state"])

    def _say(self, node: str, verb: str, part: str) -> bytes:
        """The answer, a line; empty when it ended in place of answering."""
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(ANSWER_S)
            try:
                link.connect(str(self._folder / node / ORDERS_SOCKET))
                link.sendall(json.dumps({"order": verb, "part": part}).encode() + b"\n")
                return _line(link.recv)
            except ConnectionResetError:
                return b""
            except OSError as error:
                raise ShoalError(f"{node} takes no orders: {error}") from error


def _line(receive: Callable[[int], bytes]) -> bytes:
    said = bytearray()
    while not said.endswith(b"\n") and len(said) < LINE_BYTES and (piece := receive(LINE_BYTES)):
        said += piece
    return bytes(said)
