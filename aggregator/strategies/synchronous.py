"""What TFF's aggregators have in common: one round at a time, combined at its end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from aggregator.rounds import ClosedBy, Round, Update, all_or_deadline
from aggregator.strategies import Combined
from node.contract.messages import Manifest, Refusal
from node.learning.encoding import Weights


class Combines(Protocol):
    """TFF's aggregator and finalizer, as node.learning offers them."""

    def initial_state(self) -> bytes: ...

    def combine(
        self, state: bytes, model: Weights, updates: list[tuple[Weights, float]]
    ) -> tuple[Weights, bytes]: ...


class Synchronous:
    """A strategy around a combiner: the sums are taken in order of name, so that the bits repeat."""

    def __init__(self, combiner: Combines) -> None:
        self._combiner = combiner

    def initial_state(self) -> bytes:
        return self._combiner.initial_state()

    def accept(self, state: Round, sender: str, manifest: Manifest) -> tuple[Refusal, str] | None:
        return state.objection(sender, manifest)

    def ready(self, state: Round, clock_s: float) -> ClosedBy | None:
        return all_or_deadline(state, clock_s)

    def combine(self, state: bytes, model: Weights, updates: Sequence[Update]) -> Combined:
        in_order = sorted(updates, key=lambda update: update.sender)
        weighted = [(update.weights, float(update.examples)) for update in in_order]
        return Combined(*self._combiner.combine(state, model, weighted))
