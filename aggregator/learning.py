"""What the aggregator needs of machine learning; blocking, and made and called in one thread of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from aggregator import strategies
from aggregator.strategies import Strategy
from node.contract import UsageError
from node.contract.settings import NodeSettings
from node.data import shard
from node.learning.encoding import Weights
from node.learning.scores import Scores


class Learning(Protocol):
    @property
    def initial(self) -> Weights: ...

    @property
    def strategy(self) -> Strategy: ...

    def evaluate(self, weights: Weights) -> Scores: ...

    def inference_ms(self, weights: Weights, batch_size: int) -> float: ...


class TffLearning:
    """The real one."""

    def __init__(self, settings: NodeSettings) -> None:
        if settings.test_file is None or settings.classes < 1:
            raise UsageError(f"{settings.name}: an aggregator's settings need test_file and classes")
        from node.learning.tff import Learner  # here, because it loads TensorFlow

        self._test = shard.from_bytes(Path(settings.test_file).read_bytes())
        shape = self._test.features.shape[1:]
        self._learner = Learner(settings.workload, shape, settings.classes, settings.task_file)
        self.initial: Weights = self._learner.initial_weights(settings.seed)
        self.strategy: Strategy = strategies.load(settings.aggregation, settings.workload, self.initial)

    def evaluate(self, weights: Weights) -> Scores:
        return self._learner.evaluate(weights, self._test)

    def inference_ms(self, weights: Weights, batch_size: int) -> float:
        return self._learner.inference_ms(weights, batch_size)
