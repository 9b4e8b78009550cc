"""Strategies: one file each, named by the scenario, all behind one pure interface."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from aggregator.rounds import ClosedBy, Round, Update
from node.contract import UsageError
from node.contract.messages import Manifest, Refusal
from node.contract.plan import AggregationPlan, WorkloadPlan
from node.learning.encoding import Weights

SHARED = ("synchronous",)  # what several strategies are made of


@dataclass(frozen=True, eq=False)
class Combined:
    """A new model, and the state for the next time."""

    model: Weights
    state: bytes


class Strategy(Protocol):
    """Nothing here has effects: what it knows is in its arguments, what it decides in its results."""

    def initial_state(self) -> bytes: ...

    def accept(self, state: Round, sender: str, manifest: Manifest) -> tuple[Refusal, str] | None:
        """Why an update is not to be taken, before anything of it is fetched and again at the end."""
        ...

    def ready(self, state: Round, clock_s: float) -> ClosedBy | None:
        """Whether the round ends now, and by what."""
        ...

    def combine(self, state: bytes, model: Weights, updates: Sequence[Update]) -> Combined:
        """The new model from all accepted updates, which come in order of name."""
        ...


def names() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name not in SHARED)


def load(aggregation: AggregationPlan, workload: WorkloadPlan, template: Weights) -> Strategy:
    """The strategy that the plan names."""
    if aggregation.strategy not in names():
        raise UsageError(
            f"aggregation.strategy: there is no strategy {aggregation.strategy!r}",
            f"known are {', '.join(names())}: the files in aggregator/strategies/",
        )
    module = importlib.import_module(f"aggregator.strategies.{aggregation.strategy}")
    strategy: Strategy = module.make(aggregation, workload, template)
    return strategy
