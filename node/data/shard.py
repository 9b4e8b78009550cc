"""A data set as bytes and back: safetensors, as small as it goes without loss."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from node.contract import ShoalError
from node.data.dataset import Dataset


def to_bytes(data: Dataset) -> bytes:
    """The same bytes for the same data, on any host."""
    return bytes(safetensors.numpy.save({"features": _packed(data.features), "labels": data.labels}))


def from_bytes(data: bytes) -> Dataset:
    """What `to_bytes` was given."""
    try:
        arrays = safetensors.numpy.load(data)
        features, labels = arrays["features"], arrays["labels"]
        if features.dtype == np.uint8:
            features = _unpacked(features)
        return Dataset(features, labels)
    except (safetensors.SafetensorError, KeyError, TypeError) as err:
        raise ShoalError(f"this is no shard: {err}") from err


def _packed(features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32] | npt.NDArray[np.uint8]:
    """Images were bytes once, and become bytes again when that loses nothing: a quarter of the size."""
    if features.size and features.min() >= 0 and features.max() <= 1:
        pixels: npt.NDArray[np.uint8] = np.rint(features * np.float32(255)).astype(np.uint8)
        if np.array_equal(_unpacked(pixels), features):
            return pixels
    return features


def _unpacked(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    return np.divide(pixels, 255, dtype=np.float32)
