"""What each node's agent is told about its links, by the plan. Pure; the orchestrator calls it too."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from node.contract.links import LinkTable, PeerLinks, Shape
from node.contract.plan import LinkPlan, Plan, TracePlan, TrunkPlan

FRAME_BYTES: Final = 1514
TRUNK_QUEUE_S: Final = 0.1  # or the longest round trip through it, whichever is longer
FEWEST_PACKETS: Final = 20


def tables(plan: Plan, trunks: str | None = None) -> dict[str, LinkTable]:
    """By node: its line, and both directions to every peer that it talks with, in order of name.

    `trunks`: where nodes have to send what goes through one; None: it gets there by itself.
    """
    address = {node.name: node.data_address for node in plan.nodes}
    shapes = {(link.from_, link.to): shape(link, plan.network.traces) for link in plan.links}
    via = {(link.from_, link.to): trunks for link in plan.links if link.trunk is not None}
    full_ms = {
        trunk.name: trunk_queue_packets(plan, trunk) * FRAME_BYTES * 8 / trunk.rate_bit_s * 1000
        for trunk in plan.network.trunks
    }
    waits_ms = {(link.from_, link.to): full_ms.get(link.trunk or "", 0.0) for link in plan.links}
    peers: dict[str, list[PeerLinks]] = {node.name: [] for node in plan.nodes}
    for node, peer in sorted(shapes):
        both = (shapes[node, peer], shapes[peer, node])
        queues_ms = waits_ms[node, peer] + waits_ms[peer, node]
        peers[node].append(PeerLinks(peer, address[peer], *both, via.get((node, peer)), queues_ms))
    return {
        node.name: LinkTable(
            node=node.name,
            address=node.data_address,
            subnet=plan.network.data_subnet,
            up_bit_s=node.up_bit_s,
            down_bit_s=node.down_bit_s,
            peers=tuple(peers[node.name]),
            congestion_control=plan.network.congestion_control,
            seed=plan.seed,
        )
        for node in plan.nodes
    }


def trunk_queue_packets(plan: Plan, trunk: TrunkPlan) -> int:
    """How many packets may wait for a line that zones share."""
    latency_ms = {(link.from_, link.to): link.latency_ms for link in plan.links}
    round_trips_ms = [
        link.latency_ms + latency_ms.get((link.to, link.from_), 0.0)
        for link in plan.links
        if link.trunk == trunk.name
    ]
    wait_s = max(TRUNK_QUEUE_S, max(round_trips_ms, default=0.0) / 1000)
    return max(math.ceil(trunk.rate_bit_s / 8 * wait_s / FRAME_BYTES), FEWEST_PACKETS)


def shape(link: LinkPlan, traces: Mapping[str, TracePlan]) -> Shape:
    """What a link of the plan does to its packets. A trunk is no node's own, so it is not in here."""
    trace = traces[link.trace] if link.trace is not None else None
    return Shape(
        latency_ms=link.latency_ms,
        jitter_ms=link.jitter_ms,
        jitter_kind=link.jitter_kind,
        jitter_table=link.jitter_table,
        in_order=link.in_order,
        loss=link.loss,
        loss_burst=link.loss_burst,
        rate_bit_s=link.rate_bit_s,
        duplicate=link.duplicate,
        corrupt=link.corrupt,
        reorder=link.reorder,
        trace=trace.points if trace else (),
        trace_repeats=trace.repeats if trace else True,
    )
