"""A dashboard around its panels: the node to look at, the faults as marks, the way to the other three."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as models

from dashboards.metric import metric
from dashboards.panel import RED, SOURCE, AnyPanel

TAG: Final = "shoal"
NODE: Final = 'node=~"$node"'  # the nodes that were chosen
PEER: Final = 'peer=~"$peer"'
ALL: Final = ".*"
STEP: Final = "1s"  # the usual one is a minute, in which a whole run may be over
MARKED: Final = f"max by (fault, kind) ({metric('shoal_fault_active')}) > 0"


@dataclass(frozen=True)
class Part:
    """Panels below one heading."""

    title: str
    panels: Sequence[AnyPanel]


class Marks(models.AnnotationQuery):
    """Times at which an expression is above zero; the library's own knows nothing of how Prometheus marks."""

    def __init__(self, name: str, expr: str, title: str, text: str, tags: str) -> None:
        super().__init__(name=name, datasource=SOURCE, enable=True, hide=False, icon_color=RED, expr=expr)
        # Some versions look for the query in `target`, others in `expr` and `step`.
        query = {"datasource": SOURCE, "expr": expr, "interval": STEP, "range": True, "refId": "Anno"}
        told = {"titleFormat": title, "textFormat": text, "tagKeys": tags, "step": STEP}
        self._told = {**told, "target": query}

    def to_json(self) -> dict[str, object]:
        return {**super().to_json(), **self._told}


def page(name: str, title: str, question: str, parts: Sequence[Part], *, peers: bool = False) -> str:
    """The dashboard's JSON, the same bytes each time."""
    variables = [variable("node", "up")] + ([variable("peer", "shoal_link_cut")] if peers else [])
    made = (
        builders.Dashboard(title)
        .uid(f"shoal-{name}")
        .description(question)
        .tags([TAG])
        .timezone("browser")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .refresh("5s")
        .time("now-5m", "now")
        .readonly()
        .variables(list(variables))
        .link(
            builders.DashboardLink("Shoal")
            .type(models.DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .as_dropdown(False)
            .include_vars(True)
            .keep_time(True)
        )
    )
    number = 0
    for part in parts:
        number += 1
        made = made.with_row(builders.Row(part.title).id(number))
        for panel in part.panels:
            number += 1
            made = made.with_panel(panel.id(number))
    whole = made.build()
    whole.annotations = models.AnnotationContainer(
        [Marks("Faults", MARKED, "{{kind}}", "{{fault}}", "fault,kind")]
    )
    plain = {**_plain(whole), "version": 1}
    return json.dumps(plain, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def variable(label: str, name: str) -> builders.QueryVariable:
    """A choice of one, several or all values of a label."""
    return (
        builders.QueryVariable(label)
        .label(label)
        .datasource(SOURCE)
        .query(f"label_values({metric(name)}, {label})")
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(ALL)
        .current(models.VariableOption(selected=True, text="All", value="$__all"))
    )


def _plain(whole: models.Dashboard) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(whole, cls=JSONEncoder))
    return found
