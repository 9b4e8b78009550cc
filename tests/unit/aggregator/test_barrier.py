"""Rounds that wait until what is due with them is in force."""

from __future__ import annotations

from pathlib import Path

from aggregator.barrier import Barrier
from aggregator.coordinator import Coordinator
from node.contract.settings import RELEASE_FILE
from node.events import Events
from node.metrics import RoleMetrics
from tests.unit.aggregator.fleet_of_fakes import Fleet, job, soon


class WaitingFleet(Fleet):
    """Its aggregator holds some rounds back."""

    def __init__(self, folder: Path, *pauses: int, wait_s: float = 30.0) -> None:
        self.pauses, self.wait_s = pauses, wait_s
        super().__init__(folder, job("w1", "w2"))

    def _coordinator(self) -> Coordinator:
        events = Events(self.folder / "events.jsonl", "agg")
        barrier = Barrier(self.folder / RELEASE_FILE, self.pauses, events, self.wait_s)
        return Coordinator(self.job, self.objects, self.folder, events, RoleMetrics("aggregator"), barrier)

    def opened(self) -> list[int]:
        return [event["round"] for event in self.events("round_opened")]

    def kinds(self) -> list[str]:
        shown = {"round_due", "round_opened", "round_closed", "release_missing"}
        lines = (self.folder / "events.jsonl").read_text().splitlines()
        return [kind for line in lines if (kind := line.split('"')[3]) in shown]


async def test_a_round_waits_until_it_is_released(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").touch()
    fleet = WaitingFleet(tmp_path, 2)
    held_back = []

    async def release() -> None:
        await soon(lambda: bool(fleet.events("round_due")))
        held_back.append(fleet.opened())
        (tmp_path / RELEASE_FILE).write_text("2")

    await fleet.live("w1", "w2", beside=release)
    assert held_back == [[1]]
    assert fleet.kinds() == [
        *("round_opened", "round_closed"),
        *("round_due", "round_opened", "round_closed"),
    ]
    assert fleet.events("round_due")[0]["round"] == 2


async def test_without_a_release_the_run_goes_on_and_says_so(tmp_path: Path) -> None:
    fleet = WaitingFleet(tmp_path, 1, wait_s=0.0)
    await fleet.live("w1", "w2")
    (missing,) = fleet.events("release_missing")
    assert (missing["round"], missing["waited_s"]) == (1, 0.0)
    assert fleet.kinds()[:3] == ["round_due", "release_missing", "round_opened"]
    assert fleet.opened() == [1, 2]


async def test_a_further_attempt_at_a_round_waits_no_more(tmp_path: Path) -> None:
    events = Events(tmp_path / "events.jsonl", "agg")
    barrier = Barrier(tmp_path / RELEASE_FILE, (1,), events, wait_s=0.0)
    for _ in range(2):
        await barrier.wait_released(1)
    assert (tmp_path / "events.jsonl").read_text().count("release_missing") == 1


async def test_what_is_released_does_not_wait_again(tmp_path: Path) -> None:
    (tmp_path / RELEASE_FILE).write_text("2")
    fleet = WaitingFleet(tmp_path, 1, 2, wait_s=0.0)
    await fleet.live("w1", "w2")
    assert "round_due" not in fleet.kinds()
    assert fleet.opened() == [1, 2]


async def test_without_faults_nothing_waits(tmp_path: Path) -> None:
    fleet = WaitingFleet(tmp_path, wait_s=0.0)
    await fleet.live("w1", "w2")
    assert "round_due" not in fleet.kinds()
