"""Partition maps, by example and by law."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.contract import UsageError
from orchestrator.faults import partitions
from orchestrator.faults.partitions import Deaf

NAMES = ("agg", "w01", "w02", "w03", "w04")
fleets = st.integers(2, 30).flatmap(lambda n: st.permutations([f"n{i:02}" for i in range(n)]))
rings = st.integers(4, 30).flatmap(lambda n: st.permutations([f"n{i:02}" for i in range(n)]))


def hears(deaf: Deaf, node: str, peer: str) -> bool:
    return peer not in deaf.get(node, frozenset())


def is_symmetric(deaf: Deaf) -> bool:
    return all(not hears(deaf, peer, node) for node, others in deaf.items() for peer in others)


def sets(**deaf: str) -> dict[str, frozenset[str]]:
    return {name: frozenset(others.split()) for name, others in deaf.items()}


def test_the_isolated_stay_together() -> None:
    assert partitions.isolate(NAMES, ["w01", "w03"]) == sets(
        agg="w01 w03", w01="agg w02 w04", w02="w01 w03", w03="agg w02 w04", w04="w01 w03"
    )


def test_halves() -> None:
    assert partitions.halves(("w03", "agg", "w01", "w02")) == sets(
        w03="w01 w02", agg="w01 w02", w01="agg w03", w02="agg w03"
    )


def test_one_way() -> None:
    deaf = partitions.one_way(["agg"], ["w01", "w02", "agg"])
    assert deaf == sets(w01="agg", w02="agg")
    assert hears(deaf, "agg", "w01")


def test_the_bridge_hears_both_halves() -> None:
    deaf = partitions.bridge(NAMES, "w02")
    assert deaf == sets(agg="w03 w04", w01="w03 w04", w03="agg w01", w04="agg w01")


def test_the_ring_of_five() -> None:
    assert partitions.majorities_ring(NAMES) == sets(
        agg="w02 w03", w01="w03 w04", w02="agg w04", w03="agg w01", w04="w01 w02"
    )


def test_pairs() -> None:
    assert partitions.pairs([("agg", "w01"), ("w02", "agg")]) == sets(agg="w01 w02", w01="agg", w02="agg")


def test_only_those_that_talk_can_be_cut() -> None:
    talking = {("agg", "w01"), ("w01", "agg"), ("w02", "w01")}
    deaf = partitions.among(partitions.isolate(NAMES, ["w01"]), talking)
    assert deaf == sets(agg="w01", w01="agg w02")


def test_three_nodes_make_no_ring_of_majorities() -> None:
    with pytest.raises(UsageError, match="needs 4 nodes, these are 3"):
        partitions.majorities_ring(NAMES[:3])


@given(fleets, st.data())
def test_sides_hear_themselves_alone(ranked: list[str], data: st.DataObject) -> None:
    away = data.draw(st.sets(st.sampled_from(ranked)))
    for deaf, side in (
        (partitions.isolate(ranked, away), away),
        (partitions.halves(ranked), set(ranked[: len(ranked) // 2])),
    ):
        assert is_symmetric(deaf)
        for node in ranked:
            for peer in ranked:
                assert hears(deaf, node, peer) == ((node in side) == (peer in side))


@given(fleets, st.data())
def test_one_way_leaves_the_other_way(ranked: list[str], data: st.DataObject) -> None:
    senders, receivers = (data.draw(st.sets(st.sampled_from(ranked))) for _ in range(2))
    deaf = partitions.one_way(senders, receivers)
    for node in ranked:
        for peer in ranked:
            is_cut = node in receivers and peer in senders and node != peer
            assert hears(deaf, node, peer) == (not is_cut)


@given(fleets, st.data())
def test_a_bridge_joins_what_it_parts(ranked: list[str], data: st.DataObject) -> None:
    middle = data.draw(st.sampled_from(ranked))
    deaf = partitions.bridge(ranked, middle)
    assert is_symmetric(deaf)
    assert middle not in deaf
    sizes = {len(others) for others in deaf.values()}
    rest = len(ranked) - 1
    assert sizes == ({rest // 2, rest - rest // 2} - {0} if rest > 1 else set())


@given(rings)
def test_everybody_in_the_ring_hears_another_majority(ranked: list[str]) -> None:
    deaf = partitions.majorities_ring(ranked)
    heard = [frozenset(peer for peer in ranked if hears(deaf, node, peer)) for node in ranked]
    assert all(2 * len(one) > len(ranked) for one in heard)
    assert len(set(heard)) == len(ranked)
    assert is_symmetric(deaf)
    for one, other in pairwise(ranked):
        assert hears(deaf, one, other)


@given(fleets, st.data())
def test_a_heal_removes_only_its_own(ranked: list[str], data: st.DataObject) -> None:
    one, other = (partitions.isolate(ranked, data.draw(st.sets(st.sampled_from(ranked)))) for _ in range(2))
    both = partitions.union(one, other)
    for node in ranked:
        for peer in ranked:
            assert hears(both, node, peer) == (hears(one, node, peer) and hears(other, node, peer))
            assert hears(both, node, node)
    assert partitions.union(other) == other  # and so nothing of `one` is left without it
    assert partitions.union(both, one) == both
