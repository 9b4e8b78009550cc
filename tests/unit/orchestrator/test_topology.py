from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from node.contract import UsageError
from orchestrator.planning import topology
from orchestrator.planning.topology import Edge, Topology

NAMES = ["agg", "w01", "w02", "w03"]


def fleet(count: int) -> list[str]:
    return ["agg", *(f"w{number:02}" for number in range(1, count))]


def degrees(edges: tuple[Edge, ...]) -> Counter[str]:
    return Counter(name for edge in edges for name in edge)


def test_the_words() -> None:
    assert topology.read("full") == Topology("full")
    assert topology.read("regular( 4 )") == Topology("regular", degree=4)
    with pytest.raises(UsageError) as caught:
        topology.read("regular 4")
    assert "perhaps you meant regular(k)" in caught.value.hint


@pytest.mark.parametrize(
    ("wanted", "edges"),
    [
        (Topology("star"), [("agg", "w01"), ("agg", "w02"), ("agg", "w03")]),
        (Topology("ring"), [("agg", "w01"), ("agg", "w03"), ("w01", "w02"), ("w02", "w03")]),
        (
            Topology("pairs", pairs=(("w03", "agg"), ("w02", "w03"), ("w01", "w02"))),
            [("agg", "w03"), ("w01", "w02"), ("w02", "w03")],
        ),
    ],
)
def test_edges_are_written_once_and_sorted(wanted: Topology, edges: list[Edge]) -> None:
    assert topology.edges(wanted, NAMES, "agg", 7) == tuple(edges)


@pytest.mark.parametrize("kind", ["full", "star", "ring"])
def test_two_nodes_share_one_edge(kind: str) -> None:
    assert topology.edges(topology.read(kind), ["w01", "agg"], "agg", 7) == (("agg", "w01"),)


@given(st.integers(2, 40))
def test_full_is_every_pair(count: int) -> None:
    edges = topology.edges(Topology("full"), fleet(count), "agg", 7)
    assert len(edges) == count * (count - 1) // 2
    assert set(degrees(edges).values()) == {count - 1}


@given(st.integers(3, 40), st.integers(2, 12), st.integers(0, 2**32 - 1))
def test_regular_gives_everybody_as_many(count: int, degree: int, seed: int) -> None:
    assume(degree < count and degree * count % 2 == 0)
    names = fleet(count)
    edges = topology.edges(Topology("regular", degree=degree), names, "agg", seed)
    assert degrees(edges) == Counter(dict.fromkeys(names, degree))
    assert all(one < other for one, other in edges)
    assert list(edges) == sorted(set(edges))
    assert edges == topology.edges(Topology("regular", degree=degree), names[::-1], "agg", seed)


def test_the_seed_draws_who_is_beside_whom() -> None:
    drawn = {topology.edges(Topology("regular", degree=2), fleet(10), "agg", seed) for seed in range(5)}
    assert len(drawn) == 5


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (Topology("regular", degree=4), "each of 4 nodes can know 1 to 3 others"),
        (Topology("regular", degree=0), "each of 4 nodes can know 1 to 3 others"),
        (Topology("regular", degree=1), "no path leads from agg to "),
        (Topology("pairs", pairs=(("agg", "agg"),)), "agg is paired with itself"),
        (Topology("pairs", pairs=(("agg", "w01"), ("w01", "agg"))), "w01 and agg are paired twice"),
        (Topology("pairs", pairs=(("agg", "x"),)), "there is no node 'x'"),
        (Topology("pairs", pairs=(("agg", "w01"), ("w02", "w03"))), "no path leads from agg to w02, w03"),
        (Topology("pairs"), "no path leads from agg to w01, w02, w03"),
    ],
)
def test_a_topology_that_cannot_be_is_refused(wanted: Topology, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        topology.edges(wanted, NAMES, "agg", 7)


def test_an_odd_degree_of_an_odd_fleet_is_refused() -> None:
    with pytest.raises(UsageError, match="an odd k needs an even number of nodes, these are 5"):
        topology.edges(Topology("regular", degree=3), fleet(5), "agg", 7)
