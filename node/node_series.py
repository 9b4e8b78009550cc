"""The agent's own series: what interfaces and parts have used."""

from __future__ import annotations

from collections.abc import Mapping

from node.accounts import Usage, interface_bytes
from node.contract.series import SERIES
from node.exposition import Samples


def samples(net_dev: str, usages: Mapping[str, Usage]) -> Samples:
    """The figures of each series that the agent makes; what is not known stands nowhere."""
    made: Samples = {name: [] for name, series in SERIES.items() if series.by == "agent"}
    for interface, (received, sent) in interface_bytes(net_dev).items():
        made["shoal_interface_received_bytes_total"].append(((interface,), received))
        made["shoal_interface_sent_bytes_total"].append(((interface,), sent))
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
                made[name].append(((part,), figure))
    return made
