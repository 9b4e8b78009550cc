from __future__ import annotations

import numpy as np
import pytest

from aggregator import strategies
from aggregator.rounds import Update
from aggregator.strategies.synchronous import Synchronous
from node.contract import UsageError
from node.contract.messages import ENCODING, Manifest, Signed
from node.contract.plan import AggregationPlan
from node.learning.encoding import Weights
from tests.unit.aggregator.fake_learning import MeanCombiner, filled, template
from tests.unit.aggregator.fleet_of_fakes import workload


def update(sender: str, value: float, examples: int) -> Update:
    manifest = Manifest("run", 1, "peer", "base", "update", 1, ENCODING, examples, 0.1, 0.2, 0.3)
    return Update(sender, Signed(manifest, "u"), filled(value))


def test_there_is_one_file_for_each() -> None:
    assert strategies.names() == ["dp", "mean", "robust"]


def test_an_unknown_one_is_refused_with_those_there_are() -> None:
    with pytest.raises(UsageError, match="dp, mean, robust"):
        strategies.load(AggregationPlan("synchronous", "sync", 1.0, 1.0, {}), workload(1), template())


def test_updates_are_weighted_by_examples_and_summed_in_order_of_name() -> None:
    seen: list[float] = []

    class Watched(MeanCombiner):
        def combine(
            self, state: bytes, model: Weights, updates: list[tuple[Weights, float]]
        ) -> tuple[Weights, bytes]:
            seen.extend(weight for _, weight in updates)
            return super().combine(state, model, updates)

    strategy = Synchronous(Watched())
    state = strategy.initial_state()
    combined = strategy.combine(state, template(), [update("b", -1.0, 30), update("a", -2.0, 10)])
    assert seen == [10.0, 30.0]
    np.testing.assert_allclose(combined.model["bias"], 1.25)
    assert combined.state != state
