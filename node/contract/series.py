"""Every metric of Shoal's own, with its labels and meaning: the one table that code, page and tests share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal


@dataclass(frozen=True)
class Series:
    kind: Literal["gauge", "counter", "histogram"]
    labels: tuple[str, ...]
    help: str
    # links: by the agent of a node that has any; ipfs: by the agent, which asks the daemon;
    # faults: by the aggregator's agent, which is told of them
    by: Literal["agent", "links", "ipfs", "faults", "trainer", "aggregator"]


LINK: Final = ("peer", "direction")  # seen from the node: out, in

# Prometheus adds `node` and `job` to each when it scrapes.
SERIES: Final[dict[str, Series]] = {
    "shoal_interface_received_bytes_total": Series("counter", ("interface",), "Bytes that came in", "agent"),
    "shoal_interface_sent_bytes_total": Series("counter", ("interface",), "Bytes that went out", "agent"),
    "shoal_part_cpu_seconds_total": Series("counter", ("part",), "CPU time of a part of the node", "agent"),
    "shoal_part_resident_bytes": Series("gauge", ("part",), "Resident memory of a part", "agent"),
    "shoal_part_proportional_bytes": Series("gauge", ("part",), "Proportional set size of a part", "agent"),
    "shoal_part_proportional_peak_bytes": Series(
        "gauge", ("part",), "Largest proportional set size of a part that was seen", "agent"
    ),
    "shoal_part_up": Series("gauge", ("part",), "1 while the part runs", "agent"),
    "shoal_link_intended_latency_seconds": Series(
        "gauge", LINK, "Latency asked, one way, at the end that makes it; where it is not zero", "links"
    ),
    "shoal_link_latency_seconds": Series("gauge", LINK, "Latency in force, as read back", "links"),
    "shoal_link_intended_rate_bits_per_second": Series("gauge", LINK, "Rate asked, if limited", "links"),
    "shoal_link_rate_bits_per_second": Series("gauge", LINK, "Rate in force, as read back", "links"),
    "shoal_link_intended_loss_ratio": Series("gauge", LINK, "Share of packets to lose, if any", "links"),
    "shoal_link_loss_ratio": Series("gauge", LINK, "Share of packets to lose, as read back", "links"),
    "shoal_link_cut": Series("gauge", LINK, "1 while the node does not hear the peer on purpose", "links"),
    "shoal_link_bytes_total": Series("counter", LINK, "Bytes of a link", "links"),
    "shoal_link_lost_packets_total": Series("counter", LINK, "Packets lost on purpose", "links"),
    "shoal_link_cut_packets_total": Series("counter", LINK, "Packets that met a cut", "links"),
    "shoal_link_overflowed_packets_total": Series("counter", LINK, "Packets that met a full queue", "links"),
    "shoal_link_mismatches_total": Series("counter", (), "Differences from what was asked", "links"),
    "shoal_holder_lateness_seconds": Series(
        "histogram", (), "How late held packets were let through; without netem", "links"
    ),
    "shoal_stream_bytes_total": Series(
        "counter", ("protocol", "direction"), "Payload of streams: bitswap, rounds, other", "ipfs"
    ),
    "shoal_repository_bytes": Series("gauge", (), "Size of the daemon's repository", "ipfs"),
    "shoal_repository_blocks": Series("gauge", (), "Blocks in the daemon's repository", "ipfs"),
    "shoal_fault_active": Series(
        "gauge", ("fault", "kind"), "1 while the fault is in force, 0 before and after", "faults"
    ),
    "shoal_round": Series("gauge", (), "The round that is open, or was last", "aggregator"),
    "shoal_rounds_completed_total": Series("counter", (), "Rounds that made a new model", "aggregator"),
    "shoal_accuracy": Series("gauge", (), "Accuracy of the newest model on the held-out set", "aggregator"),
    "shoal_loss": Series("gauge", (), "Loss of the newest model on the held-out set", "aggregator"),
    "shoal_model_bytes": Series("gauge", (), "Size of the model that a round begins with", "aggregator"),
    "shoal_participants": Series("gauge", (), "Updates in the newest model", "aggregator"),
    "shoal_updates_total": Series(
        "counter", ("outcome",), "Updates by accepted or the reason of refusal", "aggregator"
    ),
    "shoal_round_seconds": Series("histogram", (), "From a round's opening to its record", "aggregator"),
    "shoal_aggregate_seconds": Series("histogram", (), "Combining the updates of a round", "aggregator"),
    "shoal_train_seconds": Series("histogram", (), "Training of one round", "trainer"),
    "shoal_fetch_seconds": Series(
        "histogram", ("what",), "Fetching an object: model, shard, update", "trainer"
    ),
    "shoal_upload_seconds": Series("histogram", (), "Storing and announcing an update", "trainer"),
    "shoal_train_loss": Series("gauge", (), "Loss of the last local training", "trainer"),
    "shoal_accepted_round": Series("gauge", (), "The newest round that took its update, or 0", "trainer"),
    "shoal_control_silent_seconds": Series(
        "histogram", (), "How long the aggregator had been silent when it answered again", "trainer"
    ),
}
