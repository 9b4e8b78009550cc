"""Examples with their labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Dataset:
    """`features` float32, mostly in [0, 1], one row for each example; `labels` int64 from 0."""

    features: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.features.dtype != np.float32 or self.labels.dtype != np.int64:
            raise TypeError(f"expected float32 and int64, got {self.features.dtype} and {self.labels.dtype}")
        if self.labels.shape != self.features.shape[:1]:
            raise TypeError(f"{len(self.features)} examples, but labels of shape {self.labels.shape}")

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: npt.NDArray[np.int64]) -> Dataset:
        return Dataset(self.features[indices], self.labels[indices])


@dataclass(frozen=True)
class Split:
    """A data set for an experiment: what is dealt out to the nodes, and what is held out."""

    train: Dataset
    test: Dataset
    classes: int
    input_shape: tuple[int, ...]  # of one example
    synthetic: bool = False
