"""Forks node processes that share one import of TensorFlow Federated.

python -m node.zygote SOCKET [--import MODULE]...

Imports once, translates what will build TensorFlow's graphs, runs none of its operations, prints `ready`,
and then answers lines of JSON on a Unix socket.
Asked   {"settings": path, "node": network namespace or null, "parts": [part, …] or null for all,
         "groups": [{"folder": control group, "home": our own}, …]}
answers {"node": name, "pid": …, "start_ticks": …} or {"node": name, "error": text},
and once a node has ended it tells every open connection {"exited": name, "status": …}.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from node import namespace
from node.__main__ import read_settings, run
from node.cgroup import Group
from node.contract import ShoalError, UsageError
from node.contract.schema import from_json
from node.contract.settings import ORDERS_SOCKET, NodeSettings
from node.fork import Signals, exit_status, fork
from node.process import ProcessId

# TensorFlow's weight first, then what every part would import again for itself.
IMPORTS: Final = ("node.learning.tff", "node.role", "node.agent", "node.trainer", "aggregator.server")
LOG: Final = "node.log"
MAX_LINE_BYTES: Final = 1 << 16
SEND_S: Final = 5.0


@dataclass(frozen=True)
class Request:
    """One node to be forked; `node` is the name of its network namespace, None to stay in this one."""

    settings: str
    node: str | None
    parts: tuple[str, ...] | None = None
    groups: tuple[Group, ...] = ()  # that limit its parts


class Connection:
    """Whoever asks for nodes; lines both ways."""

    def __init__(self, link: socket.socket) -> None:
        self.link = link
        self._link_buffer = b""
        link.settimeout(SEND_S)  # a reader that does not read is dropped

    def lines(self) -> list[bytes] | None:
        """The whole lines that have come; None at the end."""
        try:
            data = self.link.recv(MAX_LINE_BYTES)
        except OSError:
            return None
        *whole, self._link_buffer = (self._link_buffer + data).split(b"\n")
        return whole if data and len(self._link_buffer) <= MAX_LINE_BYTES else None

    def tell(self, what: dict[str, Any]) -> bool:
        """False when nobody listens any more."""
        try:
            self.link.sendall(json.dumps(what).encode() + b"\n")
        except OSError:
            return False
        return True


class Zygote:
    """One thread, no event loop: what it forks must be able to start its own."""

    def __init__(self, listener: socket.socket, signals: Signals) -> None:
        self._signals = signals
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)
        self._selector.register(signals.fileno(), selectors.EVENT_READ, signals)
        self._listener = listener
        self._connections: list[Connection] = []
        self._nodes: dict[int, tuple[str, ProcessId]] = {}

    def run(self) -> None:
        """Until SIGTERM; then the nodes are told to end, and waited for."""
        ending = False
        while not ending or self._nodes:
            for key, _ in self._selector.select():
                if key.data is self._signals:
                    came = self._signals.wait(0)
                    if signal.SIGTERM in came and not ending:
                        ending = True
                        self._end_nodes()
                elif key.data is None:
                    self._accept()
                else:
                    self._serve(key.data)
            self._reap()

    def _accept(self) -> None:
        link, _ = self._listener.accept()
        connection = Connection(link)
        self._connections.append(connection)
        self._selector.register(link, selectors.EVENT_READ, connection)

    def _serve(self, connection: Connection) -> None:
        lines = connection.lines()
        if lines is None:
            self._drop(connection)
            return
        for line in lines:
            if not connection.tell(self._answer(line)):
                self._drop(connection)
                return

    def _answer(self, line: bytes) -> dict[str, Any]:
        name = None
        try:
            request = from_json(Request, json.loads(line))
            settings = read_settings(Path(request.settings))
            name = settings.name
            if any(name == known for known, _ in self._nodes.values()):
                raise UsageError(f"node {name} runs already")
            started = fork(
                lambda: run_node(request, settings),
                parent_death=signal.SIGTERM,
                log=Path(settings.folder) / LOG,
            )
        except json.JSONDecodeError as error:
            return {"node": name, "error": f"no line of JSON: {error.msg}"}
        except (ShoalError, OSError) as error:
            return {"node": name, "error": str(error)}
        self._nodes[started.pid] = (name, started)
        return {"node": name, "pid": started.pid, "start_ticks": started.start_ticks}

    def _drop(self, connection: Connection) -> None:
        self._selector.unregister(connection.link)
        connection.link.close()
        self._connections.remove(connection)

    def _reap(self) -> None:
        for pid, (name, _) in list(self._nodes.items()):
            status = exit_status(pid)
            if status is not None:
                del self._nodes[pid]
                for connection in list(self._connections):
                    if not connection.tell({"exited": name, "status": status}):
                        self._drop(connection)

    def _end_nodes(self) -> None:
        for _, process in self._nodes.values():
            process.signal(signal.SIGTERM)


def run_node(request: Request, settings: NodeSettings) -> int:
    """In the forked child: enter the node, then run it as `python -m node` does."""
    if request.node is not None:
        namespace.enter(request.node)
    return run(settings, request.parts, request.groups, Path(settings.folder) / ORDERS_SOCKET)


@contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    """A Unix socket that only its owner may connect to, removed at the end."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        mask = os.umask(0o177)
        try:
            listener.bind(str(path))
        except OSError as error:
            raise UsageError(
                f"cannot listen on {path}: {error.strerror or error}",
                "take a short path of a new file in a folder of yours",
            ) from error
        finally:
            os.umask(mask)
        try:
            listener.listen()
            yield listener
        finally:
            path.unlink(missing_ok=True)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m node.zygote", description=__doc__)
    parser.add_argument("socket", type=Path, metavar="SOCKET")
    parser.add_argument(
        "--import", dest="modules", action="append", metavar="MODULE", help="instead of TFF's"
    )
    options = parser.parse_args(arguments)
    try:
        with Signals(signal.SIGTERM, signal.SIGCHLD) as signals, listening(options.socket) as listener:
            gc.disable()  # while much is made and next to nothing dropped; it takes a fifth of the time
            for module in options.modules or IMPORTS:
                importlib.import_module(module)
            if not options.modules:
                from node.learning.conversion import convert_templates  # here, because it loads TensorFlow

                convert_templates()
            # What is there now is never looked at by the children's collectors, so its pages stay shared.
            gc.freeze()
            gc.enable()
            print("ready", flush=True)
            Zygote(listener, signals).run()
    except ShoalError as error:
        print(f"zygote: {error}", file=sys.stderr)
        return int(error.exit_code)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
