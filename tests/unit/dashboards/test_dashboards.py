"""The committed JSON is what the Python says, and what Grafana can show."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards.__main__ import FOLDER, made
from dashboards.panel import SOURCE_UID
from dashboards.queries import mean_of_a_minute, mean_so_far, rate

NAMES = ("learning.json", "cost.json", "recovery.json", "ipfs.json")
GRID_COLUMNS = 24
KINDS = {"row", "stat", "timeseries", "bargauge", "state-timeline"}
SOURCE = {"type": "prometheus", "uid": SOURCE_UID}


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / name).read_text())
    return found


def panels(name: str) -> Iterator[dict[str, Any]]:
    yield from (panel for panel in read(name)["panels"] if panel["type"] != "row")


def test_there_is_one_file_for_each_question() -> None:
    assert set(made()) == set(NAMES) == {path.name for path in FOLDER.glob("*.json")}


@pytest.mark.parametrize("name", NAMES)
def test_the_committed_file_is_what_the_code_makes(name: str) -> None:
    if os.environ.get("SHOAL_REGENERATE") == "1":
        (FOLDER / name).write_text(made()[name])
    assert made()[name] == (FOLDER / name).read_text(), "if this is meant: SHOAL_REGENERATE=1 make test-unit"


@pytest.mark.parametrize("name", NAMES)
def test_the_library_of_grafana_knows_all_that_is_in_it(name: str) -> None:
    """Its types are made from Grafana's own schema; what they do not know is lost on the way."""
    plugins.register_default_plugins()
    written = read(name)
    for marks in written["annotations"]["list"]:
        for only_of_prometheus in ("step", "target", "titleFormat", "textFormat", "tagKeys"):
            del marks[only_of_prometheus]
    again = json.loads(json.dumps(Dashboard.from_json(written), cls=JSONEncoder))
    assert again == written


@pytest.mark.parametrize("name", NAMES)
def test_ids_are_unique_and_the_grid_holds_all_panels_side_by_side(name: str) -> None:
    all_panels = read(name)["panels"]
    assert len({panel["id"] for panel in all_panels}) == len(all_panels)
    places = [panel["gridPos"] for panel in all_panels]
    for place in places:
        assert place["x"] >= 0
        assert place["x"] + place["w"] <= GRID_COLUMNS
        assert place["w"] * place["h"] > 0
    for one, other in combinations(places, 2):
        apart = (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        )
        assert apart, f"{one} and {other} overlap"


@pytest.mark.parametrize("name", NAMES)
def test_every_panel_says_how_to_read_it_and_asks_the_provisioned_source(name: str) -> None:
    for panel in panels(name):
        assert panel["type"] in KINDS
        assert panel["description"].endswith("."), panel["title"]
        assert len(panel["description"]) > 20, panel["title"]
        assert panel["datasource"] == SOURCE
        assert panel["targets"], panel["title"]
        letters = [target["refId"] for target in panel["targets"]]
        assert letters == sorted(set(letters))
        for target in panel["targets"]:
            assert target["datasource"] == SOURCE
            assert target["legendFormat"]
            assert target["instant"] is not target["range"]
        if panel["type"] != "state-timeline":
            assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]


@pytest.mark.parametrize("name", NAMES)
def test_what_a_query_needs_is_a_variable_of_its_dashboard(name: str) -> None:
    dashboard = read(name)
    known = {variable["name"] for variable in dashboard["templating"]["list"]}
    assert all(variable["datasource"] == SOURCE for variable in dashboard["templating"]["list"])
    used = {
        word
        for panel in panels(name)
        for target in panel["targets"]
        for word in re.findall(r"\$(\w+)", target["expr"])
    }
    assert used - {"__rate_interval", "__range"} == known


def test_each_leads_to_the_others_and_is_told_apart() -> None:
    found = [read(name) for name in NAMES]
    assert len({one["uid"] for one in found}) == len({one["title"] for one in found}) == len(NAMES)
    for one in found:
        (link,) = one["links"]
        assert (link["type"], link["tags"], link["keepTime"]) == ("dashboards", ["shoal"], True)
        assert "shoal" in one["tags"]


@pytest.mark.parametrize("name", NAMES)
def test_faults_are_marked_on_every_panel(name: str) -> None:
    (marks,) = read(name)["annotations"]["list"]
    assert marks["expr"] == "max by (fault, kind) (shoal_fault_active) > 0"
    assert marks["datasource"] == SOURCE
    assert (marks["target"]["expr"], marks["target"]["interval"]) == (marks["expr"], marks["step"])
    assert marks["step"] == "1s"


def test_expressions() -> None:
    assert rate("shoal_link_bytes_total", 'direction="in"', by="node") == (
        'sum by (node) (rate(shoal_link_bytes_total{direction="in"}[$__rate_interval]))'
    )
    assert mean_of_a_minute("shoal_train_seconds") == (
        "sum (increase(shoal_train_seconds_sum[1m])) / (sum (increase(shoal_train_seconds_count[1m])) > 0)"
    )
    assert mean_so_far("shoal_train_seconds", by="node") == (
        "sum by (node) (shoal_train_seconds_sum) / (sum by (node) (shoal_train_seconds_count) > 0)"
    )


def test_the_files_lie_where_the_code_does() -> None:
    assert Path(__file__).parents[3] / "dashboards" == FOLDER
