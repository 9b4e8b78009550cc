"""The share of the processors' time that others got."""

from __future__ import annotations

from typing import Any

from orchestrator import processors

LATER = "cpu  400 10 200 1000 50 0 20 120 77 5\ncpu0 1 2 3\n"
EARLIER = "cpu  200 10 100 600 50 0 20 20 77 5\ncpu0 1 2 3\n"


def event(text: str) -> dict[str, Any]:
    return {"kind": processors.KIND, **processors.counted(text)}


def test_what_was_stolen_between_the_first_and_the_last_count() -> None:
    history: list[dict[str, Any]] = [event(EARLIER), {"kind": "round_opened"}, event(LATER)]
    assert processors.stolen_share(history) == 100 / 800


def test_of_one_count_nobody_knows() -> None:
    assert processors.stolen_share([event(EARLIER)]) is None
    assert processors.stolen_share([event(EARLIER), event(EARLIER)]) == 0.0


def test_this_machine_can_be_counted() -> None:
    assert processors.counted(processors.STAT.read_text())["seconds"] > 0
