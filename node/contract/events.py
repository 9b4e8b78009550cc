"""Events: one JSON object in a line of a node's events.jsonl. The run's history is made of them.

Every event has `kind`, `node`, `wall` (seconds since the epoch) and `mono_ns` (the node's monotonic clock).
"""

from __future__ import annotations

from typing import Final

# kind: its further keys
EVENTS: Final[dict[str, str]] = {
    "part_started": "part pid start_ticks",
    "part_ended": "part status expected",
    "ipfs_ready": "engine version peer_id",
    "links_applied": "engine peers applied_ms mismatches",  # by an agent at its start
    # repaired: whether all is as asked again; in_fault: whether the node is cut off from somebody on purpose
    "link_mismatch": "said repaired in_fault",
    # the least of some round trips, null when none came back; outside: it cannot be by the intended links
    "link_probed": "peer rtt_ms intended_ms outside",
    "shards_added": "count bytes",  # by the node that seeds the data
    "trainer_ready": "shard_bytes examples seconds",  # shard and model fetched, traced, asking for work
    # received_bytes: what had come in on `data` when the round began for this node
    "trained": "round fetch_s train_s upload_s examples loss update size_bytes received_bytes",
    "update_answered": "round accepted reason",
    # by a trainer that was asking: a request was answered after calls that failed, or silence, of silent_s
    "control_answered": "path silent_s",
    "all_ready": "trainers",
    "round_opened": "round model size_bytes asked deadline_s received_bytes",
    "update_accepted": "round sender update examples bytes seconds train_s",
    "update_refused": "round sender reason detail",
    # closed_by: all, deadline; completed false: too few updates, the model stays
    "round_closed": "round completed closed_by accepted refused missing record model accuracy loss"
    " aggregate_s seconds",
    "run_finished": "head model rounds accuracy loss precision recall f1 inference_ms_1 inference_ms_32",
    "failed": "part message hint",
    # by the aggregator: a round that faults begin or end with waits to be released; `waited_s` at most
    "round_due": "round",
    "release_missing": "round waited_s",
}
# What the orchestrator notes of faults. Instants are mono_ns of its own clock; `effective_ns` by node.
FAULT_EVENTS: Final[dict[str, str]] = {
    "fault_started": "fault text nodes requested_ns effective_ns skew_ms",
    "fault_flapped": "fault is_cut nodes requested_ns effective_ns skew_ms",
    "fault_healed": "fault text nodes requested_ns effective_ns skew_ms",
    "fault_verified": "fault phase verified said",  # phase: start, heal
    "fault_failed": "fault phase message",  # phase: start, flap, heal, verify, restore, end
    "fault_restored": "nodes faults",  # told again to an agent that began anew
    "round_released": "round",
    "losses_counted": "when lost",  # when: before round 1, or at the end; lost: packets by link, as w01>agg
}
