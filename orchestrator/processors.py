"""What a host keeps from its virtual machines: the share of the processors' time that others got.

Packets that were held too long, or links slower than asked, are no riddle where this is much.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from orchestrator.history import Event

STAT: Final = Path("/proc/stat")
TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
KIND: Final = "processors_counted"
USER_TO_STEAL: Final = slice(0, 8)  # what follows is contained in these
STEAL: Final = 7


def counted(text: str) -> dict[str, float]:
    """Seconds of all processors since the machine's start, and of them those that were stolen."""
    ticks = [int(field) for field in text.splitlines()[0].split()[1:]][USER_TO_STEAL]
    return {"seconds": sum(ticks) / TICKS_PER_S, "stolen_seconds": ticks[STEAL] / TICKS_PER_S}


def stolen_share(history: Sequence[Event]) -> float | None:
    """Between the first and the last time that they were counted."""
    found = [event for event in history if event["kind"] == KIND]
    if len(found) < 2:
        return None
    seconds = found[-1]["seconds"] - found[0]["seconds"]
    return (found[-1]["stolen_seconds"] - found[0]["stolen_seconds"]) / seconds if seconds else 0.0
