"""Rounds that wait: what is due when a round opens is in force before it does, on every run alike."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from node.events import Events

RELEASE_S: Final = 120.0  # then the round is opened all the same, and the run cannot promise anything
LOOK_S: Final = 0.05  # the agent, another process, writes the file


class Barrier:
    """Holds some rounds back before they open; who releases them writes up to which one."""

    def __init__(self, file: Path, pauses: Sequence[int], events: Events, wait_s: float = RELEASE_S) -> None:
        self._file, self._pauses, self._events, self._wait_s = file, frozenset(pauses), events, wait_s

    async def wait_released(self, round_: int) -> None:
        """Until this round may open. A further attempt at it, or a restarted aggregator, waits no more."""
        if round_ not in self._pauses or self._released() >= round_:
            return
        self._events.write("round_due", round=round_)
        until_s = time.monotonic() + self._wait_s
        while self._released() < round_:
            if time.monotonic() >= until_s:
                self._events.write("release_missing", round=round_, waited_s=self._wait_s)
                self._pauses -= {round_}
                return
            await asyncio.sleep(LOOK_S)

    def _released(self) -> int:
        try:
            return int(self._file.read_text())
        except FileNotFoundError:
            return 0
