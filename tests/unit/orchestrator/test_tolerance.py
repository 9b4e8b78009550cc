from __future__ import annotations

import math
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.contract.plan import LinkPlan
from orchestrator.measuring import tolerance

ALPHA = 1e-3


def link(latency_ms: float = 20.0, **more: Any) -> LinkPlan:
    return replace(LinkPlan("a", "b", latency_ms, jitter_ms=0.0, loss=0.0, rate_bit_s=None), **more)


@pytest.mark.parametrize(
    ("there", "back", "intended", "room"),
    [(0, 0, 0, 1), (20, 20, 40, 1), (110, 90, 200, 4), (300, 300, 600, 12)],
)
def test_a_round_trip_without_jitter(there: float, back: float, intended: float, room: float) -> None:
    found = tolerance.round_trip(link(there), link(back), 20, 20.0, ALPHA)
    assert (found.intended, found.high) == (intended, intended + room)
    assert found.low == max(0, intended - room)


def test_jitter_widens_it_only_as_far_as_chance_goes() -> None:
    shaky = link(50.0, jitter_ms=8.0)
    few = tolerance.round_trip(shaky, shaky, 20, 100.0, ALPHA)
    many = tolerance.round_trip(shaky, shaky, 200, 100.0, ALPHA)
    assert few.intended == pytest.approx(100, abs=1)
    assert few.low < many.low < 100 < many.high < few.high
    assert few.high < 100 + 1 + 4 * 8 * math.sqrt(2)


def test_latency_does_not_fall_below_nothing() -> None:
    """Half of a normal jitter around nothing is cut off: its middle is no longer the latency."""
    cut = tolerance.round_trip(link(0.0, jitter_ms=10.0), link(0.0), 60, 100.0, ALPHA)
    assert cut.low == 0
    assert cut.high > 1


@pytest.mark.parametrize(
    "more", [{"jitter_kind": "pareto"}, {"jitter_kind": "table", "jitter_table": (-1.0, 0.0, 3.0)}]
)
def test_the_middle_of_a_skewed_jitter_is_below_its_mean(more: dict[str, Any]) -> None:
    skewed = tolerance.round_trip(link(100.0, jitter_ms=10.0, **more), link(0.0), 60, 100.0, ALPHA)
    assert 90 < skewed.intended < 101  # of 4000 draws; the means are 100 and 105


def test_order_makes_late_echoes_hold_up_those_behind() -> None:
    ways = [link(50.0, jitter_ms=20.0, in_order=kept) for kept in (True, False)]
    middles = [tolerance.round_trip(way, link(0.0), 60, 1.0, ALPHA).intended for way in ways]
    assert middles[0] > middles[1] + 20


def test_the_region_of_a_binomial() -> None:
    low, high = tolerance.region(100, 0.5, 0.05)
    assert (low, high) == (40, 60)  # as every table has it
    assert tolerance.region(10_000, 0.0005, 1e-6)[0] == 0


@given(st.integers(1, 400), st.floats(0.001, 0.999), st.sampled_from([0.05, 1e-3, 1e-6]))
def test_no_more_than_asked_is_beyond_the_region(count: int, chance: float, alpha: float) -> None:
    low, high = tolerance.region(count, chance, alpha)
    beyond = sum(tolerance.probability(count, chance, k) for k in range(count + 1) if not low <= k <= high)
    assert beyond <= alpha * (1 + 1e-9)
    for near in (low, high):  # and it is no wider than it must be
        side = range(near + 1) if near == low else range(near, count + 1)
        assert sum(tolerance.probability(count, chance, k) for k in side) > alpha / 2 * (1 - 1e-9)


def test_losses_of_a_seeded_link_are_inside_and_others_are_not() -> None:
    random = Random(1)
    counted = sum(random.random() < 0.01 for _ in range(10_000)) / 10_000
    assert tolerance.share(0.01, 10_000, 1e-4).holds(counted)
    assert not tolerance.share(0.02, 10_000, 1e-4).holds(counted)
    assert not tolerance.share(0.005, 10_000, 1e-4).holds(counted)


def test_certain_shares_leave_no_room() -> None:
    assert tolerance.share(0.0, 100, ALPHA) == tolerance.Bounds(0.0, 0.0, 0.0)
    assert tolerance.share(1.0, 100, ALPHA) == tolerance.Bounds(1.0, 1.0, 1.0)


def test_runs_of_losses_say_less_than_as_many_packets() -> None:
    assert tolerance.effective(10_000, 0.01, 1.0) == 10_000
    # Of a chain that stays with 0.9 - 0.1/99: (1 + r) / (1 - r) packets count as one.
    stays = 1 - 0.1 - 0.01 / (10 * 0.99)
    assert tolerance.effective(10_000, 0.01, 10.0) == int(10_000 * (1 - stays) / (1 + stays))
    alone, runs = (tolerance.share(0.01, 10_000, ALPHA, burst) for burst in (1.0, 10.0))
    assert runs.low < alone.low < alone.high < runs.high


@given(st.integers(1, 200), st.floats(1e-6, 0.05))
def test_the_median_hardly_ever_falls_below_its_share(count: int, alpha: float) -> None:
    share = tolerance.median_share(count, alpha)
    assert 0 <= share < 0.5
    assert tolerance.tail(count, share, (count + 1) // 2) <= alpha / 2 * (1 + 1e-6)


def test_the_doubt_is_shared_by_all_figures() -> None:
    assert tolerance.doubt(10) * 10 == pytest.approx(1 - tolerance.CONFIDENCE)
