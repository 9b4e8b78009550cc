"""The kinds of panels that the dashboards are made of, all in one style.

`nothing` is for panels that are empty in some runs: why that is, for whoever looks at them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from grafana_foundation_sdk.builders import bargauge, common, prometheus, stat, statetimeline, timeseries
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.common import (
    BarGaugeDisplayMode,
    BigValueGraphMode,
    LegendDisplayMode,
    LegendPlacement,
    LineInterpolation,
    SortOrder,
    StackingMode,
    TooltipDisplayMode,
    VisibilityMode,
    VizOrientation,
)

# The data source as compose/grafana provisions it.
SOURCE_UID: Final = "shoal-prometheus"
SOURCE: Final = models.DataSourceRef("prometheus", SOURCE_UID)

GREEN: Final = "green"
YELLOW: Final = "yellow"
RED: Final = "red"
BLUE: Final = "blue"

STAT_WIDTH: Final = 4
STAT_HEIGHT: Final = 4
PANEL_HEIGHT: Final = 8
FULL_WIDTH: Final = 24

RATIO: Final = units.PercentUnit
BYTES: Final = units.BytesIEC
BYTES_PER_SECOND: Final = units.BytesPerSecondIEC
BITS_PER_SECOND: Final = units.BitsPerSecondSI
PACKETS_PER_SECOND: Final = units.PacketsPerSecond
SECONDS: Final = units.Seconds
COUNT: Final = units.Short

DASHED: Final = models.DynamicConfigValue("custom.lineStyle", {"fill": "dash", "dash": [6, 6]})

AnyPanel = timeseries.Panel | stat.Panel | bargauge.Panel | statetimeline.Panel
Made = TypeVar("Made", timeseries.Panel, stat.Panel, bargauge.Panel, statetimeline.Panel)
Now = TypeVar("Now", stat.Panel, bargauge.Panel)
Step = tuple[float | None, str]  # from this value on this colour; the first from minus infinity
Words = Mapping[str, tuple[str, str]]  # a value, its word and colour


@dataclass(frozen=True)
class Query:
    """An expression, and what its lines are called."""

    expr: str
    legend: str
    is_dashed: bool = False  # what was asked, beside what is


def lines(
    title: str,
    description: str,
    *queries: Query,
    unit: str,
    width: int = 12,
    is_stacked: bool = False,
    is_stepped: bool = False,
    most: float | None = None,
    nothing: str | None = None,
) -> timeseries.Panel:
    """Figures over time, from 0 on."""
    panel = (
        begun(timeseries.Panel(), title, description, width, PANEL_HEIGHT, nothing)
        .unit(unit)
        .line_width(2 if not is_stacked else 1)
        .fill_opacity(30 if is_stacked else 0)
        .show_points(VisibilityMode.NEVER)
        .line_interpolation(LineInterpolation.STEP_AFTER if is_stepped else LineInterpolation.LINEAR)
        .legend(legend(LegendDisplayMode.TABLE).calcs(["lastNotNull", "max"]))
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING))
        .targets([target(query, index, is_instant=False) for index, query in enumerate(queries)])
        .min(0)
    )
    if most is not None:
        panel = panel.max(most)
    if is_stacked:
        panel = panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL).group("A"))
    for index, query in enumerate(queries):
        if query.is_dashed:
            panel = panel.override_by_query(letter(index), [DASHED])
    return panel


def figure(
    title: str,
    description: str,
    query: Query,
    *,
    unit: str,
    steps: Sequence[Step] = ((None, BLUE),),
    decimals: int | None = None,
    nothing: str | None = None,
) -> stat.Panel:
    """One number, large."""
    panel = of_now(
        begun(stat.Panel(), title, description, STAT_WIDTH, STAT_HEIGHT, nothing), query, unit, steps
    ).graph_mode(BigValueGraphMode.NONE)
    return panel if decimals is None else panel.decimals(decimals)


def bars(
    title: str,
    description: str,
    query: Query,
    *,
    unit: str,
    width: int = 12,
    steps: Sequence[Step] = ((None, BLUE),),
    nothing: str | None = None,
) -> bargauge.Panel:
    """Figures of now beside each other, from 0 on."""
    panel = begun(bargauge.Panel(), title, description, width, PANEL_HEIGHT, nothing)
    return (
        of_now(panel, query, unit, steps)
        .min(0)
        .display_mode(BarGaugeDisplayMode.BASIC)
        .orientation(VizOrientation.HORIZONTAL)
    )


def states(
    title: str, description: str, query: Query, *, words: Words, nothing: str | None = None
) -> statetimeline.Panel:
    """What was when: a row for each line, coloured by its value."""
    options = {value: models.ValueMappingResult(text, colour) for value, (text, colour) in words.items()}
    return (
        begun(statetimeline.Panel(), title, description, FULL_WIDTH, PANEL_HEIGHT, nothing)
        .show_value(VisibilityMode.NEVER)
        .merge_values(True)
        .row_height(0.8)
        .line_width(0)
        .fill_opacity(80)
        .mappings([models.ValueMap(options)])
        .thresholds(thresholds(((None, GREEN),)))
        .legend(legend(LegendDisplayMode.LIST))
        .targets([target(query, 0, is_instant=False)])
    )


def begun(panel: Made, title: str, description: str, width: int, height: int, nothing: str | None) -> Made:
    """What every panel has."""
    panel = panel.title(title).description(description).datasource(SOURCE).span(width).height(height)
    return panel if nothing is None else panel.no_value(nothing)


def of_now(panel: Now, query: Query, unit: str, steps: Sequence[Step]) -> Now:
    """What a panel has that shows the last of a query's figures."""
    return (
        panel.unit(unit)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .thresholds(thresholds(steps))
        .targets([target(query, 0, is_instant=True)])
    )


def legend(mode: LegendDisplayMode) -> common.VizLegendOptions:
    return common.VizLegendOptions().show_legend(True).display_mode(mode).placement(LegendPlacement.BOTTOM)


def target(query: Query, index: int, *, is_instant: bool) -> prometheus.Dataquery:
    made = (
        prometheus.Dataquery()
        .datasource(SOURCE)
        .expr(query.expr)
        .legend_format(query.legend)
        .ref_id(letter(index))
    )
    return made.instant() if is_instant else made.range()


def letter(index: int) -> str:
    """What Grafana calls a panel's queries."""
    return "ABCDEFGHIJ"[index]


def thresholds(steps: Sequence[Step]) -> builders.ThresholdsConfig:
    made = [models.Threshold(value, colour) for value, colour in steps]
    return builders.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(made)
