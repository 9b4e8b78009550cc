from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aggregator import coordinator
from aggregator.coordinator import STATE
from aggregator.records import Chain, Record
from node.contract import ShoalError
from node.contract.messages import Answer, Signed, Work
from node.ipfs.errors import UnreachableError
from node.learning import encoding
from tests.unit.aggregator.fake_learning import FakeLearning, filled, template
from tests.unit.aggregator.fake_objects import FakeObjects, KilledError, Killer, sign
from tests.unit.aggregator.fleet_of_fakes import Fleet, job, soon


class Clock:
    """The coordinator's: it goes on when a test says so, so that no deadline comes by itself."""

    def __init__(self) -> None:
        self._ahead_s = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self._ahead_s

    def time(self) -> float:
        return time.time()

    def pass_deadline(self, fleet: Fleet) -> None:
        self._ahead_s += 2 * fleet.job.aggregation.deadline_s
        fleet.coordinator.desk.news.tell()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(coordinator, "time", made)
    return made


async def chain_of(fleet: Fleet) -> list[Record]:
    """All records, oldest first."""
    chain = Chain(fleet.folder, fleet.objects)
    cid, records = chain.head(), []
    while cid is not None:
        records.append(await chain.load(cid))
        cid = next(iter(records[-1].predecessors), None)
    return records[::-1]


async def test_a_run_of_two_rounds(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, job("w1", "w2"))
    await fleet.live("w1", "w2")
    first, second, third = await chain_of(fleet)
    assert [record.round for record in (first, second, third)] == [0, 1, 2]
    assert third.bases == (second.model,)
    assert [taken.sender for taken in third.accepted] == ["w1", "w2"]
    # (10 x 0.2 + 20 x 0.3) / 30 in each round
    model = encoding.check(fleet.objects.files[third.model], template())
    np.testing.assert_allclose(model["kernel"], 2 * 8 / 30, rtol=1e-6)
    assert fleet.objects.files[third.states[STATE]] == b"combined 2 times"
    (ready,) = fleet.events("all_ready")
    assert ready["trainers"] == ["w1", "w2"]
    closed = fleet.events("round_closed")
    assert [(event["round"], event["closed_by"], event["missing"]) for event in closed] == [
        (1, "all", []),
        (2, "all", []),
    ]
    (finished,) = fleet.events("run_finished")
    assert finished["rounds"] == 2
    assert finished["model"] == third.model
    assert finished["head"] == (tmp_path / "head").read_text().strip()


async def test_the_order_in_which_updates_come_changes_nothing(tmp_path: Path) -> None:
    models = set()
    for order in (("w1", "w2", "w3"), ("w3", "w2", "w1")):
        folder = tmp_path / order[0]
        folder.mkdir()
        fleet = Fleet(folder, job("w1", "w2", "w3"))
        await fleet.live(*order)
        models.add((await chain_of(fleet))[-1].model)
    assert len(models) == 1


async def test_a_deadline_closes_with_a_quorum_and_not_without(tmp_path: Path, clock: Clock) -> None:
    fleet = Fleet(tmp_path, job("w1", "w2", "w3", rounds=1, quorum=0.6, ready_s=0.05))

    async def wait_long() -> None:
        await soon(lambda: fleet.accepted == {(1, "w1"), (1, "w2")})
        clock.pass_deadline(fleet)

    await fleet.live("w1", "w2", beside=wait_long)
    (closed,) = fleet.events("round_closed")
    assert (closed["completed"], closed["closed_by"], closed["missing"]) == (True, "deadline", ["w3"])

    alone = tmp_path / "alone"
    alone.mkdir()
    fleet = Fleet(alone, job("w1", "w2", "w3", rounds=1, quorum=0.6, ready_s=0.05))

    async def wait_long_twice() -> None:
        await soon(lambda: len(fleet.events("update_accepted")) == 1)
        clock.pass_deadline(fleet)
        await soon(lambda: len(fleet.events("update_accepted")) == 2)
        clock.pass_deadline(fleet)

    await fleet.live("w1", beside=wait_long_twice)
    assert [event["completed"] for event in fleet.events("round_closed")] == [
        False,
        False,
    ]  # twice, then enough
    first, *others = await chain_of(fleet)
    assert {record.model for record in others} == {first.model}
    assert {record.round for record in others} == {0}
    assert fleet.events("run_finished")[0]["rounds"] == 0


