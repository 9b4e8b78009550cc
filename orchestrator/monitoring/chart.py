"""Lines over time and rows of states as SVG, which needs nothing but the page that it stands in. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import Final

from orchestrator.monitoring.amounts import said

WIDTH: Final = 1200  # of the whole page's 24 columns, in the drawing's own units
HEIGHT: Final = 190
LEFT: Final = 74  # for figures; names of rows may need more
LETTER: Final = 6  # its usual width
BOTTOM: Final = 20
TOP: Final = 6
RIGHT: Final = 8
ROW_HEIGHT: Final = 16
TICKS: Final = (1, 2, 5)
GAP_STEPS: Final = 1.5  # a longer pause is a gap in the line
# Told apart by those who see few colours, too.
COLOURS: Final = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
    "#7a5195",
    "#8c8c00",
    "#666666",
    "#a05a2c",
)

Point = tuple[float, float]  # time, value


@dataclass(frozen=True)
class Line:
    name: str
    points: Sequence[Point]
    is_dashed: bool = False


@dataclass(frozen=True)
class Frame:
    """What time is shown, on how wide a drawing, and when faults were in force."""

    since_s: float
    until_s: float
    step_s: float
    columns: int = 24
    marked: Sequence[tuple[float, float]] = ()
    left: float = LEFT

    @property
    def width(self) -> float:
        return WIDTH * self.columns / 24

    def x(self, time_s: float) -> float:
        span = max(self.until_s - self.since_s, 1e-9)
        return self.left + (time_s - self.since_s) / span * (self.width - self.left - RIGHT)


def lines(frame: Frame, drawn: Sequence[Line], unit: str, *, is_stepped: bool, is_stacked: bool) -> str:
    """A chart with its axes; stacked lines lie upon each other."""
    if is_stacked:
        drawn = stacked(drawn)
    most = max((value for line in drawn for _, value in line.points if math.isfinite(value)), default=0.0)
    least = min((value for line in drawn for _, value in line.points if math.isfinite(value)), default=0.0)
    ticks = scale(min(least, 0.0), most)
    low, high = ticks[0], ticks[-1]

    def y(value: float) -> float:
        return TOP + (high - value) / (high - low) * (HEIGHT - TOP - BOTTOM)

    parts = [_marks(frame, HEIGHT - BOTTOM), _time_axis(frame, HEIGHT)]
    for tick in ticks:
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{frame.width - RIGHT:.0f}" {_at("y", y(tick))}/>')
        parts.append(
            f'<text x="{LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{said(tick, unit)}</text>'
        )
    for index, line in enumerate(drawn):
        colour, name = colour_of(index), f"<title>{escape(line.name)}</title>"
        for piece in pieces(line.points, frame.step_s):
            path = " ".join(_path(frame, piece, y, is_stepped))
            style = ' stroke-dasharray="6 6"' if line.is_dashed else ""
            parts.append(f'<polyline points="{path}" stroke="{colour}"{style}>{name}</polyline>')
    return _svg(frame.width, HEIGHT, parts)


def states(frame: Frame, rows: Sequence[Line], colours: Callable[[float], str]) -> str:
    """A row for each, coloured by its value, beside its name."""
    longest = max((len(row.name) for row in rows), default=0)
    frame = replace(frame, left=max(frame.left, LETTER * longest + 12))
    height = ROW_HEIGHT * len(rows) + BOTTOM + TOP
    parts = [_time_axis(frame, height)]
    for index, row in enumerate(rows):
        top = TOP + index * ROW_HEIGHT
        parts.append(
            f'<text x="{frame.left - 6:.0f}" y="{top + 11}" text-anchor="end">{escape(row.name)}</text>'
        )
        for since_s, until_s, value in spans(row.points, frame.step_s):
            begin, end = frame.x(since_s), frame.x(min(until_s, frame.until_s))
            parts.append(
                f'<rect x="{begin:.1f}" y="{top + 1}" width="{end - begin + 0.3:.1f}"'
                f' height="{ROW_HEIGHT - 3}" fill="{colours(value)}"/>'
            )
    return _svg(frame.width, height, parts)


def colour_of(index: int) -> str:
    """Of the line of this number; after the last they begin again."""
    return COLOURS[index % len(COLOURS)]


def pieces(points: Sequence[Point], step_s: float) -> list[list[Point]]:
    """A line without what is no number, parted where nothing was known for a while."""
    parted: list[list[Point]] = []
    for time_s, value in points:
        if not math.isfinite(value):
            continue
        if not parted or time_s - parted[-1][-1][0] > GAP_STEPS * step_s:
            parted.append([])
        parted[-1].append((time_s, value))
    return parted


def spans(points: Sequence[Point], step_s: float) -> list[tuple[float, float, float]]:
    """From when to when it had one value without a gap."""
    found: list[tuple[float, float, float]] = []
    for piece in pieces(points, step_s):
        for index, (time_s, value) in enumerate(piece):
            if index and found[-1][2] == value:
                found[-1] = found[-1][0], time_s + step_s, value
            else:
                found.append((time_s, time_s + step_s, value))
    return found


def stacked(drawn: Sequence[Line]) -> list[Line]:
    """Each upon those before it; at times of which a line knows nothing it adds nothing."""
    heights: dict[float, float] = {}
    made = []
    for line in drawn:
        points = []
        for time_s, value in line.points:
            if math.isfinite(value):
                heights[time_s] = heights.get(time_s, 0.0) + value
                points.append((time_s, heights[time_s]))
        made.append(Line(line.name, points, line.is_dashed))
    return made


def scale(low: float, high: float, count: int = 4) -> list[float]:
    """Round numbers from at most `low` to at least `high`, in some equal steps."""
    if high <= low:
        high = low + 1
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(tick * power for tick in (*TICKS, 10) if tick * power >= raw * 0.999)
    first, last = math.floor(low / step), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1)]


def _path(frame: Frame, points: Sequence[Point], y: Callable[[float], float], is_stepped: bool) -> list[str]:
    made: list[str] = []
    before: float | None = None
    for time_s, value in points:
        if is_stepped and before is not None:
            made.append(f"{frame.x(time_s):.1f},{y(before):.1f}")
        made.append(f"{frame.x(time_s):.1f},{y(value):.1f}")
        before = value
    if len(points) == 1:  # else a single figure would not be seen
        made.append(f"{frame.x(points[0][0]) + 3:.1f},{y(points[0][1]):.1f}")
    return made


def _marks(frame: Frame, bottom: float) -> str:
    return "".join(
        f'<rect class="mark" x="{frame.x(begin):.1f}" y="{TOP}" '
        f'width="{max(frame.x(end) - frame.x(begin), 1):.1f}" height="{bottom - TOP:.0f}"/>'
        for begin, end in frame.marked
    )


def _time_axis(frame: Frame, height: float) -> str:
    ticks = scale(0, frame.until_s - frame.since_s, count=max(2, frame.columns // 3))
    shown = [(frame.x(frame.since_s + tick), tick) for tick in ticks if frame.since_s + tick <= frame.until_s]
    return "".join(
        f'<text x="{x:.1f}" y="{height - 5:.0f}" text-anchor="middle">{tick:g} s</text>' for x, tick in shown
    )


def _at(axis: str, value: float) -> str:
    return f'{axis}1="{value:.1f}" {axis}2="{value:.1f}"'


def _svg(width: float, height: float, parts: Sequence[str]) -> str:
    return f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img">{"".join(parts)}</svg>'
