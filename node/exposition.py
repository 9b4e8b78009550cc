"""Figures in Prometheus' text format; kind, help and labels of a series are those that the contract says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from node.contract.series import SERIES

FAMILIES: Final = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily}

Samples = dict[str, list[tuple[tuple[str, ...], float]]]  # series: values of its labels, and the figure


def exposed(samples: Samples, *more: Metric) -> bytes:
    """All of them, and what is no plain figure."""
    return generate_latest(_Given([*families(samples), *more]))


def families(samples: Samples) -> Iterator[Metric]:
    for name, values in samples.items():
        series = SERIES[name]
        family = FAMILIES[series.kind](name, series.help, labels=series.labels)
        for labels, figure in values:
            family.add_metric(labels, figure)
        yield family


class _Given(Collector):
    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Sequence[Metric]:
        return self._metrics
