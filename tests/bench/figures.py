"""What a benchmark measures: one figure, its bound, and how it was taken."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Figure:
    """One measured value; a bound is the most that it may be."""

    name: str
    value: float
    unit: str
    bound: float | None
    how: str

    @property
    def holds(self) -> bool:
        return self.bound is None or self.value <= self.bound

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def show(figure: Figure) -> str:
    """A row of the table."""
    bound = "" if figure.bound is None else f"<= {figure.bound:g}" + ("" if figure.holds else "  VIOLATED")
    return f"  {figure.name:48} {figure.value:9.2f} {figure.unit:6} {bound}"
