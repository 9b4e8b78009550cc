"""Words for some of a fleet's workers (`third`, a class, a zone, names), resolved by the seed into names."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from node.contract import UsageError
from node.contract.plan import NodePlan
from orchestrator import nearest

# How many of n workers. Strict: a third is never more than a third, a majority always more than half.
WORDS: Final[Mapping[str, Callable[[int], int]]] = {
    "one": lambda n: min(n, 1),
    "minority": lambda n: (n - 1) // 2,
    "third": lambda n: n // 3,
    "majority": lambda n: n // 2 + 1,
    "all": lambda n: n,
}


def ranked(seed: int, names: Sequence[str], purpose: str = "") -> list[str]:
    """The names in an order drawn by the seed; a further name moves none of the others past each other."""

    def rank(name: str) -> bytes:
        return hashlib.sha256(f"{seed}\0{purpose}\0{name}".encode()).digest()

    return sorted(names, key=rank)


def resolve(
    target: str | Sequence[str], nodes: Sequence[NodePlan], seed: int, purpose: str = ""
) -> tuple[str, ...]:
    """The names that a target means, in order of name. Words, classes and zones mean workers only."""
    if not isinstance(target, str):
        names = {name for one in target for name in resolve(one, nodes, seed, purpose)}
        if not names:
            raise UsageError("no target is named", "name at least one")
        return tuple(sorted(names))
    workers = [node for node in nodes if "trainer" in node.roles]
    if target in WORDS:
        count = WORDS[target](len(workers))
        if count < 1:
            raise UsageError(f"{target} of {len(workers)} workers is none", "take more workers, or a name")
        return tuple(sorted(ranked(seed, [node.name for node in workers], purpose)[:count]))
    if any(node.name == target for node in nodes):
        return (target,)
    found = sorted(node.name for node in workers if target in (node.class_name, node.zone))
    if not found:
        groups = {group for node in workers for group in (node.class_name, node.zone) if group}
        known = {*WORDS, *groups, *(node.name for node in nodes)}
        raise UsageError(f"{target!r} is no target of this fleet", nearest.hint(target, known))
    return tuple(found)
