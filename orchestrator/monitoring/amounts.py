"""Figures of the dashboards as people read them, by the units that Grafana knows. Pure."""

from __future__ import annotations

import math
from typing import Final

BINARY: Final = ("B", "KiB", "MiB", "GiB", "TiB")
DECIMAL: Final = ("", "K", "M", "G", "T")
SIGNIFICANT: Final = 3
# By Grafana's word: the factor from one size to the next, the sizes from the smallest on, and what follows.
SIZES: Final[dict[str, tuple[int, tuple[str, ...], str]]] = {
    "bytes": (1024, BINARY, ""),
    "binBps": (1024, BINARY, "/s"),
    "bps": (1000, DECIMAL, "bit/s"),
    "pps": (1000, DECIMAL, "packets/s"),
    "short": (1000, DECIMAL, ""),
}


def said(value: float, unit: str) -> str:
    """With its unit, and no more digits than mean anything."""
    if not math.isfinite(value):
        return "–"
    if unit == "percentunit":
        return f"{digits(value * 100)} %"
    if unit == "s":
        return seconds(value)
    factor, sizes, what = SIZES[unit]
    size = 0
    while abs(value) >= factor and size < len(sizes) - 1:
        value, size = value / factor, size + 1
    ending = sizes[size] + what
    return f"{digits(value)} {ending}" if ending else digits(value)


def seconds(value: float) -> str:
    if value == 0 or abs(value) >= 1:
        return f"{digits(value)} s"
    return f"{digits(value * 1e3)} ms" if abs(value) >= 1e-3 else f"{digits(value * 1e6)} µs"


def digits(value: float) -> str:
    """Three that count; whole numbers as they are."""
    if value == 0:
        return "0"
    if value == round(value) and abs(value) < 10_000:
        return str(round(value))
    places = max(0, SIGNIFICANT - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:.{places}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
