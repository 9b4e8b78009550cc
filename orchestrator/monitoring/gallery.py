"""A finished run's dashboards as one page of HTML that needs no server and no network. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any, Final

from orchestrator.monitoring import chart
from orchestrator.monitoring.amounts import said
from orchestrator.monitoring.chart import Frame, Line

SHOWN_NAMES: Final = 12  # in the legend of a chart
INKS: Final = {"green": "#1a7f37", "yellow": "#b08800", "red": "#cf222e", "blue": "#0969da"}
UNKNOWN: Final = "#d0d7de"
STYLE: Final = """
body { font: 14px system-ui, sans-serif; margin: 0 auto; max-width: 1240px; padding: 16px; color: #1f2328;
  background: #fff; }
nav a { margin-right: 16px; }
.grid { display: grid; grid-template-columns: repeat(24, 1fr); gap: 8px; }
h3, section { grid-column: 1 / -1; margin: 8px 0 0; }
section { border: 1px solid #d0d7de; border-radius: 6px; padding: 8px; margin: 0; min-width: 0; }
h4 { margin: 0; font-weight: 600; }
p { margin: 2px 0; color: #59636e; font-size: 12px; }
.figure { font-size: 26px; font-weight: 600; }
svg { width: 100%; display: block; } svg text { font-size: 11px; fill: #59636e; }
svg polyline { fill: none; stroke-width: 1.8; }
svg line.grid { stroke: #eaeef2; } svg .mark { fill: #ffebe9; }
ul { list-style: none; margin: 2px 0; padding: 0; font-size: 12px; columns: 2; }
.bar { display: flex; align-items: center; gap: 6px; font-size: 12px; }
.bar b { width: 30%; font-weight: 400; }
.bar i { height: 12px; min-width: 1px; } .bar div { flex: 1; }
"""

Answers = Mapping[tuple[str, int], Sequence[Any]]  # dashboard's title and panel's id: what each query found


def page(
    title: str,
    dashboards: Mapping[str, Mapping[str, Any]],
    answers: Answers,
    marks: Sequence[Any],
    frame: Frame,
) -> str:
    """All dashboards, one after the other."""
    frame = Frame(frame.since_s, frame.until_s, frame.step_s, marked=marked(marks, frame.step_s))
    links = "".join(
        f'<a href="#{name}">{escape(dashboard["title"])}</a>' for name, dashboard in dashboards.items()
    )
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>",
        f"<h1>{escape(title)}</h1><nav>{links}</nav>",
        "<p>Time is in seconds since the first sample. Faults were in force where a chart is red behind its"
        " lines.</p>",
    ]
    for name, dashboard in dashboards.items():
        parts.append(
            f'<h2 id="{name}">{escape(dashboard["title"])}</h2><p>{escape(dashboard["description"])}</p>'
        )
        parts.append('<div class="grid">')
        for panel in dashboard["panels"]:
            if panel["type"] == "row":
                parts.append(f"<h3>{escape(panel['title'])}</h3>")
            else:
                parts.append(section(panel, answers[dashboard["title"], panel["id"]], frame))
        parts.append("</div>")
    return "\n".join([*parts, "</body></html>", ""])


def section(panel: Mapping[str, Any], found: Sequence[Any], frame: Frame) -> str:
    """One panel."""
    columns = panel["gridPos"]["w"]
    frame = Frame(frame.since_s, frame.until_s, frame.step_s, columns, frame.marked)
    drawn = [
        line
        for target, data in zip(panel["targets"], found, strict=True)
        for line in lines_of(panel, target, data)
    ]
    defaults = panel["fieldConfig"]["defaults"]
    if not drawn:
        inner = f"<p>no data: {escape(defaults.get('noValue', 'nobody said any'))}</p>"
    else:
        inner = DRAWN[panel["type"]](panel, drawn, frame)
    head = f"<h4>{escape(panel['title'])}</h4><p>{escape(panel['description'])}</p>"
    return f'<section style="grid-column: span {columns}">{head}{inner}</section>'


def lines_of(panel: Mapping[str, Any], target: Mapping[str, Any], data: Any) -> list[Line]:
    """What a query found, called as the panel calls it."""
    dashed = {
        override["matcher"]["options"]
        for override in panel["fieldConfig"]["overrides"]
        if any(one["id"] == "custom.lineStyle" for one in override["properties"])
    }
    made = []
    for series in data["result"]:
        name = called(target["legendFormat"], series["metric"])
        values = [series["value"]] if "value" in series else series["values"]
        points = [(float(time_s), float(value)) for time_s, value in values]
        made.append(Line(name, points, target["refId"] in dashed))
    return sorted(made, key=lambda line: line.name)


def called(legend: str, labels: Mapping[str, str]) -> str:
    """A line's name: words, and values of labels between braces."""
    return re.sub(r"\{\{(\w+)\}\}", lambda label: labels.get(label[1], ""), legend)


def _figure(panel: Mapping[str, Any], drawn: Sequence[Line], _: Frame) -> str:
    value = drawn[0].points[-1][1]
    ink = ink_of(panel, value)
    return f'<div class="figure" style="color: {ink}">{said(value, unit_of(panel))}</div>'


def _bars(panel: Mapping[str, Any], drawn: Sequence[Line], _: Frame) -> str:
    most = max((line.points[-1][1] for line in drawn if math.isfinite(line.points[-1][1])), default=0.0)
    rows = []
    for line in drawn:
        value = line.points[-1][1]
        share = value / most if most > 0 and math.isfinite(value) else 0.0
        bar = f'<i style="width: {60 * share:.1f}%; background: {ink_of(panel, value)}"></i>'
        figure = said(value, unit_of(panel))
        rows.append(f'<div class="bar"><b>{escape(line.name)}</b>{bar}<span>{figure}</span></div>')
    return "".join(rows)


def _lines(panel: Mapping[str, Any], drawn: Sequence[Line], frame: Frame) -> str:
    custom = panel["fieldConfig"]["defaults"].get("custom", {})
    unit = unit_of(panel)
    picture = chart.lines(
        frame,
        drawn,
        unit,
        is_stepped=custom.get("lineInterpolation") == "stepAfter",
        is_stacked=custom.get("stacking", {}).get("mode") == "normal",
    )
    names = []
    for index, line in enumerate(drawn[:SHOWN_NAMES]):
        known = [value for _, value in line.points if math.isfinite(value)]
        last = said(known[-1], unit) if known else "–"
        most = said(max(known), unit) if known else "–"
        key = f'<span style="color: {chart.colour_of(index)}">{"╌" if line.is_dashed else "━"}</span>'
        names.append(f"<li>{key} {escape(line.name)}: last {last}, most {most}</li>")
    if len(drawn) > SHOWN_NAMES:
        names.append(f"<li>and {len(drawn) - SHOWN_NAMES} more</li>")
    return f"{picture}<ul>{''.join(names)}</ul>"


def _states(panel: Mapping[str, Any], drawn: Sequence[Line], frame: Frame) -> str:
    (mapping,) = panel["fieldConfig"]["defaults"]["mappings"]
    words = mapping["options"]

    def colour(value: float) -> str:
        known = words.get(f"{value:g}")
        return INKS[known["color"]] if known else UNKNOWN

    keys = "".join(
        f'<li><span style="color: {INKS[word["color"]]}">■</span> {escape(word["text"])}</li>'
        for word in words.values()
    )
    return f"{chart.states(frame, drawn, colour)}<ul>{keys}</ul>"


DRAWN: Final[Mapping[str, Callable[[Mapping[str, Any], Sequence[Line], Frame], str]]] = {
    "stat": _figure,
    "bargauge": _bars,
    "timeseries": _lines,
    "state-timeline": _states,
}


def unit_of(panel: Mapping[str, Any]) -> str:
    unit: str = panel["fieldConfig"]["defaults"]["unit"]
    return unit


def ink_of(panel: Mapping[str, Any], value: float) -> str:
    """The colour of the highest step that the value has reached."""
    reached = [
        step["color"]
        for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
        if step["value"] is None or value >= step["value"]
    ]
    return INKS[reached[-1]]


def marked(found: Sequence[Any], step_s: float) -> list[tuple[float, float]]:
    """From when to when something was in force, of answers that have samples only then."""
    made = []
    for data in found:
        for series in data["result"]:
            points = [(float(time_s), float(value)) for time_s, value in series["values"]]
            made += [(since_s, until_s) for since_s, until_s, _ in chart.spans(points, step_s)]
    return made
