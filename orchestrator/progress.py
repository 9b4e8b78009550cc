"""What a person wants to hear while a run goes on: one line for an event, or none. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from node.contract.messages import NOT_HANDED_IN
from node.contract.plan import Plan
from orchestrator.history import Event

MOST_NAMED: Final = 6  # of the workers in one line


def line(plan: Plan, event: Event, elapsed_s: float) -> str | None:
    """The line for one event; most events are for the history alone."""
    match event["kind"]:
        case "all_ready":
            return f"{len(event['trainers'])} workers are ready after {elapsed_s:.1f} s"
        case "round_closed":
            workers = sum("trainer" in node.roles for node in plan.nodes)
            outcome = "no new model"
            if event["completed"]:
                outcome = f"accuracy {event['accuracy']:.3f}, loss {event['loss']:.3f}"
            return (
                f"round {event['round']}/{plan.workload.rounds}: {outcome}, "
                f"{len(event['accepted'])} of {workers} updates, {event['seconds']:.2f} s{without(event)}"
            )
        case "update_refused":
            return f"  refused in round {event['round']}: {event['sender']}: {event['reason']}"
        case "update_answered" if (event["reason"] or "").startswith(NOT_HANDED_IN):
            return f"  {event['node']} in round {event['round']}: {event['reason']}"
        case "part_ended" if not event["expected"]:
            return f"  lost: {event['part']} of {event['node']} ended with {event['status']}"
        case "failed":
            return f"  {event['node']}, {event['part']}: {event['message']}"
    return None


def without(closed: Event) -> str:
    """Whose updates a round did not wait for, or waited for in vain."""
    return f", without {', '.join(few_names(closed['missing']))}" if closed["missing"] else ""


def few_names(names: Sequence[str]) -> list[str]:
    more = len(names) - MOST_NAMED
    return [*names[:MOST_NAMED], f"{more} more"] if more > 1 else list(names)
