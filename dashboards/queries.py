"""Expressions that several dashboards need."""

from __future__ import annotations

from dashboards.metric import metric
from dashboards.page import NODE
from dashboards.panel import Query


def by_node(series: str) -> Query:
    """A line for each of the chosen nodes."""
    return Query(metric(series, NODE), "{{node}}")


def rate_by_node(counter: str, *matchers: str) -> Query:
    return Query(rate(counter, *matchers, NODE, by="node"), "{{node}}")


def mean_by_node(histogram: str, *matchers: str) -> Query:
    return Query(mean_of_a_minute(histogram, *matchers, NODE, by="node"), "{{node}}")


def mean_of_a_minute(histogram: str, *matchers: str, by: str = "") -> str:
    """The mean of those that ended within the last minute; nothing where none did."""
    total, count = (f"increase({metric(histogram + part, *matchers)}[1m])" for part in ("_sum", "_count"))
    summed = f"sum by ({by})" if by else "sum"
    return f"{summed} ({total}) / ({summed} ({count}) > 0)"


def mean_so_far(histogram: str, *matchers: str, by: str) -> str:
    """The mean of all so far; nothing where there was none."""
    total, count = (metric(histogram + part, *matchers) for part in ("_sum", "_count"))
    return f"sum by ({by}) ({total}) / (sum by ({by}) ({count}) > 0)"


def rate(name: str, *matchers: str, by: str, window: str = "$__rate_interval") -> str:
    """Per second, over a window that fits how often is scraped."""
    return f"sum by ({by}) (rate({metric(name, *matchers)}[{window}]))"
