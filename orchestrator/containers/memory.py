"""What a fleet's containers take of memory, as the engine counts it: the most that was seen, by node."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from node.contract import ShoalError

MOST_AT_ONCE: Final = 8
PAUSE_S: Final = 10.0  # between looks: the engine takes some 10 ms of a processor for each container

Ask = Callable[[str, str], int]  # node and part → bytes


class Memory:
    """Looked at now and then, by threads of its own: nobody waits for them."""

    def __init__(self, parts: Mapping[str, Sequence[str]], ask: Ask) -> None:
        self._parts, self._ask = parts, ask
        self._most_bytes: dict[str, int] = {}
        self._thread: threading.Thread | None = None
        self._next_s = 0.0
        self._is_ending = threading.Event()

    def look(self) -> None:
        """Begin one look at all of them, unless the last has not ended or was just now."""
        if (self._thread is not None and self._thread.is_alive()) or time.monotonic() < self._next_s:
            return
        self._next_s = time.monotonic() + PAUSE_S
        self._thread = threading.Thread(target=self._look, name="memory")
        self._thread.start()

    def close(self) -> None:
        """No more looks; when this returns nobody asks the engine for us."""
        self._next_s = float("inf")
        self._is_ending.set()
        if self._thread is not None:
            self._thread.join()

    def most_bytes(self) -> dict[str, int]:
        """Of each node that was seen whole, the most that its containers took together."""
        return dict(self._most_bytes)

    def _look(self) -> None:
        # The engine answers some at once, and others at its next turn, a second later.
        with ThreadPoolExecutor(MOST_AT_ONCE, thread_name_prefix="memory") as pool:
            asked = {
                node: [pool.submit(self._taken, node, part) for part in parts]
                for node, parts in self._parts.items()
            }
            for node, answers in asked.items():
                taken = [answer.result() for answer in answers]
                # One that has ended or is about to takes nothing, and part of a sum is none.
                if all(taken):
                    self._most_bytes[node] = max(self._most_bytes.get(node, 0), sum(taken))

    def _taken(self, node: str, part: str) -> int:
        if self._is_ending.is_set():
            return 0
        try:
            return self._ask(node, part)
        except ShoalError:
            return 0  # a fault has it just now
