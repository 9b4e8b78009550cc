"""One learner for all tests: importing TFF takes ten seconds, tracing two."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from node.contract.plan import PartitionPlan, WorkloadPlan
from node.data.dataset import Dataset, Split
from node.data.partition import partition
from node.data.sources import load
from node.learning.encoding import Weights

if TYPE_CHECKING:
    from node.learning.tff import Learner

WORKLOAD = WorkloadPlan("digits", "cnn", PartitionPlan("iid"), 6, 1, 16, 0.1)


@pytest.fixture(scope="session")
def digits() -> Split:
    return load("digits")


@pytest.fixture(scope="session")
def shards(digits: Split) -> list[Dataset]:
    nodes = ["w01", "w02", "w03", "w04"]
    places = partition(WORKLOAD.partition, digits.train.labels, digits.classes, nodes, 7)
    return [digits.train.take(places[node]) for node in nodes]


@pytest.fixture(scope="session")
def learner() -> Learner:
    from node.learning.tff import Learner

    return Learner(WORKLOAD, (8, 8, 1), 10, None)


@pytest.fixture
def model(learner: Learner) -> Weights:
    return learner.initial_weights(7)


def equal(one: Weights, other: Weights) -> bool:
    return list(one) == list(other) and all(np.array_equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="session", autouse=True)
def _in_temporary_folder(temporary_folder: Path) -> None:
    """For all tests here."""
