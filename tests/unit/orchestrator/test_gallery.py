from __future__ import annotations

import html
import math
import re
import xml.etree.ElementTree as ET
from typing import Any

import pytest

from orchestrator.monitoring import amounts, chart, gallery, panels
from orchestrator.monitoring.chart import Frame, Line

FRAME = Frame(100.0, 110.0, 1.0, columns=12)


@pytest.mark.parametrize(
    ("value", "unit", "said"),
    [
        (0, "short", "0"),
        (6, "short", "6"),
        (12_345, "short", "12.3 K"),
        (2.8520365, "short", "2.85"),
        (0.96666, "percentunit", "96.7 %"),
        (55_448, "bytes", "54.1 KiB"),
        (6_325_589, "bytes", "6.03 MiB"),
        (1536, "binBps", "1.5 KiB/s"),
        (2e7, "bps", "20 Mbit/s"),
        (31, "pps", "31 packets/s"),
        (0.085022, "s", "85 ms"),
        (0.0000412, "s", "41.2 µs"),
        (7.578, "s", "7.58 s"),
        (math.nan, "s", "–"),
    ],
)
def test_figures_as_people_read_them(value: float, unit: str, said: str) -> None:
    assert amounts.said(value, unit) == said


def test_every_unit_of_the_dashboards_can_be_said() -> None:
    units = {
        panel["fieldConfig"]["defaults"]["unit"]
        for dashboard in panels.dashboards().values()
        for panel in dashboard["panels"]
        if panel["type"] not in ("row", "state-timeline")
    }
    assert all(amounts.said(1234.5, unit) for unit in units)


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 1, [0, 0.5, 1.0]),
        (0, 7, [0, 2, 4, 6, 8]),
        (0, 0, [0, 0.5, 1.0]),
        (-3, 5, [-4, -2, 0, 2, 4, 6]),
        (0, 0.04, [0, 0.01, 0.02, 0.03, 0.04]),
    ],
)
def test_a_scale_has_round_numbers_around_all_values(low: float, high: float, ticks: list[float]) -> None:
    assert chart.scale(low, high) == pytest.approx(ticks)


def test_a_line_is_parted_where_nothing_was_known() -> None:
    points = [(1.0, 5.0), (2.0, 6.0), (3.0, math.nan), (4.0, 6.0), (9.0, 7.0)]
    assert chart.pieces(points, 1.0) == [[(1.0, 5.0), (2.0, 6.0)], [(4.0, 6.0)], [(9.0, 7.0)]]


def test_states_last_until_they_change_or_nobody_knows() -> None:
    points = [(1.0, 0.0), (2.0, 1.0), (3.0, 1.0), (9.0, 1.0)]
    assert chart.spans(points, 1.0) == [(1.0, 2.0, 0.0), (2.0, 4.0, 1.0), (9.0, 10.0, 1.0)]


def test_stacked_lines_stand_upon_each_other() -> None:
    first, second = chart.stacked([Line("a", [(1.0, 2.0), (2.0, 3.0)]), Line("b", [(2.0, 4.0)])])
    assert (first.points, second.points) == ([(1.0, 2.0), (2.0, 3.0)], [(2.0, 7.0)])


def points_of(drawing: str) -> list[list[tuple[float, float]]]:
    found = [element.attrib["points"] for element in ET.fromstring(drawing) if element.tag == "polyline"]
    return [[(float(x), float(y)) for x, y in (pair.split(",") for pair in text.split())] for text in found]


def test_a_chart_shows_each_value_where_it_belongs() -> None:
    frame = Frame(100.0, 110.0, 10.0, columns=12)
    lines = [Line("one & only", [(100.0, 0.0), (110.0, 8.0)], is_dashed=True)]
    drawing = chart.lines(frame, lines, "short", is_stepped=False, is_stacked=False)
    ((low, high),) = points_of(drawing)
    assert low == (chart.LEFT, chart.HEIGHT - chart.BOTTOM)
    assert high == (frame.width - chart.RIGHT, chart.TOP)
    assert "stroke-dasharray" in drawing
    assert "one &amp; only" in drawing


def test_a_step_stays_level_until_the_next_value() -> None:
    frame = Frame(100.0, 110.0, 10.0)
    lines = [Line("a", [(100.0, 0.0), (110.0, 8.0)])]
    ((first, level, last),) = points_of(chart.lines(frame, lines, "s", is_stepped=True, is_stacked=False))
    assert level == (last[0], first[1])


