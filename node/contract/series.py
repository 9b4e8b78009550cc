"""Every metric of Shoal's own, with its labels and meaning: the one table that code, page and tests share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal


@dataclass(frozen=True)
class Series:
    kind: Literal["gauge", "counter", "histogram"]
    labels: tuple[str, ...]
    help: str
    by: Literal["agent", "trainer", "aggregator"]


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
    "shoal_round": Series("gauge", (), "The round that is open, or was last", "aggregator"),
    "shoal_rounds_completed_total": Series("counter", (), "Rounds that made a new model", "aggregator"),
    "shoal_accuracy": Series("gauge", (), "Accuracy of the newest model on the held-out set", "aggregator"),
    "shoal_loss": Series("gauge", (), "Loss of the newest model on the held-out set", "aggregator"),
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
}
