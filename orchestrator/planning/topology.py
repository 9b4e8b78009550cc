"""Who knows whom: a topology's word, or its pairs, as edges between names."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from node.contract import UsageError
from orchestrator import nearest
from orchestrator.planning import targets

WORDS: Final = ("full", "star", "ring", "regular(k)")

Edge = tuple[str, str]


@dataclass(frozen=True)
class Topology:
    """`degree` is of regular, `pairs` of pairs."""

    kind: Literal["full", "star", "ring", "regular", "pairs"]
    degree: int = 0
    pairs: tuple[Edge, ...] = ()


def read(text: str) -> Topology:
    """The topology that a word means."""
    match text:
        case "full" | "star" | "ring":
            return Topology(text)
    regular = re.fullmatch(r"regular\(\s*([0-9]{1,6})\s*\)", text)
    if regular is None:
        raise UsageError(f"{text!r} is no topology", nearest.hint(text, WORDS) + ", or a list of pairs")
    return Topology("regular", degree=int(regular[1]))


def edges(topology: Topology, names: Sequence[str], centre: str, seed: int) -> tuple[Edge, ...]:
    """Each unordered pair once, sorted; a fleet that falls apart is refused."""
    found = _sorted(_draw(topology, sorted(names), centre, seed))
    if missing := sorted(set(names) - _reached(centre, found)):
        shown = ", ".join(missing[:5]) + (", …" if len(missing) > 5 else "")
        raise UsageError(f"no path leads from {centre} to {shown}", "add pairs that connect them")
    return found


def talking(edges: Iterable[Edge], centre: str, names: Iterable[str]) -> tuple[Edge, ...]:
    """Who exchange packets: those who know each other, and everybody with the centre, who leads."""
    return _sorted([*edges, *((centre, name) for name in names if name != centre)])


def _draw(topology: Topology, names: list[str], centre: str, seed: int) -> Iterable[Edge]:
    match topology.kind:
        case "full":
            return itertools.combinations(names, 2)
        case "star":
            return [(centre, name) for name in names if name != centre]
        case "ring":
            return _circle(names, 2)
        case "regular":
            _check_degree(topology.degree, len(names))
            return _circle(targets.ranked(seed, names, "topology"), topology.degree)
        case "pairs":
            _check_pairs(topology.pairs, names)
            return topology.pairs


def _circle(names: list[str], degree: int) -> list[Edge]:
    """Everybody knows the next ones around a circle; with an odd degree also the one opposite."""
    count = len(names)
    steps = [*range(1, degree // 2 + 1), *([count // 2] if degree % 2 else [])]
    return [
        (name, names[(index + step) % count])
        for step in steps
        for index, name in enumerate(names)
        if count > 1 and step % count
    ]


def _check_degree(degree: int, count: int) -> None:
    if not 1 <= degree < count:
        raise UsageError(
            f"regular({degree}): each of {count} nodes can know 1 to {count - 1} others", "take another k"
        )
    if degree * count % 2:
        raise UsageError(
            f"regular({degree}): an odd k needs an even number of nodes, these are {count}",
            "take an even k, or one worker more",
        )


def _check_pairs(pairs: Sequence[Edge], names: Sequence[str]) -> None:
    seen: set[Edge] = set()
    for one, other in pairs:
        for name in (one, other):
            if name not in names:
                raise UsageError(f"there is no node {name!r} in this fleet", nearest.hint(name, names))
        if one == other:
            raise UsageError(f"{one} is paired with itself", "a pair names two nodes")
        edge = (min(one, other), max(one, other))
        if edge in seen:
            raise UsageError(f"{one} and {other} are paired twice", "write each pair once")
        seen.add(edge)


def _sorted(drawn: Iterable[Edge]) -> tuple[Edge, ...]:
    return tuple(sorted({(min(edge), max(edge)) for edge in drawn}))


def _reached(start: str, found: Sequence[Edge]) -> set[str]:
    known: dict[str, list[str]] = {}
    for one, other in found:
        known.setdefault(one, []).append(other)
        known.setdefault(other, []).append(one)
    reached, waiting = {start}, [start]
    while waiting:
        for name in known.get(waiting.pop(), ()):
            if name not in reached:
                reached.add(name)
                waiting.append(name)
    return reached
