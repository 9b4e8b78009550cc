"""What the dashboards ask Prometheus: their queries, as they stand in the JSON. Pure but for reading it."""

from __future__ import annotations

import json
import re
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from orchestrator import TOP

FOLDER: Final = TOP / "dashboards"
HOME: Final = "learning"  # where a person begins
NAMES: Final = (HOME, "cost", "recovery", "ipfs")
SCRAPES_IN_A_RATE: Final = 4  # Grafana's own rule for $__rate_interval
POINTS: Final = 200  # as many as a panel of usual width asks for
LABEL_VALUES: Final = re.compile(r"label_values\((?P<selector>[^,]+), *(?P<label>\w+)\)")


@dataclass(frozen=True)
class Asked:
    """One query of a panel, a variable or a mark."""

    dashboard: str
    panel: str
    expr: str
    is_instant: bool = False
    label: str | None = None  # the values of this label are asked for
    nothing: str | None = None  # why there may be no answer

    def __str__(self) -> str:
        return f"{self.dashboard} / {self.panel}"


@dataclass(frozen=True)
class Window:
    """The time that is looked at, and how often was scraped in it."""

    since_s: float
    until_s: float
    scraped_every_s: float

    @property
    def step_s(self) -> float:
        return max(self.scraped_every_s, (self.until_s - self.since_s) / POINTS)


def dashboards(folder: Path = FOLDER) -> dict[str, dict[str, Any]]:
    """All of them by name, in the order in which they are to be looked at."""
    return {name: json.loads((folder / f"{name}.json").read_text()) for name in NAMES}


def all_asked(dashboard: Mapping[str, Any]) -> Iterator[Asked]:
    """Every query of a dashboard."""
    title = dashboard["title"]
    for variable in dashboard["templating"]["list"]:
        found = LABEL_VALUES.fullmatch(variable["query"])
        if found is None:
            raise ValueError(f"{title}: the variable {variable['name']} asks {variable['query']!r}")
        yield Asked(title, f"${variable['name']}", found["selector"], label=found["label"])
    for panel in dashboard["panels"]:
        yield from of_panel(title, panel)
    yield from all_marks(dashboard)


def of_panel(title: str, panel: Mapping[str, Any]) -> Iterator[Asked]:
    """A panel's own queries; a heading has none."""
    nothing = panel.get("fieldConfig", {}).get("defaults", {}).get("noValue")
    for target in panel.get("targets", []):
        is_instant = bool(target.get("instant"))
        yield Asked(title, panel["title"], target["expr"], is_instant=is_instant, nothing=nothing)


def all_marks(dashboard: Mapping[str, Any]) -> Iterator[Asked]:
    """What is marked on every panel."""
    for marks in dashboard["annotations"]["list"]:
        nothing = "no fault was ever in force"
        yield Asked(dashboard["title"], f"marks: {marks['name']}", marks["expr"], nothing=nothing)


def filled_in(expr: str, dashboard: Mapping[str, Any], window: Window) -> str:
    """The expression with Grafana's variables in it, as for somebody who looks at all of the run."""
    step_s = window.step_s
    values = {
        "__rate_interval": f"{max(SCRAPES_IN_A_RATE * window.scraped_every_s, step_s):.0f}s",
        "__interval": f"{max(1.0, step_s):.0f}s",
        "__range": f"{max(1.0, window.until_s - window.since_s):.0f}s",
        **{variable["name"]: variable["allValue"] for variable in dashboard["templating"]["list"]},
    }
    return re.sub(r"\$(\w+)", lambda found: values[found[1]], expr)


def path(asked: Asked, dashboard: Mapping[str, Any], window: Window) -> str:
    """Where Prometheus answers it."""
    expr = filled_in(asked.expr, dashboard, window)
    span = {"start": f"{window.since_s:.3f}", "end": f"{window.until_s:.3f}"}
    if asked.label is not None:
        return f"/api/v1/label/{asked.label}/values?" + urllib.parse.urlencode({"match[]": expr, **span})
    if asked.is_instant:
        return "/api/v1/query?" + urllib.parse.urlencode({"query": expr, "time": span["end"]})
    return "/api/v1/query_range?" + urllib.parse.urlencode(
        {"query": expr, **span, "step": f"{window.step_s:.3f}"}
    )


def has_data(asked: Asked, data: Any) -> bool:
    """Whether Prometheus' answer holds a figure, or a label's value."""
    if asked.label is not None:
        return bool(data)
    for series in data["result"]:
        values = [series["value"]] if "value" in series else series["values"]
        if any(value != "NaN" for _, value in values):
            return True
    return False
