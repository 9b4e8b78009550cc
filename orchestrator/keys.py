"""Every key of a scenario, and every word that stands for a value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from orchestrator.document import Item

# Every key that there is, by the path to it; `*` is a name of the person's own, `[]` an entry of a list.
KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "": (
        *("summary", "seed", "fleet", "classes", "network", "ipfs"),
        *("workload", "aggregation", "faults", "checks"),
    ),
    "fleet": ("aggregator", "workers"),
    "fleet.aggregator": ("class", "zone"),
    "fleet.workers[]": ("count", "class", "zone"),
    "classes.*": ("cpu", "memory", "up", "down", "ipfs"),
    "network": ("topology", "transport", "default", "zones"),
    "workload": (
        *("dataset", "model", "file", "partition", "rounds", "local_epochs"),
        *("batch_size", "learning_rate", "optimizer", "server_learning_rate"),
    ),
    "workload.partition": ("kind", "alpha", "labels_per_node", "examples_per_node"),
    "aggregation": ("strategy", "mode", "quorum", "deadline", "parameters"),
}
# Keys of the design that nothing obeys yet. Taking them silently would report a network that was not there.
LATER: Final[Mapping[str, str]] = {
    "faults": "break nodes or links",
    "classes.*.up": "limit a node's line",
    "classes.*.down": "limit a node's line",
    "network.default": "shape links",
    "network.zones": "shape links",
}
ENGINES: Final = ("auto", "kubo", "embedded")
TRANSPORTS: Final = ("prompt", "stock", "patient")
DATASETS: Final = ("digits", "mnist-5k", "mnist", "cifar10", "synthetic-cifar")
MODELS: Final = ("cnn",)
PARTITIONS: Final = ("iid", "dirichlet", "label")
OPTIMIZERS: Final = ("sgd", "adam")
STRATEGIES: Final[Mapping[str, tuple[str, ...]]] = {  # and the parameters of each
    "mean": (),
    "robust": ("zeroing", "clipping"),
    "dp": ("noise_multiplier", "clients_per_round", "zeroing"),
}
MUST_BE_TOLD: Final = ("noise_multiplier", "clients_per_round")
MODES: Final = ("sync",)


def section(item: Item, shape: str) -> Mapping[str, Item]:
    """The keys of a part of the file; unknown ones and those of later versions are refused."""
    entries = item.section(KEYS[shape])
    for key, entry in entries.items():
        does = LATER.get(f"{shape}.{key}".removeprefix("."))
        if does and entry.value not in ([], {}):
            raise entry.error(f"this version cannot {does} yet", "remove the key")
    return entries
