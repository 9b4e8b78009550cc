"""The chain of records and the journal of the open round, on a real disk."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aggregator.journal import JOURNAL_FILE, Journal, Opening
from aggregator.records import Chain, Record, Taken
from aggregator.rounds import Refused, Terms
from node.contract import HostError, ShoalError, UsageError
from node.contract.messages import ENCODING, Manifest, Signed
from tests.unit.aggregator.fake_objects import FakeObjects

TERMS = Terms("run", 1, 1, "base", 100, ("w1", "w2"), 2, 30.0)
SIGNED = Signed(Manifest("run", 1, "peer", "base", "update", 100, ENCODING, 50, 0.1, 0.2, 0.3), "uAAAA")
OPENING = Opening("head", 12.5, TERMS)
FIRST = Record("run", 0, 0, "mean", (), (), "model", 100, {"strategy": "state"})


def journal(folder: Path) -> Journal:
    one = Journal(folder)
    one.begin(OPENING)
    one.accept(Taken("w1", SIGNED))
    one.refuse(Refused("w2", "forged", "said something", SIGNED))
    one.refuse(Refused("x", "stranger", ""))
    return one


def test_a_journal_is_read_back(tmp_path: Path) -> None:
    assert Journal(tmp_path).read() is None
    journal(tmp_path)
    found = Journal(tmp_path).read()
    assert found is not None
    assert found.opening == OPENING
    assert found.accepted == (Taken("w1", SIGNED),)
    assert [refused.sender for refused in found.refused] == ["w2", "x"]
    assert found.refused[0].signed == SIGNED


def test_a_new_round_forgets_the_last(tmp_path: Path) -> None:
    journal(tmp_path).begin(replace(OPENING, predecessor="newer"))
    found = Journal(tmp_path).read()
    assert found is not None
    assert (found.opening.predecessor, found.accepted, found.refused) == ("newer", (), ())


def test_wherever_a_write_broke_off_the_lines_before_count_and_the_next_is_whole(tmp_path: Path) -> None:
    journal(tmp_path)
    file = tmp_path / JOURNAL_FILE
    data = file.read_bytes()
    lines = data.splitlines(keepends=True)
    for end in range(len(lines[0]), len(data) + 1, 7):
        file.write_bytes(data[:end])
        found = Journal(tmp_path).read()
        assert found is not None
        whole = data[:end].count(b"\n") - 1
        assert len(found.accepted) + len(found.refused) == whole
        Journal(tmp_path).accept(Taken("w9", SIGNED))
        again = Journal(tmp_path).read()
        assert again is not None
        assert again.accepted[-1].sender == "w9"


def test_a_full_disk_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = journal(tmp_path)
    before = (tmp_path / JOURNAL_FILE).read_bytes()
    write = os.write
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:10]))
        with pytest.raises(HostError, match="free some space"):
            one.accept(Taken("w2", SIGNED))
    assert (tmp_path / JOURNAL_FILE).read_bytes() == before


@pytest.mark.parametrize("line", [b"nonsense\n", b"[]\n", b'{"accepted": {"sender": 1}}\n'])
def test_a_damaged_line_is_named(tmp_path: Path, line: bytes) -> None:
    journal(tmp_path)
    with open(tmp_path / JOURNAL_FILE, "ab") as file:
        file.write(line)
    with pytest.raises(UsageError, match=f"{JOURNAL_FILE}:5"):
        Journal(tmp_path).read()


async def test_records_are_read_back_and_head_names_the_newest(tmp_path: Path) -> None:
    objects = FakeObjects()
    chain = Chain(tmp_path, objects)
    assert chain.head() is None
    first = await chain.append(FIRST)
    second = replace(
        FIRST,
        round=1,
        attempt=1,
        predecessors=(first,),
        bases=("model",),
        asked=("w1", "w2"),
        closed_by="deadline",
        accepted=(Taken("w1", SIGNED),),
        refused=(Refused("w2", "forged", "why", SIGNED), Refused("x", "stranger", "")),
    )
    newest = await chain.append(second)
    assert Chain(tmp_path, objects).head() == newest
    assert await chain.load(newest) == second
    assert await chain.load(first) == FIRST
    assert objects.pinned_alone == {first, newest}


async def test_a_node_of_another_kind_is_no_record(tmp_path: Path) -> None:
    class Other(FakeObjects):
        async def get_node(self, path: str) -> Any:
            return {"kind": "another"}

    with pytest.raises(ShoalError, match="no record"):
        await Chain(tmp_path, Other()).load("cid")


async def test_what_has_passed_is_what_nothing_newer_needs(tmp_path: Path) -> None:
    chain = Chain(tmp_path, FakeObjects())
    models = ["m0", "m1", "m1", "m3", "m4"]  # the second round made none
    for number, model in enumerate(models):
        head = chain.head()
        states = {"strategy": "m0" if number == 4 else f"s{number}"}  # a state of the same bytes as a model
        await chain.append(
            replace(FIRST, attempt=number, model=model, states=states, predecessors=(head,) if head else ())
        )
    assert await chain.passed() == {"m1"}
