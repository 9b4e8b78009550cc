"""Limits of CPU and memory of nodes that are containers: what each part's container is held to.

A class limits a node's roles and its IPFS daemon together, and the engine limits containers, so each of
the two is held to the whole of it. Memory is limited from the start, CPU from the moment the node is ready.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from node.contract import ShoalError
from node.contract.plan import NodePlan
from orchestrator.compose_file import PartLimit
from orchestrator.containers import Containers

AGENT: Final = "agent"  # never limited
ENFORCED: Final = "enforced"


def limited(node: NodePlan) -> tuple[str, ...]:
    """The parts that a class is about."""
    return ("ipfs", *node.roles)


def part_limits(nodes: Sequence[NodePlan], runtime_bytes: int) -> dict[tuple[str, str], PartLimit]:
    """Memory by node and part; of a role on top of the runtime that it does not share as in a box."""
    return {
        (node.name, part): PartLimit(node.memory_bytes + (runtime_bytes if part in node.roles else 0))
        for node in nodes
        if node.memory_bytes is not None
        for part in limited(node)
    }


class ContainerLimits:
    def __init__(self, nodes: Sequence[NodePlan], containers: Containers) -> None:
        self._nodes = {n.name: n for n in nodes if n.cpu is not None or n.memory_bytes is not None}
        self._containers = containers
        self.runtime_bytes: int | None = None  # what a role takes before it has done anything
        self._begun: set[str] = set()
        self._refused: str | None = None
        self._counted: dict[str, dict[str, float]] = {}

    def begin(self, node: str) -> None:
        planned = self._nodes.get(node)
        if planned is None or planned.cpu is None or node in self._begun:
            return
        self._begun.add(node)
        try:
            for part in limited(planned):
                self._containers.limit(node, part, cpus=planned.cpu)
        except ShoalError as error:
            self._refused = error.message

    def said(self) -> dict[str, Any] | None:
        if not self._nodes:
            return None
        limits = {n.name: {"cpu": n.cpu, "memory_bytes": n.memory_bytes} for n in self._nodes.values()}
        states: dict[str, Any] = {}
        if any(n.cpu is not None for n in self._nodes.values()):
            states["cpu"] = ENFORCED if self._refused is None else f"not enforced: {self._refused}"
        if any(n.memory_bytes is not None for n in self._nodes.values()):
            states["memory"] = ENFORCED
            states["runtime_bytes"] = self.runtime_bytes
        return {"nodes": limits, **states, "counted": self._counted}

    def died(self, node: str, part: str) -> None:
        """The kernel has killed something for memory."""
        if node in self._nodes and part != AGENT:
            counted = self._counted.setdefault(node, {"killed_for_memory": 0})
            counted["killed_for_memory"] += 1

    def close(self) -> None:
        waiting = sorted(
            name for name, n in self._nodes.items() if n.cpu is not None and name not in self._begun
        )
        if waiting and self._refused is None:
            self._refused = f"{', '.join(waiting)} was never ready"
