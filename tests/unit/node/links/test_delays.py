"""The laws of delay and loss: their shares, their order, their random numbers."""

from __future__ import annotations

import dataclasses
import math
import statistics
from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.contract.links import Shape, TracePoint
from node.links.delays import (
    CORRUPT,
    DOUBLE,
    LOSE,
    Law,
    damaged,
    floor_ns,
    impossible,
    is_held,
    link_random,
    shape_at,
)
from node.links.icmp import checksum

MS = 1_000_000
MANY = 40_000


def law(shape: Shape, seed: int = 1) -> Law:
    return Law(shape, link_random(seed, "w01", "agg"))


def fates(shape: Shape, count: int = MANY) -> list[int]:
    one = law(shape)
    return [one.next(number * MS)[1] for number in range(count)]


def delays_ms(shape: Shape, count: int = MANY) -> list[float]:
    """Of packets so far apart that order holds none of them up."""
    one = law(shape)
    return [(one.next(at)[0] - at) / MS for at in range(0, count * 10**10, 10**10)]


def test_without_jitter_every_packet_takes_the_latency() -> None:
    assert set(delays_ms(Shape(latency_ms=40.0), 100)) == {40.0}


@pytest.mark.parametrize("loss", [0.01, 0.1, 0.5])
def test_independent_loss_has_its_share_and_its_runs(loss: float) -> None:
    lost = [fate == LOSE for fate in fates(Shape(loss=loss))]
    assert statistics.fmean(lost) == pytest.approx(loss, rel=0.15)
    runs = [len(list(run)) for is_lost, run in groupby(lost) if is_lost]
    assert statistics.fmean(runs) == pytest.approx(1 / (1 - loss), rel=0.1)


@pytest.mark.parametrize(("loss", "burst"), [(0.02, 4.0), (0.2, 10.0), (0.6, 3.0)])
def test_bursts_have_their_length_and_leave_the_share_alone(loss: float, burst: float) -> None:
    lost = [fate == LOSE for fate in fates(Shape(loss=loss, loss_burst=burst), 4 * MANY)]
    assert statistics.fmean(lost) == pytest.approx(loss, rel=0.1)
    runs = [len(list(run)) for is_lost, run in groupby(lost) if is_lost]
    assert statistics.fmean(runs) == pytest.approx(burst, rel=0.1)


def test_loss_of_all_and_of_none() -> None:
    assert set(fates(Shape(latency_ms=1, loss=1.0), 500)) == {LOSE}
    assert set(fates(Shape(latency_ms=1, loss=0.0), 500)) == {0}


def test_a_burst_too_short_for_its_loss_is_refused() -> None:
    said = impossible(Shape(loss=0.9, loss_burst=2.0))
    assert said is not None
    assert "bursts of 9 at least" in said
    assert impossible(Shape(loss=0.9)) is None
    assert impossible(Shape(loss=0.5, loss_burst=2.0)) is None
    assert impossible(Shape(loss_burst=2.0, trace=(TracePoint(0.0, loss=0.9),))) is not None


def test_corruption_and_duplication_have_their_shares() -> None:
    found = fates(Shape(corrupt=0.05, duplicate=0.1))
    assert statistics.fmean(bool(fate & CORRUPT) for fate in found) == pytest.approx(0.05, rel=0.15)
    assert statistics.fmean(bool(fate & DOUBLE) for fate in found) == pytest.approx(0.1, rel=0.15)


@pytest.mark.parametrize("kind", ["normal", "pareto"])
def test_jitter_has_its_deviation_around_the_latency(kind: str) -> None:
    found = delays_ms(Shape(latency_ms=100.0, jitter_ms=5.0, jitter_kind=kind))  # type: ignore[arg-type]
    assert statistics.fmean(found) == pytest.approx(100.0, abs=0.3)
    assert statistics.stdev(found) == pytest.approx(5.0, rel=0.25)
    # Normal is even on both sides; pareto is not, and has a least value.
    below = sum(delay < 100.0 for delay in found) / len(found)
    assert (below > 0.6) == (kind == "pareto")
    if kind == "pareto":
        assert min(found) >= 100.0 - 5.0 * 0.5 / math.sqrt(0.75) - 1e-6


def test_a_table_is_read_as_even_quantiles() -> None:
    table = (-1.0, 0.0, 3.0)
    found = sorted(delays_ms(Shape(latency_ms=50, jitter_ms=2.0, jitter_kind="table", jitter_table=table)))
    for share, wanted in ((0.0, 48.0), (0.25, 49.0), (0.5, 50.0), (0.75, 53.0), (1.0, 56.0)):
        assert found[round(share * (len(found) - 1))] == pytest.approx(wanted, abs=0.1)


def test_jitter_never_lets_a_packet_go_before_it_came() -> None:
    assert min(delays_ms(Shape(latency_ms=1.0, jitter_ms=5.0))) == 0.0


@given(st.floats(0.1, 100), st.floats(0, 50), st.floats(0, 0.5), st.lists(st.integers(0, 5 * MS), min_size=2))
def test_in_order_no_packet_overtakes(latency: float, jitter: float, loss: float, gaps: list[int]) -> None:
    one, at, last = law(Shape(latency_ms=latency, jitter_ms=jitter, loss=loss)), 0, 0
    for gap in gaps:
        at += gap
        due, _ = one.next(at)
        assert due >= max(at, last)
        last = due


