"""Cutting a training set into shards: pure, and a node's choices come from (seed, its name) alone.

Nodes take turns, in order of name, and each takes the example it likes best among those that are left, of a
label that its mix draws. So shards are disjoint and of one size, and one more node takes examples from the
others but does not reshuffle them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from node.contract import UsageError
from node.contract.plan import PartitionPlan

Indices = npt.NDArray[np.int64]
Mix = npt.NDArray[np.float64]  # how likely each label is


def generator_for(seed: int, *words: str) -> np.random.Generator:
    """Random numbers that depend on the run's seed and these words, and on nothing else."""
    digest = hashlib.sha256("\0".join([str(seed), *words]).encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "big")))


def partition(
    plan: PartitionPlan, labels: Indices, classes: int, nodes: Sequence[str], seed: int
) -> dict[str, Indices]:
    """The examples of each node, as places in the training set, in rising order."""
    nodes = sorted(nodes)
    if not nodes:
        return {}
    quota = plan.examples_per_node or -(-len(labels) // len(nodes))
    if plan.examples_per_node and quota * len(nodes) > len(labels):
        raise UsageError(
            f"{len(nodes)} nodes need {quota} examples each, but there are only {len(labels)}",
            "lower workload.partition.examples_per_node, or leave it out to deal out all there are",
        )
    if plan.kind == "iid":
        pools, mixes = np.zeros_like(labels), dict.fromkeys(nodes, np.ones(1))
    elif plan.kind == "dirichlet":
        pools, mixes = labels, _dirichlet(plan.alpha, classes, nodes, seed)
    else:
        pools, mixes = labels, _by_label(plan.labels_per_node, classes, nodes, seed)
    drafted = _draft(pools, mixes, quota, seed)
    if empty := [node for node, shard in drafted.items() if not len(shard)]:
        raise UsageError(
            f"{empty[0]} gets no example: {len(labels)} are too few for {len(nodes)} nodes cut this way",
            "have fewer nodes, a larger data set, or more labels_per_node",
        )
    return drafted


def _dirichlet(alpha: float | None, classes: int, nodes: Sequence[str], seed: int) -> dict[str, Mix]:
    if alpha is None or alpha <= 0:
        raise UsageError("workload.partition.alpha must be given, and above 0, for kind dirichlet")
    # The floor is for labels that a small alpha gives nothing: taken when the node's own are used up.
    return {
        node: np.maximum(generator_for(seed, node, "mix").dirichlet(np.full(classes, alpha)), 1e-12)
        for node in nodes
    }


def _by_label(count: int | None, classes: int, nodes: Sequence[str], seed: int) -> dict[str, Mix]:
    """Each node takes the labels that fewest have so far, and among those the ones it likes best."""
    if count is None or not 1 <= count <= classes:
        raise UsageError(
            f"workload.partition.labels_per_node must be given, from 1 to {classes}, for kind label"
        )
    owners = np.zeros(classes, np.int64)
    mixes = {}
    for node in nodes:
        liking = generator_for(seed, node, "labels").permutation(classes)
        chosen = np.lexsort((liking, owners))[:count]
        owners[chosen] += 1
        mixes[node] = np.bincount(chosen, minlength=classes) / count
    return mixes


def _draft(pools: Indices, mixes: dict[str, Mix], quota: int, seed: int) -> dict[str, Indices]:
    free = np.bincount(pools, minlength=len(next(iter(mixes.values()))))
    taken = np.zeros(len(pools), bool)
    shards: dict[str, list[int]] = {node: [] for node in mixes}
    wishes = {node: _wishes(pools, len(free), generator_for(seed, node, "wishes")) for node in mixes}
    draws = {node: generator_for(seed, node, "draws").random(quota) for node in mixes}
    for turn in range(quota):
        for node, mix in mixes.items():
            reach = np.cumsum(np.where(free > 0, mix, 0.0))
            if reach[-1] <= 0:
                continue  # nothing is left of its labels
            pool = int(np.searchsorted(reach, draws[node][turn] * reach[-1], side="right"))
            pool = min(pool, int(np.flatnonzero(np.diff(reach, prepend=0.0))[-1]))
            best = next(example for example in wishes[node][pool] if not taken[example])
            taken[best] = True
            free[pool] -= 1
            shards[node].append(best)
    return {node: np.sort(np.array(shard, np.int64)) for node, shard in shards.items()}


def _wishes(pools: Indices, count: int, generator: np.random.Generator) -> list[Iterator[int]]:
    """For each pool its examples in the order in which a node would like to have them."""
    order = generator.permutation(len(pools))
    return [iter(order[pools[order] == pool].tolist()) for pool in range(count)]