async def test_a_trainer_that_is_not_ready_is_told_the_model(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, job("w1"))
    asked = asyncio.create_task(fleet.coordinator.desk.work("peer-w1", False))
    run = asyncio.create_task(fleet.coordinator.run(FakeLearning))
    work = await asked
    assert work.kind == "wait"
    assert fleet.objects.files[work.base] == encoding.encode(template())
    assert not fleet.events("all_ready")
    run.cancel()
    await asyncio.gather(run, return_exceptions=True)


async def test_who_has_another_model_is_told_the_newest_while_no_round_wants_it(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, job("w1", "w2"))
    told: list[Work] = []

    async def curious() -> None:
        """w2, which also says what it has."""
        desk, has = fleet.coordinator.desk, "none"
        while (work := await desk.work("peer-w2", True, has)).kind != "done":
            told.append(work)
            if work.kind == "train":
                await fleet.hand_in("w2", fleet.signed("w2", work))
            has = work.base

    await fleet.live("w1", beside=curious)
    kinds = [work.kind for work in told]
    assert kinds == ["wait", "train"] * (len(kinds) // 2), "and of the last model nobody is told"
    assert all(ahead.base == work.base for ahead, work in zip(told[::2], told[1::2], strict=True))
    assert len({work.base for work in told}) == len(told) // 2 > 1


BAD: dict[str, Callable[[Fleet, Work], Signed]] = {
    "forged": lambda fleet, work: replace(fleet.signed("w2", work), signature="u" + "0" * 64),
    "unsigned": lambda fleet, work: replace(fleet.signed("w2", work), signature=""),
    "wrong_round": lambda fleet, work: fleet.signed("w2", work, round=9),
    "wrong_base": lambda fleet, work: fleet.signed("w2", work, base=fleet.signed("w2", work).manifest.update),
    "wrong_encoding": lambda fleet, work: fleet.signed("w2", work, encoding="pickle"),
    "too_large": lambda fleet, work: fleet.signed("w2", work, bytes(10 * work.size_bytes)),
    "unfetchable": lambda fleet, work: fleet.signed("w2", work, update="bafkreie" + "a" * 51),
    "misshapen": lambda fleet, work: fleet.signed("w2", work, {"other": np.zeros((4, 3), np.float32)}),
    "not_finite": lambda fleet, work: fleet.signed("w2", work, filled(float("nan"))),
    "malformed": lambda fleet, work: fleet.signed("w2", work, b"x" * work.size_bytes),
}


@pytest.mark.parametrize("reason", BAD)
async def test_a_bad_update_is_refused_and_recorded_and_the_run_goes_on(tmp_path: Path, reason: str) -> None:
    fleet = Fleet(tmp_path, job("w1", "w2", rounds=1, quorum=0.5))

    async def bad() -> None:
        work = await fleet.ask("w2")
        signed = BAD[reason](fleet, work)
        answer = await fleet.hand_in("w2", signed)
        assert (answer.accepted, answer.reason) == (False, reason)
        assert signed.manifest.update not in fleet.objects.pinned
        await fleet.train("w2")

    await fleet.live("w1", beside=bad)
    _, record = await chain_of(fleet)
    assert record.completed
    (refused,) = record.refused
    assert (refused.sender, refused.reason) == ("w2", reason)
    if reason not in ("unsigned",):
        assert refused.signed is not None
    (event,) = fleet.events("update_refused")
    assert (event["sender"], event["reason"], event["round"]) == ("w2", reason, 1)


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({"loss": math.nan}, "loss is nan"),
        ({"loss": -math.inf}, "loss is -inf"),
        ({"train_s": math.inf}, "train_s is inf"),
    ],
)
async def test_a_training_that_came_to_no_number_has_had_its_turn(
    tmp_path: Path, changes: dict[str, Any], detail: str
) -> None:
    fleet = Fleet(tmp_path, job("w1", "w2", rounds=1, quorum=0.5))

    async def diverged() -> None:
        work, _ = await asyncio.gather(fleet.ask("w2"), fleet.ask("w1"))
        old = await fleet.hand_in("w2", fleet.signed("w2", work, round=9, **changes))
        assert old.reason == "wrong_round"  # which says nothing of this round's
        answer = await fleet.hand_in("w2", fleet.signed("w2", work, **changes))
        assert answer == Answer(False, "not_finite", detail)
        await fleet.train("w1")

    await fleet.live(beside=diverged)
    _, record = await chain_of(fleet)
    assert [(one.sender, one.reason) for one in record.refused] == [
        ("w2", "wrong_round"),
        ("w2", "not_finite"),
    ]
    (closed,) = fleet.events("round_closed")
    assert (closed["closed_by"], closed["accepted"]) == ("all", ["w1"])  # it was not waited for any more


