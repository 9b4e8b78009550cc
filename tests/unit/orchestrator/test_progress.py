"""One line for an event that a person wants to hear of."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator import progress
from tests.unit.orchestrator.test_results import event, plan

CLOSED = {
    "round": 2,
    "completed": True,
    "closed_by": "all",
    "accepted": ["w01"],
    "missing": ["w02"],
    "accuracy": 0.5,
    "loss": 1.0,
    "seconds": 3.0,
}


@pytest.mark.parametrize(
    ("kind", "fields", "said"),
    [
        ("all_ready", {"trainers": ["w01", "w02"]}, "2 workers are ready after 7.0 s"),
        (
            "round_closed",
            CLOSED,
            "round 2/3: accuracy 0.500, loss 1.000, 1 of 2 updates, 3.00 s, without w02",
        ),
        (
            "round_closed",
            {**CLOSED, "completed": False, "accepted": [], "missing": ["w01", "w02"]},
            "round 2/3: no new model, 0 of 2 updates, 3.00 s, without w01, w02",
        ),
        (
            "update_refused",
            {"round": 2, "sender": "w02", "reason": "forged"},
            "  refused in round 2: w02: forged",
        ),
        (
            "update_answered",
            {"round": 2, "accepted": False, "reason": "not handed in: no space left"},
            "  w01 in round 2: not handed in: no space left",
        ),
        (
            "part_ended",
            {"part": "trainer", "status": -9, "expected": False},
            "  lost: trainer of w01 ended with -9",
        ),
        ("part_ended", {"part": "trainer", "status": 0, "expected": True}, None),
        ("failed", {"part": "ipfs", "message": "no port"}, "  w01, ipfs: no port"),
        ("trained", {"round": 2}, None),
    ],
)
def test_the_line_of_an_event(kind: str, fields: dict[str, Any], said: str | None) -> None:
    assert progress.line(plan(), event(kind, "w01", 1.0, **fields), 7.0) == said
