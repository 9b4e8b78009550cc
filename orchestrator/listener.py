"""Hears the nodes' events while a fleet lives, and reads what they wrote last when it has ended."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from node.contract.settings import EVENTS_FILE
from orchestrator.gate import GateError
from orchestrator.history import History

RETRY_S = 0.2
JOIN_S = 15.0

Ask = Callable[[str, str], tuple[bytes, Mapping[str, str]]]  # a node and a path → body and headers


class Listener:
    """One thread for each node. `end` comes after the fleet's own end: that is what wakes the threads."""

    def __init__(self, history: History, folders: Mapping[str, Path]) -> None:
        self._history, self._folders = history, folders
        self._offsets = dict.fromkeys(folders, 0)
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self, ask: Ask) -> None:
        self._threads = [
            threading.Thread(target=self._listen, args=(name, ask), daemon=True) for name in self._folders
        ]
        for thread in self._threads:
            thread.start()

    def leave(self) -> None:
        """Ask no more; whoever waits for an answer gets it, or the connection's end."""
        self._ended.set()

    def end(self) -> None:
        """Wait for the threads, then take what nobody was told of any more."""
        self.leave()
        for thread in self._threads:
            thread.join(JOIN_S)
        for name, folder in self._folders.items():
            file = folder / EVENTS_FILE
            if file.exists():
                with file.open("rb") as events:
                    events.seek(self._offsets[name])
                    self._add(whole_lines(events.read()))

    def _listen(self, name: str, ask: Ask) -> None:
        while not self._ended.is_set():
            try:
                lines, headers = ask(name, f"/events?from={self._offsets[name]}")
            except GateError:
                self._ended.wait(RETRY_S)  # not up yet, or gone
                continue
            self._offsets[name] = int(headers["x-next-offset"])
            self._add(lines.splitlines())

    def _add(self, lines: Sequence[bytes]) -> None:
        for line in lines:
            self._history.add(json.loads(line))


def whole_lines(data: bytes) -> list[bytes]:
    """A line that its writer did not finish is none."""
    return data[: data.rfind(b"\n") + 1].splitlines()
