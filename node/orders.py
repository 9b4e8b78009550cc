"""Orders to a node's supervisor: kill, pause, resume or start a part, while faults have it so.

One connection to a Unix socket, one order: a line of JSON {"order": "kill", "part": "trainer"}, answered by a
line {"state": "ended"} or {"error": text}. The part `node` is all of them; to kill that is not answered.
Whoever may enter the node's folder may order.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, get_args

from node.contract import ShoalError, UsageError

Verb = Literal["kill", "pause", "resume", "start", "state"]
VERBS: Final[tuple[Verb, ...]] = get_args(Verb)
LINE_BYTES: Final = 1000
SPEAK_S: Final = 1.0  # whoever connects says it at once, or the node would not notice what else happens


class Orders:
    """Where orders come in; it stands in the select of whoever obeys."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)

    def __enter__(self) -> Orders:
        self._path.unlink(missing_ok=True)  # of a supervisor that was killed
        mask = os.umask(0o177)
        try:
            self._listener.bind(str(self._path))
        except OSError as error:
            raise UsageError(
                f"cannot listen on {self._path}: {error.strerror or error}", "take a shorter path"
            ) from error
        finally:
            os.umask(mask)
        self._listener.listen()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()
        self._path.unlink(missing_ok=True)

    def fileno(self) -> int:
        return self._listener.fileno()

    def serve(self, obey: Callable[[Verb, str], str]) -> None:
        """Take the order of one caller; an answer that he does not wait for is nobody's."""
        link, _ = self._listener.accept()
        with link:
            link.settimeout(SPEAK_S)
            with contextlib.suppress(OSError):
                answer = _answered(_line(link), obey)
                link.sendall(json.dumps(answer).encode() + b"\n")


def _line(link: socket.socket) -> bytes:
    said = bytearray()
    while not said.endswith(b"\n") and len(said) < LINE_BYTES and (piece := link.recv(LINE_BYTES)):
        said += piece
    return bytes(said)


def _answered(line: bytes, obey: Callable[[Verb, str], str]) -> dict[str, Any]:
    try:
        verb, part = _read(line)
        return {"state": obey(verb, part)}
    except ShoalError as error:
        return {"error": error.message}
    except OSError as error:  # of a fork, say: it is the answer, and not the connection's end
        return {"error": f"{error.strerror or error}"}


def _read(line: bytes) -> tuple[Verb, str]:
    try:
        order = json.loads(line)
    except ValueError as error:
        raise UsageError("this is no line of JSON") from error
    if not isinstance(order, dict) or set(order) != {"order", "part"} or not isinstance(order["part"], str):
        raise UsageError("this is no order", 'say {"order": "kill", "part": "trainer"}')
    if order["order"] not in VERBS:
        raise UsageError(f"there is no order {order['order']!r}", f"one of {', '.join(VERBS)}")
    return order["order"], order["part"]
