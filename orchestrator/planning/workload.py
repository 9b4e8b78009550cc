"""The part of a scenario that says what is learnt, from which data, and how they are dealt out."""

from __future__ import annotations

import hashlib
from pathlib import Path

from node.contract.plan import PartitionPlan, WorkloadPlan
from orchestrator.planning.document import Item
from orchestrator.planning.keys import DATASETS, MODELS, OPTIMIZERS, PARTITIONS, section


def read(item: Item, folder: Path) -> tuple[WorkloadPlan, Path | None]:
    keys = section(item, "workload")
    task_file = None
    if "file" in keys:
        for key in ("dataset", "model"):
            if key in keys:
                raise keys[key].error("the file brings its own", "write either `file`, or dataset and model")
        task_file = _find_task(keys["file"], folder)
    elif "dataset" not in keys:
        raise item.error("it names no data", "write `dataset: digits`, or `file: my_task.py`")
    workload = WorkloadPlan(
        dataset="file" if task_file else keys["dataset"].word(DATASETS),
        model="file" if task_file else (keys["model"].word(MODELS) if "model" in keys else "cnn"),
        partition=_read_partition(keys["partition"]) if "partition" in keys else PartitionPlan("iid"),
        rounds=item.required("rounds").integer(1, 100_000),
        local_epochs=keys["local_epochs"].integer(0, 1000) if "local_epochs" in keys else 1,
        batch_size=keys["batch_size"].integer(1, 65536) if "batch_size" in keys else 32,
        learning_rate=keys["learning_rate"].number(1e-9, 100) if "learning_rate" in keys else 0.1,
        optimizer="adam" if "optimizer" in keys and keys["optimizer"].word(OPTIMIZERS) == "adam" else "sgd",
        server_learning_rate=(
            keys["server_learning_rate"].number(1e-9, 100) if "server_learning_rate" in keys else 1.0
        ),
        file=keys["file"].text() if task_file else None,
        file_sha256=hashlib.sha256(task_file.read_bytes()).hexdigest() if task_file else None,
    )
    return workload, task_file


def _find_task(item: Item, folder: Path) -> Path:
    path = Path(item.text())
    if path.is_absolute() or ".." in path.parts or path.suffix != ".py":
        raise item.error(
            f"{item.text()!r} is not a Python file beside the scenario", "write `file: my_task.py`"
        )
    if not (folder / path).is_file():
        raise item.error(f"there is no file {folder / path}", "it is sought beside the scenario")
    return folder / path


def _read_partition(item: Item) -> PartitionPlan:
    keys = section(item, "workload.partition")
    kind = item.required("kind").word(PARTITIONS)
    for key, owner in (("alpha", "dirichlet"), ("labels_per_node", "label")):
        if key in keys and kind != owner:
            raise keys[key].error(f"this key belongs to kind {owner}, not to {kind}", "remove it")
    examples = keys["examples_per_node"].integer(1, 10_000_000) if "examples_per_node" in keys else None
    match kind:
        case "dirichlet":
            alpha = item.required("alpha").number(0.001, 1_000_000)
            return PartitionPlan("dirichlet", alpha=alpha, examples_per_node=examples)
        case "label":
            labels = item.required("labels_per_node").integer(1, 1000)
            return PartitionPlan("label", labels_per_node=labels, examples_per_node=examples)
    return PartitionPlan("iid", examples_per_node=examples)
