"""What checks look at, and what they find there. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from node.contract.plan import FaultPlan, Plan

Event = Mapping[str, Any]
NEEDED = frozenset(
    {"trainer", "aggregator", "ipfs", "node"}
)  # parts without which a node has no part in rounds


@dataclass(frozen=True)
class Observed:
    """A figure between two bounds; they are one when it was observed completely."""

    low: float
    high: float
    said: str


class UnobservedError(Exception):
    """What the check asks for is not in the evidence."""


@dataclass(frozen=True)
class Round:
    """One that was closed; instants by the wall clock."""

    number: int
    opened: float
    closed: float
    completed: bool
    accepted: tuple[str, ...]
    refused: int
    missing: tuple[str, ...]


@dataclass(frozen=True)
class Evidence:
    """`nodes`: those that the check names in brackets; without any it is about all workers."""

    plan: Plan
    history: Sequence[Event]
    results: Mapping[str, Any]
    nodes: frozenset[str] = frozenset()

    def of(self, kind: str, **fields: Any) -> list[Event]:
        return [e for e in self.history if e["kind"] == kind and fields.items() <= e.items()]

    def finish(self) -> Event | None:
        return next((event for event in reversed(self.history) if event["kind"] == "run_finished"), None)

    def completed(self) -> dict[int, Event]:
        """The closing of every round that made a new model; a restarted aggregator may tell it twice."""
        return {e["round"]: e for e in self.of("round_closed") if e["completed"]}

    def is_whole(self) -> bool:
        """Whether the history tells of every round: it has an end, and as many rounds as that counts."""
        finish = self.finish()
        return finish is not None and finish["rounds"] == len(self.completed())

    def rounds(self) -> list[Round]:
        """All that were opened and closed, in the order of time."""
        found: list[Round] = []
        opened: dict[int, float] = {}
        for event in sorted(self.history, key=lambda e: float(e.get("wall", 0.0))):
            if event["kind"] == "round_opened":
                opened[event["round"]] = event["wall"]
            elif event["kind"] == "round_closed" and event["round"] in opened:
                found.append(
                    Round(
                        event["round"],
                        opened.pop(event["round"]),
                        event["wall"],
                        event["completed"],
                        tuple(event["accepted"]),
                        event["refused"],
                        tuple(event["missing"]),
                    )
                )
        return found

    def cut_off(self, fault: FaultPlan) -> list[str]:
        """The workers that cannot talk with the aggregator while the fault lasts: either does not hear."""
        leads = self._with_role("aggregator")
        return [
            worker
            for worker in self._with_role("trainer")
            if any(lead in fault.deaf.get(worker, {}) or worker in fault.deaf.get(lead, {}) for lead in leads)
        ]

    def down(self, fault: FaultPlan) -> list[str]:
        """The workers that cannot take part while the fault lasts, since they or their daemons are down."""
        return [name for name in self._with_role("trainer") if NEEDED & set(fault.parts.get(name, ()))]

    def is_headless(self, fault: FaultPlan) -> bool:
        """Whether nobody takes updates while the fault lasts."""
        return any(NEEDED & set(fault.parts.get(name, ())) for name in self._with_role("aggregator"))

    def kept_out(self, fault: FaultPlan) -> list[str]:
        """The workers that cannot hand in anything while the fault lasts, for whatever reason."""
        if self.is_headless(fault):
            return self._with_role("trainer")
        return sorted({*self.cut_off(fault), *self.down(fault)})

    def _with_role(self, role: str) -> list[str]:
        return [node.name for node in self.plan.nodes if role in node.roles]

    def cuts(self, fault: FaultPlan) -> list[tuple[float, float]]:
        """From when on, and until when, it certainly was in force everywhere; by the wall clock."""
        spans: list[tuple[float, float]] = []
        begun: float | None = None
        for event in self.history:
            if event["kind"] not in ("fault_started", "fault_flapped", "fault_healed"):
                continue
            if event["fault"] != fault.id:
                continue
            is_on = event["kind"] == "fault_started" or bool(event.get("is_cut"))
            if is_on and begun is None:
                begun = max(instants(event), default=float(event["wall"]))
            elif not is_on and begun is not None:
                spans.append((begun, wall(event, event["requested_ns"])))
                begun = None
        if begun is not None:
            spans.append((begun, max(float(e["wall"]) for e in self.history)))
        return spans

    def is_verified(self, fault: str, phase: str) -> bool:
        """By the newest word on it."""
        said = self.of("fault_verified", fault=fault, phase=phase)
        return bool(said) and said[-1]["verified"] is True


def wall(event: Event, mono_ns: int) -> float:
    """An instant of the clock of whoever wrote the event, by the wall clock."""
    return float(event["wall"] - (event["mono_ns"] - mono_ns) / 1e9)


def instants(event: Event) -> list[float]:
    """When each node did what a fault asked of it."""
    return [wall(event, at_ns) for at_ns in event["effective_ns"].values()]
