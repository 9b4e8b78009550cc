"""Files of numbers beside a scenario: a link that changes with time, and the form of its jitter."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import itertools
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from node.contract import UsageError
from node.contract.links import TracePoint
from node.contract.plan import TracePlan
from orchestrator import units
from orchestrator.planning.document import Item
from orchestrator.units import Quantity

MOST_BYTES: Final = 1 << 20
MOST_POINTS: Final = 10_000
MOST_QUANTILES: Final = 64  # a table stands in every link that has it
LEAST_RATE_BIT_S: Final = 8000  # a full packet takes 1.5 s then, as long as a handshake of two peers can bear
LONGEST_S: Final = Decimal(60)  # of latency and jitter

# What a column means, and the unit of a number that has none.
COLUMNS: Final[Mapping[str, tuple[Quantity, str]]] = {
    "time": (units.DURATION, "s"),
    "latency": (units.DURATION, "ms"),
    "rate": (dataclasses.replace(units.RATE, is_whole=False), "Mbit"),  # measured ones have fractions
    "loss": (units.SHARE, ""),
}


def read(item: Item, folder: Path) -> TracePlan:
    """The trace in the CSV file that a scenario names; whether it repeats is said elsewhere."""
    name, data = _file(item, folder, ".csv")
    with item.located():
        points = parse(data, name)
    return TracePlan(name, hashlib.sha256(data).hexdigest(), True, points)


def parse(data: bytes, name: str) -> tuple[TracePoint, ...]:
    """The points of a trace; whatever is missing in it is told with its line."""
    rows = _rows(data, name)
    line, header = next(rows, (1, []))
    if not header or header[0] != "time" or len(header) < 2:
        raise UsageError(f"{name}:{line}: the columns are not named", "begin with: time,latency,rate,loss")
    for column in header:
        if column not in COLUMNS or header.count(column) > 1:
            raise UsageError(
                f"{name}:{line}: {column!r} is no column, or stands twice", f"known: {', '.join(COLUMNS)}"
            )
    points: list[TracePoint] = []
    for line, cells in rows:
        if len(cells) != len(header) or not all(cells):
            raise UsageError(
                f"{name}:{line}: a value is missing: {len(header)} columns need as many values",
                "repeat the last value, or take the column out",
            )
        found = dict(zip(header, cells, strict=True))
        values = {key: _cell(f"{name}:{line}", key, text) for key, text in found.items()}
        at_s = float(values["time"])
        if not points and at_s:
            raise UsageError(f"{name}:{line}: the trace begins at {at_s:g} s", "begin at 0")
        if points and at_s <= points[-1].at_s:
            raise UsageError(
                f"{name}:{line}: {at_s:g} s is not after {points[-1].at_s:g} s", "times must rise"
            )
        points.append(_point(at_s, values))
    if not 2 <= len(points) <= MOST_POINTS:
        raise UsageError(
            f"{name}: {len(points)} points are no trace",
            f"from 2 to {MOST_POINTS}; the last one lasts as long as the one before it",
        )
    return tuple(points)


def read_quantiles(item: Item, folder: Path) -> tuple[float, ...]:
    """The form of a jitter, from numbers in the scenario or in a file: one to a line."""
    if isinstance(item.value, list):
        numbers = [one.number(-1e12, 1e12) for one in item.items()]
    else:
        name, data = _file(item, folder, ".txt")
        with item.located():
            numbers = [_number(f"{name}:{line}", cells) for line, cells in _rows(data, name)]
    with item.located():
        return quantiles(numbers)


def quantiles(numbers: Sequence[float]) -> tuple[float, ...]:
    """Measured values as even quantiles with mean 0 and standard deviation 1; only their form counts.

    Both are of what the engines draw: they go along the straight lines between the quantiles.
    """
    ordered = sorted(numbers)
    if len(ordered) > MOST_QUANTILES:
        step = len(ordered) / MOST_QUANTILES
        ordered = [ordered[math.floor((index + 0.5) * step)] for index in range(MOST_QUANTILES)]
    if len(ordered) < 2 or ordered[0] == ordered[-1]:
        raise UsageError("these numbers have no form", "give at least two that differ")
    lines = list(itertools.pairwise(ordered))
    mean = statistics.fmean((low + high) / 2 for low, high in lines)
    around = [(low - mean, high - mean) for low, high in lines]
    deviation = math.sqrt(statistics.fmean((a * a + a * b + b * b) / 3 for a, b in around))
    return tuple(round((number - mean) / deviation, 6) + 0.0 for number in ordered)


def _file(item: Item, folder: Path, ending: str) -> tuple[str, bytes]:
    name = item.text()
    path = Path(name)
    if path.is_absolute() or ".." in path.parts or path.suffix != ending:
        raise item.error(
            f"{name!r} is no {ending} file beside the scenario", f"write for example: mine{ending}"
        )
    try:
        data = (folder / path).read_bytes()
    except OSError as error:
        raise item.error(
            f"{name} cannot be read: {error.strerror}", "it is sought beside the scenario"
        ) from error
    if len(data) > MOST_BYTES:
        raise item.error(f"{name} has more than {MOST_BYTES} bytes", "thin it out")
    return name, data


def _rows(data: bytes, name: str) -> Iterator[tuple[int, list[str]]]:
    """The cells of each line that is no comment. An empty line at the end is none; elsewhere it is a gap."""
    try:
        lines = data.decode("utf-8-sig").rstrip().splitlines()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{name}:{line}: this is not UTF-8") from error
    for line, text in enumerate(lines, start=1):
        if not text.startswith("#"):
            try:
                yield line, [cell.strip() for cell in next(csv.reader([text], strict=True), [])]
            except csv.Error as error:
                raise UsageError(f"{name}:{line}: this is not CSV: {error}") from error


def _cell(where: str, column: str, text: str) -> Decimal:
    kind, unit = COLUMNS[column]
    bounds: Mapping[str, tuple[Decimal | int, Decimal | int]] = {
        "latency": (0, LONGEST_S),
        "rate": (LEAST_RATE_BIT_S, 10**12),
        "loss": (0, 1),
        "time": (0, 10**7),
    }
    try:
        value = kind.read(text if text[-1:].isalpha() or text.endswith("%") else f"{text} {unit}")
    except UsageError as error:
        raise UsageError(f"{where}: {column}: {error.message}", error.hint) from error
    least, most = bounds[column]
    if not least <= value <= most:
        raise UsageError(
            f"{where}: {column}: {text} is out of range", f"from {kind.show(least)} to {kind.show(most)}"
        )
    return value


def _point(at_s: float, values: Mapping[str, Decimal]) -> TracePoint:
    def given(column: str, convert: Callable[[Decimal], Any]) -> Any:
        return convert(values[column]) if column in values else None

    return TracePoint(
        at_s=at_s,
        latency_ms=given("latency", lambda value: float(value * 1000)),
        rate_bit_s=given("rate", int),
        loss=given("loss", float),
    )


def _number(where: str, cells: Sequence[str]) -> float:
    try:
        (cell,) = cells
        value = float(cell)
    except ValueError as error:
        raise UsageError(f"{where}: {','.join(cells)[:40]!r} is no number", "one number to a line") from error
    if not math.isfinite(value):
        raise UsageError(f"{where}: {cells[0]} is no number", "one number to a line")
    return value
