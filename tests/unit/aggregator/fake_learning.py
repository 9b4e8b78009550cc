"""Learning without TensorFlow: a strict numpy fake of the model, the combiner, and a trainer's learner."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from aggregator.strategies import Strategy
from aggregator.strategies.synchronous import Synchronous
from node.data.dataset import Dataset
from node.learning.encoding import Weights
from node.learning.scores import Scores

SHAPES = {"kernel": (4, 3), "bias": (3,)}


def template() -> Weights:
    return {name: np.zeros(shape, np.float32) for name, shape in SHAPES.items()}


def filled(value: float) -> Weights:
    return {name: np.full(shape, value, np.float32) for name, shape in SHAPES.items()}


class MeanCombiner:
    """A weighted mean, and a state that counts its calls."""

    def initial_state(self) -> bytes:
        return b"combined 0 times"

    def combine(
        self, state: bytes, model: Weights, updates: list[tuple[Weights, float]]
    ) -> tuple[Weights, bytes]:
        assert updates, "nothing to combine"
        words = state.decode().split()
        assert words[0] == "combined", "a state that is not ours"
        total = sum(weight for _, weight in updates)
        new = {
            name: (
                array - sum(update[name] * np.float32(weight / total) for update, weight in updates)
            ).astype(np.float32)
            for name, array in model.items()
        }
        return new, f"combined {int(words[1]) + 1} times".encode()


class FakeLearning:
    """In place of TffLearning: every model's accuracy is the mean of its bias."""

    def __init__(self, strategy: Callable[[], Strategy] = lambda: Synchronous(MeanCombiner())) -> None:
        self.initial = template()
        self.strategy = strategy()

    def evaluate(self, weights: Weights) -> Scores:
        assert list(weights) == list(SHAPES)
        value = float(weights["bias"].mean())
        return Scores(accuracy=value, loss=1 - value, precision=value, recall=value, f1=value)

    def inference_ms(self, weights: Weights, batch_size: int) -> float:
        assert batch_size in (1, 32)
        return 0.1 * batch_size


@dataclass(frozen=True)
class FakeOutcome:
    update: Weights
    examples: int
    loss: float


class FakeLearner:
    """In place of node.learning's Learner: each training moves every weight by a tenth."""

    def __init__(self, step: float = 0.1) -> None:
        self._step = step

    def initial_weights(self, seed: int) -> Weights:
        return template()

    def trace(self) -> None:
        return

    def train(
        self,
        weights: Weights,
        data: Dataset,
        *,
        local_epochs: int,
        batch_size: int,
        learning_rate: float,
        seed: int,
    ) -> FakeOutcome:
        assert list(weights) == list(SHAPES)
        assert local_epochs >= 0
        assert batch_size >= 1
        return FakeOutcome(filled(-self._step), len(data), 0.5)
