"""TFF's mean after zeroing updates that are far too large and clipping large ones."""

from __future__ import annotations

from aggregator.strategies import Strategy
from aggregator.strategies.synchronous import Synchronous
from node.contract.plan import AggregationPlan, WorkloadPlan
from node.learning.encoding import Weights


def make(aggregation: AggregationPlan, workload: WorkloadPlan, template: Weights) -> Strategy:
    from node.learning.tff import Combiner  # here, because it loads TensorFlow

    combiner = Combiner("robust", aggregation.parameters, template, workload.server_learning_rate)
    return Synchronous(combiner)
