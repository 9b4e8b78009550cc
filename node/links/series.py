"""The links' series in Prometheus' text format: what was asked beside what was seen last."""

from __future__ import annotations

from itertools import accumulate
from typing import Final

from prometheus_client.core import HistogramMetricFamily

from node.contract.links import DelayEngine, Lateness, LinkTable
from node.contract.series import SERIES
from node.exposition import Samples, exposed
from node.links.states import Seen, link_states

OUT: Final = "out"
IN: Final = "in"
LATENESS: Final = "shoal_holder_lateness_seconds"


class LinkSeries:
    """Renders a look once, however often it is asked for."""

    def __init__(self) -> None:
        self._text = b""
        self._of: Seen | None = None

    def text(self, table: LinkTable, engine: DelayEngine, seen: Seen, mismatches: int) -> bytes:
        if seen is not self._of:
            lateness = seen.held.lateness if seen.held is not None else None
            more = [histogram(lateness)] if lateness is not None else []
            self._text = exposed(samples(table, engine, seen, mismatches), *more)
            self._of = seen
        return self._text


def samples(table: LinkTable, engine: DelayEngine, seen: Seen, mismatches: int) -> Samples:
    """Each series; what is not limited stands nowhere, so that 0 always means none."""
    made: Samples = {
        name: [] for name, series in SERIES.items() if series.by == "links" and series.kind != "histogram"
    }
    for links, state in zip(table.peers, link_states(table, engine, seen), strict=True):
        out, into = (links.peer, OUT), (links.peer, IN)
        maker, shape = (out, links.out) if engine == "netem" else (into, links.into)
        if shape.latency_ms:
            made["shoal_link_intended_latency_seconds"].append((maker, shape.latency_ms / 1000))
            made["shoal_link_latency_seconds"].append((maker, state.latency_ms / 1000))
        if links.out.rate_bit_s is not None:
            made["shoal_link_intended_rate_bits_per_second"].append((out, links.out.rate_bit_s))
        if state.rate_bit_s is not None:
            made["shoal_link_rate_bits_per_second"].append((out, state.rate_bit_s))
        if links.into.loss:
            made["shoal_link_intended_loss_ratio"].append((into, links.into.loss))
            made["shoal_link_loss_ratio"].append((into, state.loss))
        made["shoal_link_cut"].append((into, float(state.is_cut is not None)))
        made["shoal_link_bytes_total"] += [(out, state.sent_bytes), (into, state.received_bytes)]
        made["shoal_link_lost_packets_total"].append((into, state.lost_packets))
        made["shoal_link_cut_packets_total"].append((into, state.cut_packets))
        made["shoal_link_overflowed_packets_total"].append((out, state.overflowed_packets))
    made["shoal_link_mismatches_total"].append(((), mismatches))
    return made


def histogram(lateness: Lateness) -> HistogramMetricFamily:
    """As Prometheus wants it: by upper edge in seconds, each with all below it."""
    edges = [*(str(edge / 1000) for edge in lateness.edges_ms), "+Inf"]
    counts = map(float, accumulate(lateness.counts))
    made = HistogramMetricFamily(LATENESS, SERIES[LATENESS].help)
    made.add_metric([], list(zip(edges, counts, strict=True)), sum_value=None)
    return made
