"""The whole of the data set that is made up."""

from __future__ import annotations

import hashlib

import numpy as np

from node.data.shard import to_bytes
from node.data.sources import load

KNOWN_TEST_SET = "67f83adfcbfdf48ab44e5c5cf76a10f995086ddc86cc5aa5459678050d250892"


def test_synthetic_images_are_the_same_everywhere() -> None:
    split = load("synthetic-cifar")
    assert split.synthetic
    assert split.train.features.shape == (10_000, 32, 32, 3)
    assert np.bincount(split.test.labels).tolist() == [200] * 10
    assert hashlib.sha256(to_bytes(split.test)).hexdigest() == KNOWN_TEST_SET