def test_out_of_order_some_overtake() -> None:
    one = law(Shape(latency_ms=20.0, jitter_ms=5.0, in_order=False))
    dues = [one.next(at)[0] for at in range(0, 1000 * MS, MS)]
    assert dues != sorted(dues)


def test_reordered_packets_go_at_once_in_their_share() -> None:
    one = law(Shape(latency_ms=20.0, reorder=0.1))
    found = [one.next(at)[0] - at for at in range(0, MANY * MS, MS)]
    assert set(found) == {0, 20 * MS}
    assert found.count(0) / MANY == pytest.approx(0.1, rel=0.1)


def test_a_lower_latency_does_not_let_packets_overtake_those_before() -> None:
    before = law(Shape(latency_ms=200.0))
    assert before.next(0)[0] == 200 * MS
    after = law(Shape(latency_ms=10.0))
    after.follow(before)
    assert after.next(50 * MS)[0] == 200 * MS
    assert after.next(195 * MS)[0] == 205 * MS


def test_each_link_has_its_own_random_numbers() -> None:
    shape = Shape(loss=0.3)

    def pattern(seed: int, node: str, peer: str) -> list[int]:
        one = Law(shape, link_random(seed, node, peer))
        return [one.next(number)[1] for number in range(200)]

    assert pattern(7, "w01", "agg") == pattern(7, "w01", "agg")
    others = [pattern(8, "w01", "agg"), pattern(7, "agg", "w01"), pattern(7, "w01", "w02")]
    assert all(other != pattern(7, "w01", "agg") for other in others)


TRACE = (TracePoint(0.0, latency_ms=10), TracePoint(2.0, latency_ms=30, loss=0.5), TracePoint(3.0))


@pytest.mark.parametrize(
    ("elapsed", "latency", "loss", "until"),
    [(0.0, 10, 0.1, 2.0), (1.9, 10, 0.1, 2.0), (2.0, 30, 0.5, 3.0), (3.5, 99, 0.1, 4.0), (4.0, 10, 0.1, 6.0)],
)
def test_a_trace_repeats_and_its_gaps_are_the_shape(
    elapsed: float, latency: float, loss: float, until: float
) -> None:
    now, changes = shape_at(Shape(latency_ms=99, loss=0.1, trace=TRACE), elapsed)
    assert (now.latency_ms, now.loss, changes) == (latency, loss, until)
    assert now.trace == ()


def test_the_last_point_stays_when_a_trace_does_not_repeat() -> None:
    once = Shape(latency_ms=99, trace=TRACE[:2], trace_repeats=False)
    assert shape_at(once, 1000.0)[0].latency_ms == 30
    assert shape_at(once, 1000.0)[1] == math.inf


def test_a_law_follows_its_trace() -> None:
    steps = (TracePoint(0.0, latency_ms=10), TracePoint(2.0, latency_ms=30))
    one = Law(Shape(trace=steps), link_random(1, "a", "b"), traces_began_ns=5 * MS)
    found = [(one.next(5 * MS + second * 10**9)[0] - 5 * MS - second * 10**9) / MS for second in range(6)]
    assert found == [10, 10, 30, 30, 10, 10]  # the last step lasts as long as the one before it


def test_what_needs_no_holder_is_not_held() -> None:
    assert not is_held(Shape(rate_bit_s=10**6))
    assert not is_held(Shape(trace=(TracePoint(0.0, rate_bit_s=10**6),)))
    for held in (
        Shape(latency_ms=1),
        Shape(jitter_ms=1),
        Shape(loss=0.1),
        Shape(duplicate=0.1),
        Shape(corrupt=0.1),
        Shape(trace=(TracePoint(0.0, latency_ms=1),)),
    ):
        assert is_held(held)


def test_the_least_delay_is_known() -> None:
    assert floor_ns(Shape(latency_ms=20)) == 20 * MS
    assert floor_ns(Shape(latency_ms=20, jitter_ms=2)) == 12 * MS
    assert floor_ns(Shape(latency_ms=20, reorder=0.1)) == 0
    assert floor_ns(Shape(latency_ms=20, trace=TRACE)) == 10 * MS


@given(st.binary(min_size=8, max_size=200), st.integers(0, 2**32))
def test_a_damaged_packet_fails_its_checksum_and_keeps_its_header(body: bytes, seed: int) -> None:
    header = bytes([0x45]) + bytes(19)
    good = bytearray(body)
    good[2:4] = bytes(2)
    good[2:4] = checksum(bytes(good)).to_bytes(2, "big")
    assert checksum(bytes(good)) == 0
    spoilt = damaged(header + bytes(good), link_random(seed, "a", "b"))
    assert spoilt[:20] == header
    assert checksum(spoilt[20:]) != 0


def test_the_tolerance_grows_with_the_latency() -> None:
    assert law(Shape(latency_ms=10)).tolerance_ns == MS
    assert law(dataclasses.replace(Shape(), latency_ms=200)).tolerance_ns == 4 * MS
