"""Partitions as maps: each node, and whom it no longer hears; those who hear everybody are not in it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from node.contract import UsageError

Deaf = Mapping[str, frozenset[str]]
LEAST_IN_RING = 4  # of three, a majority that hears itself both ways is everybody


def components(names: Collection[str], *sides: Collection[str]) -> Deaf:
    """Each side hears only itself; whoever is on no side hears everybody, and everybody hears it."""
    return _clean(
        {
            name: {other for far in sides if far is not side for other in far if other in names}
            for side in sides
            for name in side
        }
    )


def isolate(names: Collection[str], away: Collection[str]) -> Deaf:
    """These together on one side, all others on the other."""
    return components(names, away, [name for name in names if name not in away])


def halves(ranked: Sequence[str]) -> Deaf:
    """Two sides, along an order that somebody drew; the second is the larger one when they differ."""
    middle = len(ranked) // 2
    return components(ranked, ranked[:middle], ranked[middle:])


def one_way(senders: Collection[str], receivers: Collection[str]) -> Deaf:
    """The receivers no longer hear the senders, who still hear them."""
    return _clean({name: set(senders) - {name} for name in receivers})


def bridge(ranked: Sequence[str], middle: str) -> Deaf:
    """Two halves that do not hear each other, and one node between them that hears both."""
    return halves([name for name in ranked if name != middle])


def majorities_ring(ranked: Sequence[str]) -> Deaf:
    """Around a ring everybody hears itself and as many on either side as make a majority, no two the same."""
    count = len(ranked)
    if count < LEAST_IN_RING:
        raise UsageError(
            f"a ring of majorities needs {LEAST_IN_RING} nodes, these are {count}", "take more workers"
        )
    reach = (count // 2 + 1) // 2  # to either side: 2 x reach + 1 is the least odd majority
    found = {}
    for place, name in enumerate(ranked):
        heard = {ranked[(place + step) % count] for step in range(-reach, reach + 1)}
        found[name] = set(ranked) - heard
    return _clean(found)


def pairs(cut: Iterable[tuple[str, str]]) -> Deaf:
    """Neither of a pair hears the other."""
    found: dict[str, set[str]] = {}
    for one, other in cut:
        found.setdefault(one, set()).add(other)
        found.setdefault(other, set()).add(one)
    return _clean(found)


def union(*maps: Mapping[str, Collection[str]]) -> Deaf:
    """What is cut when all of them hold at once."""
    found: dict[str, set[str]] = {}
    for one in maps:
        for name, others in one.items():
            found.setdefault(name, set()).update(others)
    return _clean(found)


def among(deaf: Deaf, talking: Collection[tuple[str, str]]) -> Deaf:
    """What is left of a map between nodes that talk at all; a pair is sender and receiver."""
    return _clean(
        {name: {peer for peer in others if (peer, name) in talking} for name, others in deaf.items()}
    )


def _clean(found: Mapping[str, Collection[str]]) -> Deaf:
    """In order of name, nobody deaf to itself, and nobody named who hears everybody."""
    kept = {name: frozenset(found[name]) - {name} for name in sorted(found)}
    return {name: others for name, others in kept.items() if others}
