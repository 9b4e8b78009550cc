"""Values with their units, as scenarios write them: "80 ms", "10 Mbit", "2 %", "1 GiB"."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from node.contract import UsageError
from orchestrator import nearest

_SHAPE: Final = re.compile(r"([+-]?[0-9]+(?:\.[0-9]+)?)\s*([A-Za-z%]*)")
_LONGEST: Final = 40  # characters; no honest value is longer, and Decimal would round it


@dataclass(frozen=True)
class Quantity:
    """A kind of value: its units in multiples of the base unit, smallest first."""

    name: str
    units: Mapping[str, Decimal]
    is_whole: bool = False  # in the base unit
    is_bare_allowed: bool = False  # a number without a unit is one in the base unit

    def read(self, text: str) -> Decimal:
        """The value in the base unit, exactly."""
        example = f'write it as "10 {next(iter(self.units))}"; units: {", ".join(self.units)}'
        shape = _SHAPE.fullmatch(text.strip()) if len(text) <= _LONGEST else None
        if shape is None:
            raise UsageError(f"{text[:_LONGEST]!r} is no {self.name}", example)
        number, unit = shape.groups()
        if not unit and self.is_bare_allowed:
            factor = Decimal(1)
        elif not unit:
            raise UsageError(f"{text!r}: a {self.name} needs a unit", example)
        elif unit not in self.units:
            raise UsageError(f"{text!r}: {unit} is no unit of a {self.name}", nearest.hint(unit, self.units))
        else:
            factor = self.units[unit]
        value = Decimal(number) * factor
        if value < 0:
            raise UsageError(f"{text!r}: a {self.name} cannot be negative", example)
        if self.is_whole and value != value.to_integral_value():
            raise UsageError(f"{text!r} is not a whole number of {next(iter(self.units))}", example)
        return value

    def show(self, value: Decimal | int) -> str:
        """The value in the largest unit that needs no fraction, else in the smallest."""
        for unit, factor in reversed(self.units.items()):
            scaled = Decimal(value) / factor
            if scaled and scaled == scaled.to_integral_value():
                return f"{scaled:f}".partition(".")[0] + f" {unit}"
        unit, factor = next(iter(self.units.items()))
        return f"{Decimal(value) / factor:f} {unit}"


def _powers(base: int, first: int, *units: str) -> dict[str, Decimal]:
    return {unit: Decimal(base ** (first + power)) for power, unit in enumerate(units)}


DURATION: Final = Quantity(  # seconds
    "duration",
    {
        "us": Decimal("0.000001"),
        "ms": Decimal("0.001"),
        "s": Decimal(1),
        "min": Decimal(60),
        "h": Decimal(3600),
    },
)
RATE: Final = Quantity("rate", _powers(1000, 0, "bit", "kbit", "Mbit", "Gbit"), is_whole=True)  # bit/s
SIZE: Final = Quantity(  # bytes
    "size",
    dict(
        sorted(
            (
                _powers(1000, 0, "B", "kB", "MB", "GB", "TB") | _powers(1024, 1, "KiB", "MiB", "GiB", "TiB")
            ).items(),
            key=lambda unit: unit[1],
        )
    ),
    is_whole=True,
)
SHARE: Final = Quantity("share", {"%": Decimal("0.01")}, is_bare_allowed=True)  # of one
