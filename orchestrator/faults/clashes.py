"""Faults that would act upon one part at one time, as far as that is certain before the run. Pure.

A part that is killed while it is paused is neither paused nor resumed as the plan says, and the run could
only find that out. Links are another matter: what several faults cut or change there adds up.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Final

from node.contract import UsageError
from node.contract.plan import FaultPlan, NodePlan, When
from orchestrator.faults.reading import Wanted

# A round, and seconds since it opened. How long rounds last nobody knows, so of two moments one is certainly
# not the later only where neither its round nor its seconds are greater.
Moment = tuple[float, float]
BEFORE: Final = -math.inf  # in place of seconds: while the round waits to open
NEVER: Final[Moment] = (math.inf, math.inf)
WHOLE: Final = "node"
Faults = Mapping[str, FaultPlan]  # by their ids


def check(wanted: Sequence[Wanted], faults: Sequence[FaultPlan], nodes: Sequence[NodePlan]) -> None:
    """UsageError where two certainly meet; those of which only the run can tell are let through."""
    roles = {node.name: node.roles for node in nodes}
    by_id = {fault.id: fault for fault in faults}
    for (one, plan), (other, other_plan) in itertools.combinations(zip(wanted, faults, strict=True), 2):
        shared = sorted(hit(plan, roles) & hit(other_plan, roles))
        begins, over = span(plan, by_id)
        other_begins, other_over = span(other_plan, by_id)
        # Whoever ends when the other begins is not seen to be over.
        if shared and is_by(begins, other_over) and is_by(other_begins, over):
            first, second = (one, other) if is_by(begins, other_begins) else (other, one)
            raise complaint(first, second, *shared[0])


def hit(fault: FaultPlan, roles: Mapping[str, Sequence[str]]) -> set[tuple[str, str]]:
    """The nodes and parts whose processes a fault acts upon."""
    return {
        (node, one)
        for node, parts in fault.parts.items()
        for part in parts
        for one in (("agent", "ipfs", *roles[node]) if part == WHOLE else (part,))
    }


def span(fault: FaultPlan, by_id: Faults) -> tuple[Moment, Moment]:
    """When it begins at the latest, and until when it lasts at least."""
    begins, ends = start(fault, by_id), end(fault, by_id)
    return begins or NEVER, ends or begins or (0, BEFORE)


def is_by(one: Moment, other: Moment) -> bool:
    """Whether the one is certainly not later than the other."""
    return one[0] <= other[0] and one[1] <= other[1]


def start(fault: FaultPlan, by_id: Faults) -> Moment | None:
    return moment(fault.start, fault, by_id)


def end(fault: FaultPlan, by_id: Faults) -> Moment | None:
    return moment(fault.heal, fault, by_id) if fault.heal is not None else NEVER


def moment(when: When, of: FaultPlan, by_id: Faults) -> Moment | None:
    """None where only the run can tell."""
    match when.kind:
        case "round":
            return when.round, BEFORE
        case "within":
            return when.round, when.seconds
        case "time":
            return 1, when.seconds
        case "lasting":
            return later(start(of, by_id), when.seconds)
        case "after":
            assert when.fault is not None
            return later(end(by_id[when.fault], by_id), when.seconds)


def later(since: Moment | None, seconds: float) -> Moment | None:
    """Some seconds on; None where that is from before a round opens, which waits as long as it must."""
    if since is None or (since[1] == BEFORE and seconds > 0):
        return None
    return since[0], since[1] + seconds


def complaint(first: Wanted, second: Wanted, node: str, part: str) -> UsageError:
    """About whichever begins later, or stands later in the file."""
    begin = (
        f'begin it later, as in at: "after {first.id} + 20 s"' if first.heal else f"say when {first.id} heals"
    )
    where = f"{first.id}, of line {first.item.line},"
    return second.item.required("at").error(
        f"{second.id} would {second.kind} the {part} of {node} before {where} is seen to be over",
        f"name another node or part (whoever is not named is drawn by the seed), or {begin}",
    )