def test_a_single_value_can_be_seen() -> None:
    ((begin, end),) = points_of(
        chart.lines(FRAME, [Line("a", [(105.0, 1.0)])], "s", is_stepped=True, is_stacked=False)
    )
    assert end[0] > begin[0]


def test_long_names_of_rows_find_room_beside_them() -> None:
    rows = [
        Line(name, [(100.0, 1.0), (110.0, 1.0)]) for name in ("w01 ipfs", "agg aggregator, named at length")
    ]
    drawing = ET.fromstring(chart.states(FRAME, rows, lambda _: "red"))
    (_, longest) = [one for one in drawing if one.tag == "text" and one.attrib["text-anchor"] == "end"]
    end_of_name = float(longest.attrib["x"])
    assert end_of_name >= chart.LETTER * len(rows[1].name)
    bars = [one for one in drawing if one.tag == "rect"]
    assert min(float(bar.attrib["x"]) for bar in bars) > end_of_name
    assert max(float(bar.attrib["x"]) + float(bar.attrib["width"]) for bar in bars) <= FRAME.width


def answer(*series: tuple[dict[str, str], list[tuple[float, str]]]) -> dict[str, Any]:
    return {"result": [{"metric": labels, "values": values} for labels, values in series]}


def panel(kind: str, **more: Any) -> dict[str, Any]:
    defaults = {
        "unit": "short",
        "thresholds": {"steps": [{"value": None, "color": "green"}, {"value": 5, "color": "red"}]},
        **more,
    }
    return {
        "id": 2,
        "type": kind,
        "title": "How <many>",
        "description": "It says.",
        "gridPos": {"w": 12},
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "targets": [{"refId": "A", "legendFormat": "{{node}} of us"}],
    }


def test_a_figure_has_the_colour_of_the_step_that_it_reached() -> None:
    found = {"result": [{"metric": {}, "value": [1, "6"]}]}
    drawn = gallery.section(panel("stat"), [found], FRAME)
    assert re.search(rf'color: {gallery.INKS["red"]}">6</div>', drawn)
    assert "How &lt;many&gt;" in drawn
    assert "grid-column: span 12" in drawn


def test_lines_are_named_by_their_labels_and_summed_up() -> None:
    found = answer(({"node": "w02"}, [(100, "1"), (101, "4"), (102, "NaN")]), ({"node": "w01"}, [(100, "0")]))
    drawn = gallery.section(panel("timeseries"), [found], FRAME)
    assert "w01 of us: last 0, most 0" in drawn
    assert "w02 of us: last 4, most 4" in drawn
    assert drawn.index("w01 of us:") < drawn.index("w02 of us:")


def test_states_have_the_colours_of_their_words() -> None:
    words = {"0": {"text": "ended", "color": "red"}, "1": {"text": "runs", "color": "green"}}
    mapped = panel("state-timeline", mappings=[{"options": words}])
    found = answer(({"node": "w01"}, [(100, "1"), (101, "1"), (102, "0")]))
    drawn = gallery.section(mapped, [found], FRAME)
    assert [drawn.count(f'fill="{gallery.INKS[ink]}"') for ink in ("green", "red")] == [1, 1]
    assert "■</span> ended" in drawn


def test_a_panel_without_data_says_why() -> None:
    drawn = gallery.section(panel("timeseries", noValue="nothing was lost"), [answer()], FRAME)
    assert "no data: nothing was lost" in drawn


def test_the_page_has_every_panel_of_every_dashboard_and_marks_the_faults() -> None:
    dashboards = panels.dashboards()
    answers = {
        (dashboard["title"], one["id"]): [
            answer(({"node": "w01"}, [(100.0, "1"), (101.0, "1")])) for _ in one.get("targets", [])
        ]
        for dashboard in dashboards.values()
        for one in dashboard["panels"]
    }
    marks = [answer(({"fault": "partition-1"}, [(103.0, "1"), (104.0, "1")]))]
    page = gallery.page("tiny, 2026", dashboards, answers, marks, FRAME)
    for dashboard in dashboards.values():
        for one in dashboard["panels"]:
            assert html.escape(one["title"]) in page
    begin, end = (Frame(100.0, 110.0, 1.0, columns=12).x(at) for at in (103.0, 105.0))
    assert f'<rect class="mark" x="{begin:.1f}" y="{chart.TOP}" width="{end - begin:.1f}"' in page
    assert "http" not in page, "it needs no network"
