"""Tables of jitter: what netem draws from them has the law that the holder follows."""

from __future__ import annotations

import statistics
from random import Random
from typing import Any

import pytest

from node.contract.links import Shape
from node.links.delays import jitter_sampler
from node.links.jitter import FARTHEST, UNIT, Distribution, distribution

DRAWS = 100_000
SHAPES: dict[str, dict[str, Any]] = {
    "pareto": {"jitter_kind": "pareto"},
    "table": {"jitter_kind": "table", "jitter_table": (-0.6, -0.5, -0.4, -0.3, -0.2, 7.5)},
}


def made(name: str) -> tuple[Shape, Distribution]:
    shape = Shape(latency_ms=50.0, jitter_ms=5.0, **SHAPES[name])
    found = distribution(shape)
    assert found is not None
    return shape, found


def in_deviations(found: Distribution) -> list[float]:
    return [entry * found.stretch / UNIT for entry in found.entries]


@pytest.mark.parametrize("name", SHAPES)
def test_its_quantiles_are_those_of_the_holder(name: str) -> None:
    shape, found = made(name)
    sample = jitter_sampler(shape, Random(1))
    drawn, entries = sorted(sample() for _ in range(DRAWS)), sorted(in_deviations(found))
    for share in (0.01, 0.1, 0.5, 0.9, 0.99):
        held, in_table = drawn[int(share * DRAWS)], entries[int(share * len(entries))]
        assert in_table == pytest.approx(held, rel=0.06, abs=0.03), share


def test_pareto_deviates_as_far_as_asked_around_the_latency() -> None:
    _, found = made("pareto")
    entries = in_deviations(found)
    assert statistics.pstdev(entries) == pytest.approx(1.0, abs=0.01)
    assert statistics.fmean(entries) == pytest.approx(0.0, abs=0.01)


@pytest.mark.parametrize("name", SHAPES)
def test_its_entries_fit_into_16_bits(name: str) -> None:
    _, found = made(name)
    assert max(map(abs, found.entries)) <= FARTHEST
    assert max(in_deviations(found)) > 4.5  # more than they could say at a stretch of 1


def test_each_form_has_a_file_of_its_own_and_one_number_to_a_line() -> None:
    (_, pareto), (_, table) = made("pareto"), made("table")
    assert pareto.file != table.file
    assert [int(line) for line in pareto.text.splitlines()] == list(pareto.entries)


def test_the_normal_one_is_brought_by_tc() -> None:
    assert distribution(Shape(latency_ms=5.0, jitter_ms=1.0)) is None
    assert distribution(Shape(latency_ms=5.0, jitter_kind="pareto")) is None
