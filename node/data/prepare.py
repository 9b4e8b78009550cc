"""Cut a data set into shards before a fleet starts: python -m node.data.prepare RECIPE.json OUTDIR

RECIPE.json has `seed`, `workload` as in the plan, `nodes` (names) and `task_file` (a path or null). Loads no
TensorFlow. OUTDIR gets a shard for each node, test.safetensors, and data.json, which describes them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from node.contract import ShoalError, UsageError
from node.contract.plan import WorkloadPlan
from node.contract.schema import from_json
from node.data import shard
from node.data.dataset import Dataset, Split
from node.data.partition import partition
from node.data.sources import load
from node.learning.task import Task, load_task

TEST_FILE = "test.safetensors"
DESCRIPTION_FILE = "data.json"


@dataclass(frozen=True)
class Recipe:
    seed: int
    workload: WorkloadPlan
    nodes: tuple[str, ...]
    task_file: str | None = None


def prepare(recipe: Recipe, into: Path) -> dict[str, Any]:
    """Write all files; the description that is in data.json."""
    split = _split(recipe)
    plan = recipe.workload.partition
    places = partition(plan, split.train.labels, split.classes, recipe.nodes, recipe.seed)
    into.mkdir(parents=True, exist_ok=True)
    shards = {
        node: _write(into / f"{node}.safetensors", split.train.take(chosen), split.classes)
        for node, chosen in places.items()
    }
    test = _write(into / TEST_FILE, split.test, split.classes)
    description = {
        "dataset": recipe.workload.dataset,
        "input_shape": list(split.input_shape),
        "classes": split.classes,
        "synthetic": split.synthetic,
        "test": test,
        "shards": shards,
    }
    (into / DESCRIPTION_FILE).write_text(json.dumps(description, indent=1) + "\n")
    return description


def _split(recipe: Recipe) -> Split:
    workload = recipe.workload
    task = None
    if "file" in (workload.dataset, workload.model):
        if recipe.task_file is None:
            raise UsageError("the workload's data set or model is `file`, but there is no workload.file")
        task = load_task(Path(recipe.task_file))
        if workload.file_sha256 not in (None, task.sha256):
            raise UsageError(f"{task.path} changed since the plan was made", "make the plan again")
    if workload.model == "file" and task is not None:
        task.function("model")  # told before a fleet starts, though it is called in the nodes alone
    if workload.dataset == "file" and task is not None:
        return task_split(task, recipe.seed)
    return load(workload.dataset)


def task_split(task: Task, seed: int) -> Split:
    """What the user's data(seed) returned, checked."""
    returned = task.call("data", seed)
    if not isinstance(returned, (tuple, list)) or len(returned) != 4:
        raise UsageError(f"{task.path}: data(seed) must return x_train, y_train, x_test, y_test")
    x_train, y_train, x_test, y_test = returned
    train, test = _checked(task, x_train, y_train, "train"), _checked(task, x_test, y_test, "test")
    if train.features.shape[1:] != test.features.shape[1:]:
        raise UsageError(f"{task.path}: data(seed): examples of x_train and x_test differ in shape")
    classes = int(max(train.labels.max(), test.labels.max())) + 1
    return Split(train, test, classes, train.features.shape[1:])


def _checked(task: Task, features: Any, labels: Any, part: str) -> Dataset:
    where = f"{task.path}: data(seed)"
    try:
        x = np.asarray(features, dtype=np.float32)
        y = np.asarray(labels)
    except (TypeError, ValueError) as err:
        raise UsageError(f"{where}: x_{part} or y_{part} is no array of numbers: {err}") from err
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]  # as Keras' own data sets have it
    if y.ndim != 1 or x.ndim < 2 or len(x) != len(y) or not len(y):
        raise UsageError(
            f"{where}: x_{part} has the shape {x.shape} and y_{part} {y.shape}",
            "y needs one whole number for each row of x, and x at least one column",
        )
    if not np.issubdtype(y.dtype, np.integer) or y.min() < 0:
        raise UsageError(f"{where}: y_{part} must hold classes, whole numbers from 0 on")
    if not np.isfinite(x).all():
        raise UsageError(f"{where}: x_{part} has a value that is not finite")
    return Dataset(x, y.astype(np.int64))


def _write(path: Path, data: Dataset, classes: int) -> dict[str, Any]:
    content = shard.to_bytes(data)
    path.write_bytes(content)
    return {
        "file": path.name,
        "size_bytes": len(content),
        "examples": len(data),
        "sha256": hashlib.sha256(content).hexdigest(),
        "labels": np.bincount(data.labels, minlength=classes).tolist(),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Cut a data set into shards.")
    parser.add_argument("recipe", type=Path, metavar="RECIPE.json")
    parser.add_argument("into", type=Path, metavar="OUTDIR")
    options = parser.parse_args()
    try:
        try:
            recipe = from_json(Recipe, json.loads(options.recipe.read_text()))
        except (OSError, ValueError) as err:
            raise UsageError(f"{options.recipe}: {err}") from err
        prepare(recipe, options.into)
    except ShoalError as err:
        print(f"data: {err}", file=sys.stderr)
        return err.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
