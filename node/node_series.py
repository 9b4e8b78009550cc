"""The agent's own series in Prometheus' text format, from the table in contract/series.py."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from node.accounts import Usage, interface_bytes
from node.contract.series import SERIES

Samples = dict[str, list[tuple[str, float]]]  # series: label value and figure


class NodeSeries(Collector):
    """Renders what it is given; keeps nothing."""

    def __init__(self) -> None:
        self._samples: Samples = {}
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def text(self, net_dev: str, usages: Mapping[str, Usage]) -> bytes:
        self._samples = samples(net_dev, usages)
        return generate_latest(self._registry)

    def describe(self) -> Iterable[Metric]:
        return []  # so that registering does not collect

    def collect(self) -> Iterator[Metric]:
        for name, values in self._samples.items():
            series = SERIES[name]
            family = FAMILIES[series.kind](name, series.help, labels=series.labels)
            for label, value in values:
                family.add_metric([label], value)
            yield family


FAMILIES: Final = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily}


def samples(net_dev: str, usages: Mapping[str, Usage]) -> Samples:
    """The figures of each series that the agent makes; what is not known stands nowhere."""
    made: Samples = {name: [] for name, series in SERIES.items() if series.by == "agent"}
    for interface, (received, sent) in interface_bytes(net_dev).items():
        made["shoal_interface_received_bytes_total"].append((interface, received))
        made["shoal_interface_sent_bytes_total"].append((interface, sent))
    for part, usage in usages.items():
        figures = {
            "shoal_part_up": float(usage.is_up),
            "shoal_part_cpu_seconds_total": usage.cpu_seconds,
            "shoal_part_resident_bytes": usage.resident_bytes,
            "shoal_part_proportional_bytes": usage.proportional_bytes,
            "shoal_part_proportional_peak_bytes": usage.proportional_peak_bytes,
        }
        for name, figure in figures.items():
            if figure is not None:
                made[name].append((part, figure))
    return made
