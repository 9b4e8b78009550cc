"""What is waited for while a fleet works, and which losses end a run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from node.contract import ExitCode, UsageError
from node.contract.plan import FaultPlan, When
from orchestrator import vigil
from orchestrator.history import Event, History
from orchestrator.vigil import FleetFailedError, Vigil
from tests.unit.orchestrator.test_progress import CLOSED
from tests.unit.orchestrator.test_schedule import NAMES, plan_of


class Watched:
    """A fleet that is its events, and who watches over it."""

    def __init__(self, folder: Path, *faults: FaultPlan) -> None:
        self.history = History(folder / "history.jsonl")
        self.said: list[str] = []
        self.heard: list[Event] = []
        logs = folder / "logs"
        self.vigil = Vigil(plan_of(*faults), self.history, logs, self.said.append, self.heard.append)

    def tell(self, kind: str, node: str, **fields: Any) -> None:
        self.history.add({"kind": kind, "node": node, "wall": 0.0, "mono_ns": 0, **fields})

    def end(self, node: str, part: str, status: int, *, expected: bool = False) -> None:
        self.tell("part_ended", node, part=part, status=status, expected=expected)


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    monkeypatch.setattr(vigil, "END_TOLD_S", 0.05)
    monkeypatch.setattr(vigil, "IPFS_READY_S", 0.05)
    monkeypatch.setattr(vigil, "TRAINERS_READY_S", 0.05)
    one = Watched(tmp_path)
    yield one
    one.history.close()


@pytest.mark.parametrize(
    ("node", "part"), [("agg", "aggregator"), ("agg", "ipfs"), ("agg", "node"), ("agg", "zygote")]
)
def test_without_what_the_aggregator_needs_no_round_will_ever_close(
    watched: Watched, node: str, part: str
) -> None:
    watched.end(node, part, -9)
    with pytest.raises(FleetFailedError, match=f"node was lost: {part} of agg ended with -9"):
        watched.vigil.watch_rounds()
    with pytest.raises(FleetFailedError, match="node was lost"):
        watched.vigil.wait_ipfs()


def test_without_the_lines_that_zones_share_nothing_is_as_planned(watched: Watched) -> None:
    watched.end("trunks", "container", -9)
    with pytest.raises(FleetFailedError, match="zones share was lost: container of trunks ended with -9"):
        watched.vigil.watch_rounds()


@pytest.mark.parametrize(("node", "part"), [("agg", "agent"), ("w01", "trainer"), ("w02", "node")])
def test_other_losses_are_told_once_and_the_run_goes_on(watched: Watched, node: str, part: str) -> None:
    """That an agent has ended is heard from the one that has come after it."""
    watched.end(node, part, -9)
    with pytest.raises(FleetFailedError, match="nothing was heard"):  # after that, and no loss
        watched.vigil.watch_rounds()
    assert watched.said == [f"  lost: {part} of {node} ended with -9"]
    assert [event["kind"] for event in watched.heard] == ["part_ended"]


def test_a_record_of_which_is_told_twice_is_said_once_and_heard_twice(watched: Watched) -> None:
    closed = {**CLOSED, "round": 1}
    for record in ("bafy1", "bafy1", "bafy2"):  # the second by an aggregator that was started again
        watched.tell("round_closed", "agg", **closed, record=record)
    with pytest.raises(FleetFailedError, match="nothing was heard"):
        watched.vigil.watch_rounds()
    assert [line.partition(":")[0] for line in watched.said] == ["round 1/5", "round 1/5"]
    assert len(watched.heard) == 3


def test_a_mistake_of_the_users_in_the_aggregator_is_the_users(watched: Watched) -> None:
    watched.tell("failed", "agg", part="aggregator", message="model() takes (9,)", hint="mend it")
    watched.end("agg", "aggregator", ExitCode.USAGE)
    with pytest.raises(UsageError, match="takes") as told:
        watched.vigil.watch_rounds()
    assert told.value.hint == "mend it"


def test_silence_is_bounded_and_the_last_word_is_told(watched: Watched) -> None:
    watched.tell("trainer_ready", "w01", shard_bytes=1, examples=1, seconds=0.0)
    with pytest.raises(FleetFailedError, match=r"nothing was heard for 0\.05 s") as told:
        watched.vigil.watch_rounds()
    assert '"kind": "trainer_ready", "node": "w01"' in told.value.hint


def test_daemons_that_are_not_up_are_named(watched: Watched) -> None:
    watched.tell("ipfs_ready", "agg")
    watched.tell("ipfs_ready", "w02")
    with pytest.raises(FleetFailedError, match=r"of w01 are not ready after 0\.05 s"):
        watched.vigil.wait_ipfs()
    watched.tell("failed", "w01", part="ipfs", message="no luck today", hint="")
    watched.end("w01", "ipfs", 1)
    with pytest.raises(FleetFailedError, match="of w01 ended at their start") as told:
        watched.vigil.wait_ipfs()
    assert "no luck today" in told.value.hint


def test_all_daemons_are_waited_for(watched: Watched) -> None:
    for name in NAMES:
        watched.tell("ipfs_ready", name)
    watched.vigil.wait_ipfs()
    assert watched.said[0].startswith("3 IPFS daemons are up after")


def test_a_daemon_that_a_fault_has_killed_is_no_loss(tmp_path: Path) -> None:
    one = Watched(
        tmp_path, FaultPlan("dead", "kill", "", ("agg",), When("time"), None, parts={"agg": ("ipfs",)})
    )
    one.tell("failed", "agg", part="ipfs", message="it does not answer", hint="")
    assert one.vigil._is_lost()
    one.history.note("fault_started", fault="dead")
    assert not one.vigil._is_lost()
    one.end("agg", "aggregator", 69)
    assert one.vigil._is_lost()
    one.history.close()


@pytest.mark.parametrize("heal", [When("lasting", 0.2), When("after", 0.15, fault="other")])
def test_an_absence_that_is_planned_is_waited_for(
    heal: When, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ROUND_GRACE_S", "RELEASE_GRACE_S"):
        monkeypatch.setattr(vigil, name, -30.0)  # and the deadline of the plan is 60 s
    away = FaultPlan("away", "kill", "", ("agg",), When("time"), heal, parts={"agg": ("node",)})
    other = FaultPlan(
        "other", "pause", "", ("w01",), When("time"), When("lasting", 0.05), parts={"w01": ("trainer",)}
    )
    one = Watched(tmp_path, away, other)
    one.tell("all_ready", "agg", trainers=["w01"])
    with pytest.raises(FleetFailedError, match=r"nothing was heard for 0\.2 s"):
        one.vigil.watch_rounds()
    one.history.close()
