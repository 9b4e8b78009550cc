from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.contract import UsageError
from orchestrator import units
from orchestrator.units import DURATION, RATE, SHARE, SIZE, Quantity

ALL = (DURATION, RATE, SIZE, SHARE)


@pytest.mark.parametrize(
    ("quantity", "text", "value"),
    [
        (DURATION, "80 ms", "0.08"),
        (DURATION, "1.5min", "90"),
        (RATE, "10 Mbit", "10000000"),
        (RATE, "0.25 Mbit", "250000"),
        (SIZE, "1 GiB", "1073741824"),
        (SIZE, "0.5 KiB", "512"),
        (SIZE, "1 kB", "1000"),
        (SHARE, "2 %", "0.02"),
        (SHARE, "0.6", "0.6"),
    ],
)
def test_a_value_in_its_base_unit(quantity: Quantity, text: str, value: str) -> None:
    assert quantity.read(text) == Decimal(value)


@pytest.mark.parametrize(
    ("quantity", "text", "said"),
    [
        (DURATION, "80", "a duration needs a unit"),
        (DURATION, "80 msec", "msec is no unit of a duration"),
        (RATE, "10 mbit", "mbit is no unit of a rate"),
        (SIZE, "0.1 B", "not a whole number of B"),
        (SIZE, "-1 B", "cannot be negative"),
        (SHARE, "many", "is no share"),
        (SHARE, "nan", "is no share"),
        (SHARE, "1e5", "is no share"),
        (DURATION, "9" * 41 + " s", "is no duration"),
        (DURATION, "", "is no duration"),
    ],
)
def test_what_is_no_value_is_refused(quantity: Quantity, text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        quantity.read(text)


def test_the_nearest_unit_is_named() -> None:
    with pytest.raises(UsageError) as caught:
        RATE.read("10 mbit")
    assert "perhaps you meant Mbit" in caught.value.hint


@given(st.sampled_from(ALL), st.integers(0, 10**15))
def test_what_is_shown_is_read_back(quantity: Quantity, count: int) -> None:
    smallest = next(iter(quantity.units.values()))
    value = count * smallest
    assert quantity.read(quantity.show(value)) == value


@given(st.sampled_from(ALL), st.decimals(0, 10**6, places=3), st.data())
def test_a_larger_unit_is_a_larger_value(quantity: Quantity, number: Decimal, data: st.DataObject) -> None:
    names = list(quantity.units)
    values = [Decimal(number) * quantity.units[name] for name in names]
    assert values == sorted(values)
    name = data.draw(st.sampled_from(names))
    if not quantity.is_whole or values[names.index(name)] % 1 == 0:
        assert quantity.read(f"{number:f} {name}") == values[names.index(name)]


@given(st.sampled_from(ALL), st.text(max_size=60))
def test_any_text_is_a_value_or_a_complaint(quantity: Quantity, text: str) -> None:
    cure = "none needed"
    try:
        assert quantity.read(text) >= 0
    except UsageError as error:
        cure = error.hint
    assert cure


def test_every_unit_stands_in_the_order_of_its_size() -> None:
    for quantity in (units.DURATION, units.RATE, units.SIZE):
        assert list(quantity.units.values()) == sorted(quantity.units.values())
