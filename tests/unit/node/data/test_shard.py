"""Data sets as bytes, and the helper that cuts them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from node.contract import ShoalError, UsageError
from node.contract.plan import PartitionPlan, WorkloadPlan
from node.data.dataset import Dataset
from node.data.prepare import Recipe, prepare
from node.data.shard import from_bytes, to_bytes

finite = st.floats(width=32, allow_nan=False)


@given(hnp.arrays(np.float32, (3, 2), elements=finite), hnp.arrays(np.int64, 3))
def test_data_come_back_as_they_were(features: Any, labels: Any) -> None:
    back = from_bytes(to_bytes(Dataset(features, labels)))
    assert np.array_equal(back.features, features)
    assert np.array_equal(back.labels, labels)


def test_images_take_one_byte_for_each_pixel() -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    data = Dataset(np.divide(pixels, 255, dtype=np.float32), np.zeros(1, np.int64))
    content = to_bytes(data)
    assert len(content) < 256 + 200
    assert np.array_equal(from_bytes(content).features, data.features)


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 100, to_bytes(Dataset(np.ones((1, 1), np.float32), np.ones(1, np.int64)))[:-1]]
)
def test_what_is_no_shard_is_refused(content: bytes) -> None:
    with pytest.raises(ShoalError, match="no shard"):
        from_bytes(content)


def workload(**changes: Any) -> WorkloadPlan:
    values: dict[str, Any] = {
        "dataset": "digits",
        "model": "cnn",
        "partition": PartitionPlan("iid"),
        "rounds": 1,
        "local_epochs": 1,
        "batch_size": 8,
        "learning_rate": 0.1,
    }
    return WorkloadPlan(**{**values, **changes})


def test_a_recipe_becomes_files(tmp_path: Path) -> None:
    said = prepare(Recipe(7, workload(), ("w01", "w02")), tmp_path)
    assert json.loads((tmp_path / "data.json").read_text()) == said
    assert said["input_shape"] == [8, 8, 1]
    assert said["test"]["examples"] == 359
    assert sum(shard["examples"] for shard in said["shards"].values()) == 1438
    for shard in [*said["shards"].values(), said["test"]]:
        content = (tmp_path / shard["file"]).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (shard["size_bytes"], shard["sha256"])
        assert np.bincount(from_bytes(content).labels, minlength=10).tolist() == shard["labels"]


TASK = """
import numpy as np
def data(seed):
    x = np.full((10, 3), seed, dtype="float32")
    y = np.arange(10) % 2
    {change}
    return x, y, x, y
{model}
"""
MODEL = """
def model():
    raise RuntimeError("it is not called here")
"""


def test_a_task_without_a_model_is_refused_before_a_fleet_starts(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no function model\(\)"):
        cut_task(tmp_path, "", model="")


def cut_task(tmp_path: Path, change: str, model: str = MODEL, **changes: Any) -> dict[str, Any]:
    path = tmp_path / "task.py"
    path.write_text(TASK.replace("{change}", change).replace("{model}", model))
    plan = workload(dataset="file", model="file", file="task.py", **changes)
    return prepare(Recipe(5, plan, ("w01", "w02"), str(path)), tmp_path / "out")


def test_the_users_own_data(tmp_path: Path) -> None:
    said = cut_task(tmp_path, "y = y.reshape(10, 1)")
    assert (said["classes"], said["input_shape"]) == (2, [3])
    assert from_bytes((tmp_path / "out/w01.safetensors").read_bytes()).features.tolist() == [[5.0] * 3] * 5


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("return 1, 2, 3", "must return x_train"),
        ("return 'a', y, x, y", "no array of numbers"),
        ("y = y[:5]", r"y_train \(5,\)"),
        ("y = y / 2", "whole numbers"),
        ("y = y - 1", "from 0"),
        ("x[1, 1] = np.nan", "not finite"),
        ("return x, y, x[:, :2], y", "differ in shape"),
    ],
)
def test_wrong_data_of_the_users_are_refused(change: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        cut_task(tmp_path, change)
    assert "task.py" in caught.value.message


def test_a_task_file_that_changed_since_the_plan_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="changed since"):
        cut_task(tmp_path, "pass", file_sha256="0" * 64)
