from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.contract import UsageError
from node.contract.plan import NodePlan
from orchestrator.planning import targets


def worker(number: int, class_name: str | None = None, zone: str | None = None) -> NodePlan:
    address = f"10.77.0.{number + 1}"
    return NodePlan(f"w{number:02}", ("trainer",), zone, class_name, address, address)


AGGREGATOR = NodePlan("agg", ("aggregator",), "core", None, "10.77.0.1", "10.77.4.1")
FLEET = [
    AGGREGATOR,
    *(worker(n, "laptop", "eu") for n in range(1, 5)),
    *(worker(n, "phone", "asia") for n in (5, 6)),
]


def fleet(count: int) -> list[NodePlan]:
    return [AGGREGATOR, *(worker(n) for n in range(1, count + 1))]


def test_names_classes_and_zones() -> None:
    assert targets.resolve("agg", FLEET, 7) == ("agg",)
    assert targets.resolve("phone", FLEET, 7) == ("w05", "w06")
    assert targets.resolve("eu", FLEET, 7) == ("w01", "w02", "w03", "w04")
    assert targets.resolve(["phone", "w01", "w05"], FLEET, 7) == ("w01", "w05", "w06")


@pytest.mark.parametrize(
    ("target", "said", "hint"),
    [
        ("thrid", "no target of this fleet", "perhaps you meant third"),
        ("w07", "no target of this fleet", "perhaps you meant w0"),
        ("core", "no target of this fleet", "known"),  # a zone without workers
        ([], "no target is named", "name at least one"),
    ],
)
def test_an_unknown_target_is_refused(target: str | list[str], said: str, hint: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        targets.resolve(target, FLEET, 7)
    assert hint in caught.value.hint


def test_a_third_of_two_is_refused() -> None:
    with pytest.raises(UsageError, match="third of 2 workers is none"):
        targets.resolve("third", fleet(2), 7)


@given(st.integers(3, 60), st.integers(0, 2**32 - 1))
def test_the_words_mean_what_they_say(count: int, seed: int) -> None:
    found = {word: targets.resolve(word, fleet(count), seed) for word in targets.WORDS}
    assert len(found["one"]) == 1
    assert len(found["third"]) * 3 <= count < (len(found["third"]) + 1) * 3
    assert len(found["minority"]) * 2 < count
    assert (len(found["majority"]) - 1) * 2 <= count < len(found["majority"]) * 2
    assert found["all"] == tuple(node.name for node in fleet(count)[1:])
    for smaller, larger in [("one", "third"), ("third", "minority"), ("minority", "majority")]:
        assert set(found[smaller]) <= set(found[larger])
    assert all(list(names) == sorted(set(names)) for names in found.values())


@given(st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_one_more_worker_reshuffles_none_of_the_others(count: int, seed: int) -> None:
    names = [node.name for node in fleet(count + 1)]
    assert targets.ranked(seed, names[:-1]) == [n for n in targets.ranked(seed, names) if n != names[-1]]


def test_seed_and_purpose_draw_anew() -> None:
    names = [f"w{n:02}" for n in range(20)]
    assert targets.ranked(1, names) == targets.ranked(1, list(reversed(names)))
    assert targets.ranked(1, names) != targets.ranked(2, names)
    assert targets.ranked(1, names) != targets.ranked(1, names, "another")