def lying(fleet: Fleet, work: Work, more_bytes: int) -> Signed:
    return fleet.signed("w2", work, size_bytes=work.size_bytes + more_bytes)


async def test_a_size_is_only_its_authors_claim(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, job("w1", "w2", rounds=1, quorum=0.5))

    async def behave() -> None:
        work, _ = await asyncio.gather(fleet.ask("w2"), fleet.ask("w1"))
        assert (await fleet.hand_in("w2", lying(fleet, work, -1))).reason == "too_large"
        assert (await fleet.hand_in("w2", lying(fleet, work, 1))).reason == "unverified"
        asked = list(fleet.objects.fetched)
        assert (await fleet.hand_in("w2", lying(fleet, work, 10**9))).reason == "too_large"
        assert (await fleet.hand_in("w2", lying(fleet, work, -work.size_bytes))).reason == "too_large"
        assert fleet.objects.fetched == asked  # nobody was asked for it
        await asyncio.gather(fleet.train("w1"), fleet.train("w2"))

    await fleet.live(beside=behave)


async def test_a_replay_is_refused_and_a_stranger_recorded_once(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, job("w1", "w2", rounds=1))

    async def behave() -> None:
        work, _ = await asyncio.gather(fleet.ask("w1"), fleet.ask("w2"))
        first = fleet.signed("w1", work)
        assert (await fleet.hand_in("w1", first)).accepted
        assert (await fleet.hand_in("w1", first)).reason == "replayed"
        assert await fleet.hand_in("w2", first) == Answer(
            False, "forged", "the manifest is of another sender than the asker"
        )
        for _ in range(100):
            fleet.coordinator.desk.stranger("peer-x")
        await asyncio.gather(fleet.train("w1"), fleet.train("w2"))

    await fleet.live(beside=behave)
    refused = (await chain_of(fleet))[-1].refused
    assert [(one.sender, one.reason) for one in refused] == [
        ("w1", "replayed"),
        ("w2", "forged"),
        ("peer-x", "stranger"),
    ]


async def test_an_update_of_an_old_round_is_late_unless_it_was_accepted_then(
    tmp_path: Path, clock: Clock
) -> None:
    fleet = Fleet(tmp_path, job("w1", "w2", rounds=2, quorum=0.5))

    async def behave() -> None:
        work, _ = await asyncio.gather(fleet.ask("w1"), fleet.ask("w2"))
        mine, missing = fleet.signed("w1", work), fleet.signed("w2", work)
        assert (await fleet.hand_in("w1", mine)).accepted
        clock.pass_deadline(fleet)
        assert (await fleet.ask("w1")).round == 2
        assert await fleet.hand_in("w1", mine) == Answer(False, "replayed", "it was accepted in its round")
        assert await fleet.hand_in("w2", missing) == Answer(False, "late", "of round 1, open is 2")
        await asyncio.gather(fleet.train("w1"), fleet.train("w2"))

    await fleet.live(beside=behave)


