"""The history of a run: every event of every node and of the orchestrator, as they were heard."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Event = Mapping[str, Any]
ORCHESTRATOR = "orchestrator"


class History:
    """Append-only, in memory and in history.jsonl; whoever waits for an event is woken by it."""

    def __init__(self, file: Path, heard: Callable[[Event], None] | None = None) -> None:
        """`heard` is called with every event, in the thread that heard it."""
        self._file = file.open("a", encoding="utf-8")
        self._heard = heard
        self._changed = threading.Condition()
        self.events: list[Event] = []

    def add(self, event: Event) -> None:
        with self._changed:
            self.events.append(event)
            self._file.write(json.dumps(event, ensure_ascii=False) + "\n")
            self._file.flush()
            self._changed.notify_all()
            if self._heard is not None:
                self._heard(event)

    def note(self, kind: str, **fields: Any) -> None:
        """An event of the orchestrator's own."""
        at = {"kind": kind, "node": ORCHESTRATOR, "wall": time.time(), "mono_ns": time.monotonic_ns()}
        self.add({**at, **fields})

    def of(self, kind: str, node: str | None = None) -> list[Event]:
        with self._changed:
            return [e for e in self.events if e["kind"] == kind and node in (None, e["node"])]

    def wait(self, holds: Callable[[list[Event]], bool], timeout_s: float) -> bool:
        """Until the events so far satisfy a condition; whether they did in time."""
        with self._changed:
            return self._changed.wait_for(lambda: holds(self.events), timeout_s)

    def wait_news(self, seen: int, timeout_s: float) -> list[Event]:
        """Events beyond the first `seen`; none when none came in time."""
        with self._changed:
            self._changed.wait_for(lambda: len(self.events) > seen, timeout_s)
            return list(self.events[seen:])

    def close(self) -> None:
        self._file.close()
