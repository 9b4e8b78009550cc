"""The laws of cutting: disjoint, complete, of one size, by seed and name."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.contract import UsageError
from node.contract.plan import PartitionPlan
from node.data.partition import generator_for, partition

CLASSES = 5
LABELS = np.arange(400, dtype=np.int64) % CLASSES
IID = PartitionPlan("iid")
KNOWN = {"w01": [0, 1, 3, 5, 8, 11, 13, 15, 17, 18], "w02": [2, 4, 6, 7, 9, 10, 12, 14, 16, 19]}


def names(count: int) -> list[str]:
    return [f"w{number:02d}" for number in range(1, count + 1)]


plans = st.one_of(
    st.just(IID),
    st.just(PartitionPlan("iid", examples_per_node=30)),
    st.floats(0.01, 100).map(lambda alpha: PartitionPlan("dirichlet", alpha=alpha)),
    st.floats(0.01, 100).map(lambda alpha: PartitionPlan("dirichlet", alpha=alpha, examples_per_node=30)),
    st.integers(1, CLASSES).map(lambda count: PartitionPlan("label", labels_per_node=count)),
)


@settings(max_examples=40)
@given(plans, st.integers(1, 12), st.integers(0, 1 << 40))
def test_shards_are_disjoint_and_of_the_size_that_was_asked_for(
    plan: PartitionPlan, count: int, seed: int
) -> None:
    shards = partition(plan, LABELS, CLASSES, names(count), seed)
    assert list(shards) == names(count)
    together = np.concatenate(list(shards.values()))
    assert len(np.unique(together)) == len(together)
    sizes = [len(shard) for shard in shards.values()]
    if plan.examples_per_node:
        assert set(sizes) == {plan.examples_per_node}
    elif plan.kind != "label":
        assert sum(sizes) == len(LABELS)
        assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(
    "plan", [IID, PartitionPlan("dirichlet", alpha=0.5), PartitionPlan("label", labels_per_node=2)]
)
def test_the_seed_decides(plan: PartitionPlan) -> None:
    def cut(seed: int) -> list[list[int]]:
        return [shard.tolist() for shard in partition(plan, LABELS, CLASSES, names(4), seed).values()]

    assert cut(1) == cut(1)
    assert cut(1) != cut(2)


def test_known_cut() -> None:
    # Changes to the way of cutting change the results of every scenario: they must be meant.
    shards = partition(PartitionPlan("dirichlet", alpha=0.5), LABELS[:20], CLASSES, names(2), 7)
    assert {name: shard.tolist() for name, shard in shards.items()} == KNOWN


def test_a_nodes_numbers_do_not_depend_on_others() -> None:
    plan = PartitionPlan("dirichlet", alpha=0.5, examples_per_node=20)
    few, more = (partition(plan, LABELS, CLASSES, names(count), 3) for count in (4, 5))
    kept = [len(np.intersect1d(few[name], more[name])) for name in few]
    assert min(kept) >= 15  # of 20; reshuffled ones would share one or two
    assert generator_for(3, "w01", "x").integers(1 << 60) == generator_for(3, "w01", "x").integers(1 << 60)
    assert generator_for(3, "w01", "x").integers(1 << 60) != generator_for(3, "w0", "1x").integers(1 << 60)


def spread(alpha: float) -> float:
    """The mean share of a node's commonest label."""
    plan = PartitionPlan("dirichlet", alpha=alpha, examples_per_node=30)
    shards = partition(plan, LABELS, CLASSES, names(8), 5).values()
    return float(np.mean([np.bincount(LABELS[shard]).max() / len(shard) for shard in shards]))


def test_a_smaller_alpha_skews_more() -> None:
    assert spread(0.1) > spread(1.0) > spread(100.0)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_by_label_gives_each_node_so_many_labels_and_every_label_an_owner(count: int) -> None:
    shards = partition(PartitionPlan("label", labels_per_node=count), LABELS, CLASSES, names(5), 5)
    assert [len(np.unique(LABELS[shard])) for shard in shards.values()] == [count] * 5
    # Shards are of one size at most, so some examples of a label may be left over.
    assert sum(len(shard) for shard in shards.values()) >= 0.9 * len(LABELS)


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        (PartitionPlan("iid", examples_per_node=500), "only 400"),
        (PartitionPlan("dirichlet"), "alpha"),
        (PartitionPlan("label", labels_per_node=9), "labels_per_node"),
    ],
)
def test_what_cannot_be_cut_is_refused(plan: PartitionPlan, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        partition(plan, LABELS, CLASSES, names(2), 1)


def test_a_node_without_examples_is_refused() -> None:
    with pytest.raises(UsageError, match="w03 gets no example"):
        partition(IID, LABELS[:2], CLASSES, names(3), 1)