async def test_a_slow_sender_holds_up_nobody_and_is_late(tmp_path: Path, clock: Clock) -> None:
    fleet = Fleet(tmp_path, job("w1", "w2", rounds=1, quorum=0.5))
    gate = asyncio.Event()

    async def slow() -> None:
        signed = fleet.signed("w2", await fleet.ask("w2"))
        fleet.objects.fetching[signed.manifest.update] = gate.wait()
        handing = asyncio.create_task(fleet.hand_in("w2", signed))
        await soon(lambda: signed.manifest.update in fleet.objects.fetched and bool(fleet.accepted))
        clock.pass_deadline(fleet)
        await soon(lambda: bool(fleet.events("run_finished")))
        gate.set()
        assert (await handing).reason == "late"
        assert signed.manifest.update not in fleet.objects.pinned

    await fleet.live("w1", beside=slow)
    (closed,) = fleet.events("round_closed")
    assert (closed["accepted"], closed["missing"]) == (["w1"], ["w2"])


async def test_a_flood_costs_only_its_own_place(tmp_path: Path, clock: Clock) -> None:
    fleet = Fleet(tmp_path, job("w1", "w2", rounds=1, quorum=0.5))

    async def flood() -> None:
        work = await fleet.ask("w2")
        for _ in range(50):
            assert not (await fleet.hand_in("w2", BAD["forged"](fleet, work))).accepted
        await soon(lambda: bool(fleet.accepted))
        clock.pass_deadline(fleet)

    await fleet.live("w1", beside=flood)
    assert len((await chain_of(fleet))[-1].refused) == 16
    assert len(fleet.events("update_refused")) == 16


async def test_before_the_first_round_an_update_is_to_come_again(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, job("w1"))
    with pytest.raises(ShoalError, match="no round"):
        await fleet.hand_in("w1", fleet.signed("w1", Work("train", base="b")))


async def test_old_objects_are_let_go_and_the_chain_stays(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, job("w1", "w2", rounds=12))
    await fleet.live("w1", "w2")
    records = await chain_of(fleet)
    assert len(records) == 13
    states = {cid for record in records for cid in record.states.values()}
    assert states <= fleet.objects.pinned
    newest = set().union(*(record.passing() for record in records[-2:]))
    assert fleet.objects.pinned == states | newest
    assert records[3].model not in fleet.objects.files  # collected


async def test_a_daemon_that_is_away_for_a_moment_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coordinator, "LOOK_S", 0.01)

    class Away(FakeObjects):
        absences = 3

        async def put_node(self, dag_json: bytes) -> str:
            if self.nodes and self.absences:
                self.absences -= 1
                raise UnreachableError("dag/put: no daemon answers")
            return await super().put_node(dag_json)

    fleet = Fleet(tmp_path, job("w1"), Away())
    await fleet.live("w1")
    assert [record.round for record in await chain_of(fleet)] == [0, 1, 2]


async def whole(folder: Path, kill_at: int | None) -> tuple[Fleet, int]:
    """A run in which the aggregator is killed once, and started again."""
    killer = Killer(kill_at)
    fleet = Fleet(folder, job("w1", "w2"), FakeObjects(killer))
    with killer.disk():
        try:
            await fleet.live("w1", "w2")
        except KilledError:
            killer.dead, killer.at = False, None
            await fleet.live("w1", "w2")
    return fleet, killer.steps


async def test_a_kill_between_any_two_steps_loses_nothing(tmp_path: Path) -> None:
    undisturbed, steps = await whole(tmp_path, None)
    expected = await chain_of(undisturbed)
    assert steps > 50
    for kill_at in range(1, steps + 1):
        folder = tmp_path / str(kill_at)
        folder.mkdir()
        fleet, _ = await whole(folder, kill_at)
        records = await chain_of(fleet)
        assert [(record.round, record.model) for record in records] == [
            (record.round, record.model) for record in expected
        ], f"killed at step {kill_at}"
        recorded = {(record.round, taken.sender) for record in records for taken in record.accepted}
        assert fleet.accepted <= recorded
        assert {event["round"] for event in fleet.events("round_closed")} == {1, 2}
        assert fleet.events("run_finished")


async def test_signatures_in_records_can_be_checked_again(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, job("w1", rounds=1))
    await fleet.live("w1")
    head = (tmp_path / "head").read_text().strip()
    node = json.loads(fleet.objects.nodes[head])
    (row,) = node["accepted"]
    assert row["signature"] == sign(row["manifest"].encode(), "peer-w1")
    assert set(row["update"]) == set(node["model"]) == set(node["states"][STATE]) == {"/"}
    assert node["predecessors"][0]["/"] in fleet.objects.pinned_alone
