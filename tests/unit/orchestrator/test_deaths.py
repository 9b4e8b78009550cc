"""Which deaths of containers are news."""

from __future__ import annotations

import pytest

from node.contract import ShoalError
from orchestrator.containers.containers import Death
from orchestrator.containers.deaths import Deaths


class Heard:
    def __init__(self, last_words: str | None = "") -> None:
        self._last_words = last_words
        self.ended: list[tuple[str, int, str, bool]] = []
        self.said: list[str] = []
        self._deaths = Deaths(
            self._tail,
            lambda node, part: (node, part) == ("w02", "ipfs"),
            lambda *what: self.ended.append(what),
            self.said.append,
        )

    def _tail(self, node: str, part: str) -> str:
        if self._last_words is None:
            raise ShoalError("it is gone")
        return self._last_words

    def of(self, node: str, part: str, status: int, *, for_memory: bool = False) -> Heard:
        self._deaths.hear(Death(node, part, status, for_memory))
        return self


def test_who_was_killed_could_not_tell_it() -> None:
    heard = Heard().of("w01", "ipfs", 137).of("w02", "ipfs", 137)
    assert heard.ended == [("w01", -9, "ipfs", False), ("w02", -9, "ipfs", True)]
    assert heard.said == []


def test_of_who_had_no_memory_left_the_cause_is_told_with_its_cure() -> None:
    heard = Heard().of("w01", "trainer", 137, for_memory=True)
    assert heard.ended == [("w01", -9, "trainer", False)]
    assert heard.said[0].startswith("  trainer of w01 was killed for memory: give its class more")
    assert Heard().of("w02", "ipfs", 137, for_memory=True).said == []  # a fault has killed it


def test_who_ended_before_its_part_began_says_why() -> None:
    heard = Heard("node: cannot read agg.json").of("agg", "aggregator", 64)
    assert heard.ended == [("agg", 64, "aggregator", False)]
    assert heard.said == [
        "the container of agg-aggregator has ended with 64; it said last:\nnode: cannot read agg.json"
    ]


@pytest.mark.parametrize(
    ("node", "part", "status", "words"),
    [
        ("w01", "trainer", 0, ""),
        ("w01", "trainer", 70, ""),
        ("w01", "trainer", 70, None),
        ("w01", "holder", 137, ""),
    ],
)
def test_what_was_told_already_is_no_news(node: str, part: str, status: int, words: str | None) -> None:
    heard = Heard(words).of(node, part, status)
    assert (heard.ended, heard.said) == ([], [])


@pytest.mark.parametrize(("status", "told"), [(137, -9), (2, 2), (0, 0)])
def test_without_the_lines_that_zones_share_the_run_is_lost(status: int, told: int) -> None:
    heard = Heard().of("", "trunks", status)
    assert heard.ended == [("trunks", told, "container", False)]


def test_the_gate_is_no_part_of_a_node_but_a_person_wants_to_know() -> None:
    heard = Heard().of("", "gate", 137)
    assert (heard.ended, heard.said) == ([], ["the container of gate has ended with 137"])
