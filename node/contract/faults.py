"""Faults: what the aggregator's agent is told of them, for the metrics."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FaultNow:
    kind: str
    is_active: bool  # a flapping one is active while it cuts


@dataclass(frozen=True)
class FaultsNow:
    """The body of PUT /faults: every fault of the plan, by its id."""

    faults: dict[str, FaultNow]
