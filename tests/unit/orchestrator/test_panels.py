from __future__ import annotations

import urllib.parse
from typing import Any

import pytest

from orchestrator.monitoring import panels
from orchestrator.monitoring.panels import Asked, Window

WINDOW = Window(1000.0, 1060.0, 1.0)
PAGE: dict[str, Any] = {
    "title": "Is it?",
    "templating": {
        "list": [{"name": "node", "query": 'label_values(up{job="node"}, node)', "allValue": ".*"}]
    },
    "annotations": {"list": [{"name": "Faults", "expr": "fault > 0"}]},
    "panels": [
        {"type": "row", "title": "Now"},
        {"type": "stat", "title": "One", "targets": [{"expr": "one", "instant": True, "range": False}]},
        {
            "type": "timeseries",
            "title": "Two",
            "fieldConfig": {"defaults": {"noValue": "there was none"}},
            "targets": [{"expr": "two", "instant": False}, {"expr": "three", "instant": False}],
        },
    ],
}


def test_every_query_of_a_dashboard() -> None:
    assert list(panels.all_asked(PAGE)) == [
        Asked("Is it?", "$node", 'up{job="node"}', label="node"),
        Asked("Is it?", "One", "one", is_instant=True),
        Asked("Is it?", "Two", "two", nothing="there was none"),
        Asked("Is it?", "Two", "three", nothing="there was none"),
        Asked("Is it?", "marks: Faults", "fault > 0", nothing="no fault was ever in force"),
    ]


def test_a_variable_that_asks_something_else_is_no_small_matter() -> None:
    page = {**PAGE, "templating": {"list": [{"name": "node", "query": "metrics(up)"}]}}
    with pytest.raises(ValueError, match="the variable node asks 'metrics"):
        list(panels.all_asked(page))


@pytest.mark.parametrize(
    ("window", "rate", "span"),
    [
        (Window(0, 60, 1), "4s", "60s"),
        (Window(0, 60, 5), "20s", "60s"),
        (Window(0, 7200, 1), "36s", "7200s"),  # a point of the panel is longer than four scrapes
    ],
)
def test_grafanas_own_variables(window: Window, rate: str, span: str) -> None:
    expr = 'rate(a{node=~"$node"}[$__rate_interval]) + sum_over_time(b[$__range:1s])'
    assert panels.filled_in(expr, PAGE, window) == (
        f'rate(a{{node=~".*"}}[{rate}]) + sum_over_time(b[{span}:1s])'
    )


def test_a_variable_that_nobody_fills_in() -> None:
    with pytest.raises(KeyError, match="zone"):
        panels.filled_in('a{zone="$zone"}', PAGE, WINDOW)


def asked_of(path: str) -> tuple[str, dict[str, str]]:
    parts = urllib.parse.urlsplit(path)
    return parts.path, dict(urllib.parse.parse_qsl(parts.query))


def test_where_each_kind_is_asked() -> None:
    variable, instant, over_time, *_ = panels.all_asked(PAGE)
    assert asked_of(panels.path(variable, PAGE, WINDOW)) == (
        "/api/v1/label/node/values",
        {"match[]": 'up{job="node"}', "start": "1000.000", "end": "1060.000"},
    )
    assert asked_of(panels.path(instant, PAGE, WINDOW)) == (
        "/api/v1/query",
        {"query": "one", "time": "1060.000"},
    )
    assert asked_of(panels.path(over_time, PAGE, WINDOW)) == (
        "/api/v1/query_range",
        {"query": "two", "start": "1000.000", "end": "1060.000", "step": "1.000"},
    )


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"result": []}, False),
        ({"result": [{"value": [1, "NaN"]}]}, False),
        ({"result": [{"value": [1, "NaN"]}, {"value": [1, "0"]}]}, True),
        ({"result": [{"values": [[1, "NaN"], [2, "NaN"]]}]}, False),
        ({"result": [{"values": [[1, "NaN"], [2, "3.5"]]}]}, True),
    ],
)
def test_what_counts_as_data(data: Any, expected: bool) -> None:
    assert panels.has_data(Asked("a", "b", "c"), data) is expected


def test_what_counts_as_a_label() -> None:
    asked = Asked("a", "b", "c", label="node")
    assert panels.has_data(asked, ["w01"])
    assert not panels.has_data(asked, [])


def test_the_projects_own_dashboards_can_all_be_asked() -> None:
    for dashboard in panels.dashboards().values():
        everything = list(panels.all_asked(dashboard))
        assert len(everything) > 10
        for asked in everything:
            assert panels.path(asked, dashboard, WINDOW).startswith("/api/v1/")
