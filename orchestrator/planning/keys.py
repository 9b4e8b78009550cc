"""Every key of a scenario, and every word that stands for a value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from orchestrator.planning.document import Item

# What can be said of links, wherever links are spoken of.
RULE: Final = (
    *("latency", "jitter", "jitter_kind", "jitter_table", "in_order", "loss", "loss_burst", "rate"),
    *("duplicate", "corrupt", "reorder", "trace", "trace_repeats", "profile"),
)
MATRIX: Final = ("latency", "jitter", "loss", "rate")
# Each the name of a file in orchestrator/faults/.
FAULTS: Final = ("partition", "degrade", "flapping", "kill", "pause", "restart")
PART_FAULTS: Final = ("kill", "pause", "restart")  # those that act upon processes, not upon links
PARTS: Final = ("worker", "trainer", "ipfs", "agent", "aggregator", "node")
HOWS: Final = ("drop", "reject")
# Every key that there is, by the path to it; `*` is a name of the person's own, `[]` an entry of a list.
# In the places of RULED there are those of RULE too.
KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "": (
        *("summary", "seed", "fleet", "classes", "network", "ipfs"),
        *("workload", "aggregation", "faults", "checks"),
    ),
    "fleet": ("aggregator", "workers"),
    "fleet.aggregator": ("class", "zone"),
    "fleet.workers[]": ("count", "class", "zone"),
    "classes.*": ("cpu", "memory", "up", "down", "ipfs"),
    "network": (
        *("topology", "transport", "delay_engine", "congestion_control"),
        *("default", "matrix", "zones", "links"),
    ),
    "network.default": (),
    "network.matrix": ("profile", *MATRIX),
    "network.zones[]": ("between", "from", "to", "shared_rate"),
    "network.links[]": ("between", "from", "to"),
    "workload": (
        *("dataset", "model", "file", "partition", "rounds", "local_epochs"),
        *("batch_size", "learning_rate", "optimizer", "server_learning_rate"),
    ),
    "workload.partition": ("kind", "alpha", "labels_per_node", "examples_per_node"),
    "aggregation": ("strategy", "mode", "quorum", "deadline", "parameters"),
    "faults[]": ("name", *FAULTS, "how", "at", "heal", "for"),
    "faults[].partition": (
        *("isolate", "halves", "one_way", "bridge", "majorities_ring"),
        *("aggregator", "zone", "pairs"),
    ),
    "faults[].partition.one_way": ("from", "to"),
    "faults[].degrade": ("targets", "between", "from", "to"),
    "faults[].flapping": ("period", "down"),  # and those of a partition
    "faults[].kill": ("targets", "part"),
    "faults[].pause": ("targets", "part"),
    "faults[].restart": ("targets", "part"),
}
RULED: Final = ("classes.*", "network.default", "network.zones[]", "network.links[]", "faults[].degrade")
ENGINES: Final = ("auto", "kubo", "embedded")
TRANSPORTS: Final = ("prompt", "stock", "patient")
DELAY_ENGINES: Final = ("auto", "netem", "hold")
CONGESTION_CONTROLS: Final = (  # those of Linux; whether the host has one is found out before the run
    *("bbr", "bic", "cdg", "cubic", "dctcp", "highspeed", "htcp", "hybla", "illinois", "lp", "nv"),
    *("reno", "scalable", "vegas", "veno", "westwood", "yeah"),
)
JITTER_KINDS: Final = ("normal", "pareto", "table")  # from the least surprising on
BOOLEANS: Final = ("true", "false")
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
    """The keys of a part of the file; unknown ones are refused."""
    return item.section((*KEYS[shape], *(RULE if shape in RULED else ())))
