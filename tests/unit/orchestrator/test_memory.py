"""What containers take, looked at as rounds close."""

from __future__ import annotations

import pytest

from node.contract import HostError
from orchestrator.containers import memory
from orchestrator.containers.memory import Memory

PARTS = {"agg": ("agent", "ipfs"), "w01": ("agent", "ipfs")}


class Engine:
    """What it counts for each part; None of what is gone."""

    def __init__(self) -> None:
        self.bytes: dict[tuple[str, str], int | None] = {
            (node, part): 10 for node, parts in PARTS.items() for part in parts
        }
        self.asked = 0

    def ask(self, node: str, part: str) -> int:
        self.asked += 1
        found = self.bytes[node, part]
        if found is None:
            raise HostError("gone")
        return found


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "PAUSE_S", 0.0)


def look(mine: Memory) -> None:
    mine.look()
    assert mine._thread is not None
    mine._thread.join()


def test_the_most_that_was_seen_counts() -> None:
    engine = Engine()
    mine = Memory(PARTS, engine.ask)
    for figure in (10, 50, 20):
        engine.bytes["w01", "ipfs"] = figure
        look(mine)
    assert mine.most_bytes() == {"agg": 20, "w01": 60}


def test_part_of_a_sum_is_none() -> None:
    engine = Engine()
    engine.bytes["w01", "ipfs"] = None
    engine.bytes["agg", "agent"] = 0  # the engine's figure for what has ended
    mine = Memory(PARTS, engine.ask)
    look(mine)
    assert mine.most_bytes() == {}


def test_it_looks_seldom_and_no_more_when_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine()
    mine = Memory(PARTS, engine.ask)
    monkeypatch.setattr(memory, "PAUSE_S", 1000.0)
    for _ in range(3):
        look(mine)
    assert engine.asked == 4
    monkeypatch.setattr(memory, "PAUSE_S", 0.0)
    mine.close()
    mine.look()
    assert engine.asked == 4
