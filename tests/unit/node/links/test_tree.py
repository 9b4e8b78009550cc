"""Trees: the lines that tc is told, and what it shows compared with them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.contract.links import LinkTable, PeerLinks, Shape, TracePoint
from node.links import tree
from node.links.leaf import (
    FEWEST_PACKETS,
    UNLIMITED_BIT_S,
    UNLIMITED_PACKETS,
    Leaf,
    distributions,
    queue_packets,
)
from node.links.readback import bits, compare, kernel_tree
from node.links.tree import Branch, Tree

FREE = Shape()


def table(*peers: tuple[Shape, Shape], up: int | None = None, down: int | None = None) -> LinkTable:
    return LinkTable(
        node="w01",
        address="10.77.0.1",
        subnet="10.77.0.0/16",
        up_bit_s=up,
        down_bit_s=down,
        peers=tuple(
            PeerLinks(f"w{n:02}", f"10.77.{n // 200}.{n % 200}", out, into)
            for n, (out, into) in enumerate(peers, 2)
        ),
    )


def shown(wanted: Tree) -> dict[str, str]:
    """What tc shows of a tree that was built as asked; written from what a real one shows."""
    qdiscs: list[dict[str, Any]] = [
        {
            "kind": "htb",
            "handle": f"{wanted.handle}:",
            "root": True,
            "options": {"default": hex(wanted.rest)},
            "drops": 0,
        }
    ]
    classes = [_class(wanted, f"root rate {_rate(wanted.line_bit_s)} ceil {_rate(wanted.line_bit_s)}", 1)]
    for branch in wanted.branches:
        handle, parent = f"{branch.leaf_handle:x}:", f"{wanted.handle}:{branch.minor:x}"
        options = _options(branch.leaf)
        qdiscs.append(
            {"kind": branch.leaf.kind, "handle": handle, "parent": parent, "options": options, "drops": 7}
        )
        rates = f"rate {_rate(branch.floor_bit_s)} ceil {_rate(branch.ceil_bit_s)}"
        classes.append(_class(wanted, f"parent {wanted.handle}:1 leaf {handle} prio 0 {rates}", branch.minor))
    filters = [
        {
            "options": {
                "flowid": f"{wanted.handle}:{minor:x}",
                "match": {"value": f"{int.from_bytes(bytes(map(int, address.split('.'))), 'big'):x}"},
            }
        }
        for address, minor in wanted.minors().items()
    ]
    return {"qdiscs": json.dumps(qdiscs), "classes": "\n".join(classes), "filters": json.dumps(filters)}


def _class(wanted: Tree, words: str, minor: int) -> str:
    counters = "Sent 1500 bytes 3 pkt (dropped 2, overlimits 0 requeues 0)"
    return f"class htb {wanted.handle}:{minor:x} {words} burst 1600b cburst 1600b \n {counters} \n"


def _rate(bit_s: int) -> str:
    for unit, size in (("G", 10**9), ("M", 10**6), ("K", 10**3)):
        if bit_s >= size and bit_s % size == 0:
            return f"{bit_s // size}{unit}bit"
    return f"{bit_s}bit"


def _options(leaf: Leaf) -> dict[str, Any]:
    options: dict[str, Any] = {"limit": leaf.limit}
    if leaf.delay_ms:
        options["delay"] = {"delay": leaf.delay_ms / 1000, "jitter": leaf.jitter_ms / 1000}
    if leaf.in_order:
        options["rate"] = {"rate": 12_500_000_000}
    if leaf.is_bursty:
        options["loss-gemodel"] = {"p": leaf.good_to_bad, "r": 1 / leaf.loss_burst}
    elif leaf.loss:
        options["loss-random"] = {"loss": leaf.loss}
    for name in ("reorder", "corrupt"):
        if share := getattr(leaf, name):
            options[name] = {name: share}
    return options


def test_a_class_for_each_peer_below_the_line() -> None:
    wanted = tree.egress(
        table((replace(FREE, rate_bit_s=20_000_000), FREE), (FREE, FREE), up=8_000_000), "hold"
    )
    lines = tree.build(wanted)
    assert lines[0] == "qdisc replace dev data root handle 5ba1: htb default 0 direct_qlen 1000"
    assert "parent 5ba1: classid 5ba1:1 htb rate 8000000bit ceil 8000000bit" in lines[1]
    assert "parent 5ba1:1 classid 5ba1:10 htb rate 4000000bit ceil 20000000bit" in lines[2]
    assert f"classid 5ba1:11 htb rate 4000000bit ceil {UNLIMITED_BIT_S}bit" in lines[4]
    assert all("quantum 1514" in line for line in lines if line.startswith("class"))


def test_an_unlimited_line_leaves_each_link_its_own_rate() -> None:
    wanted = tree.egress(table((replace(FREE, rate_bit_s=5_000_000), FREE), (FREE, FREE)), "hold")
    assert [(b.floor_bit_s, b.ceil_bit_s) for b in wanted.branches] == [
        (5_000_000, 5_000_000),
        (UNLIMITED_BIT_S, UNLIMITED_BIT_S),
    ]


def test_filters_are_hashed_by_the_last_byte() -> None:
    lines = tree.filters(tree.egress(table(*[(FREE, FREE)] * 600), "hold"))
    assert lines[0].endswith("handle 1: protocol ip u32 divisor 256")
    assert "hashkey mask 0x000000ff at 16 link 1:" in lines[-1]
    buckets = [line.split("ht 1:")[1].split(":")[0] for line in lines[1:-1]]
    assert len(buckets) == 600
    assert max(buckets.count(bucket) for bucket in buckets) <= 4
    assert lines[1].endswith("ht 1:2: match ip dst 10.77.0.2/32 flowid 5ba1:10")


def test_changing_does_not_build() -> None:
    lines = tree.changes(tree.egress(table((FREE, FREE), up=1_000_000), "hold"))
    assert {line.split()[0] + " " + line.split()[1] for line in lines} == {"class replace", "qdisc replace"}
    assert not any("root" in line for line in lines)


def test_netem_stands_at_the_sender_for_delay_and_at_the_receiver_for_loss() -> None:
    out = Shape(latency_ms=40, jitter_ms=4, reorder=0.01)
    into = Shape(latency_ms=99, loss=0.02, loss_burst=4, duplicate=0.03, corrupt=0.04)
    links = table((out, into))
    (branch,) = tree.egress(links, "netem").branches
    words = " ".join(branch.leaf.words())
    assert "delay 40.000ms 4.000ms distribution normal rate 100gbit reorder 1.000000%" in words
    assert words.endswith("loss random 0.000000%")
    ingress = tree.ingress(links, "netem")
    assert ingress is not None
    rest, lossy = ingress.branches
    assert (rest.address, ingress.rest) == (None, rest.minor)
    words = " ".join(lossy.leaf.words())
    assert "delay 0.000ms rate 0bit reorder 0.000000%" in words
    assert words.endswith("corrupt 4.000000% loss gemodel 0.510204% 25.000000%")
    assert tree.ingress(links, "hold") is None
    assert tree.egress(links, "hold").branches[0].leaf.kind == "pfifo"


def test_overtaking_is_allowed_where_asked() -> None:
    (branch,) = tree.egress(table((Shape(latency_ms=9, jitter_ms=4, in_order=False), FREE)), "netem").branches
    assert "rate 0bit" in " ".join(branch.leaf.words())


def test_no_packet_overtakes_when_a_latency_falls() -> None:
    (branch,) = tree.egress(table((Shape(latency_ms=9), FREE)), "netem").branches
    assert "rate 100gbit" in " ".join(branch.leaf.words())


def test_a_link_that_a_trace_delays_has_its_netem_from_the_beginning() -> None:
    traced = Shape(trace=(TracePoint(0.0), TracePoint(5.0, latency_ms=80.0)))
    (branch,) = tree.egress(table((traced, FREE)), "netem").branches
    assert branch.leaf.kind == "netem"


def test_what_comes_in_has_a_tree_only_where_it_is_limited() -> None:
    assert tree.ingress(table((FREE, FREE)), "hold") is None
    limited = tree.ingress(table((FREE, FREE), down=3_000_000), "hold")
    assert limited is not None
    assert (limited.key, limited.line_bit_s, [b.address for b in limited.branches]) == (
        "src",
        3_000_000,
        [None],
    )


def test_a_distribution_of_ones_own_is_found_where_tc_starts() -> None:
    links = table(
        (Shape(latency_ms=9, jitter_ms=2, jitter_kind="table", jitter_table=(-1.0, 0.0, 12.0)), FREE)
    )
    (own,) = distributions(links)
    (branch,) = tree.egress(links, "netem").branches
    assert f"distribution ../../../../../../../../proc/self/cwd/{own.name}" in " ".join(branch.leaf.words())
    assert branch.leaf.jitter_ms == 2 * own.stretch > 2  # 16 bits go to four deviations


@given(rate=st.integers(8_000, 10**10), round_trip_ms=st.floats(0, 1000))
def test_a_full_queue_takes_a_tenth_of_a_second_or_a_round_trip(rate: int, round_trip_ms: float) -> None:
    packets = queue_packets(rate, round_trip_ms)
    wait_s = packets * 1514 * 8 / rate
    longest_s = max(0.1, round_trip_ms / 1000)
    assert packets == FEWEST_PACKETS or wait_s <= longest_s + 1514 * 8 / rate
    assert packets == 20_000 or wait_s >= longest_s * 0.999


def test_an_unlimited_queue_is_finite() -> None:
    assert queue_packets(None, 500.0) == UNLIMITED_PACKETS


shapes = st.builds(
    Shape,
    latency_ms=st.floats(0, 900).map(lambda ms: round(ms, 2)),
    jitter_ms=st.sampled_from([0.0, 0.5, 3.0]),
    in_order=st.booleans(),
    loss=st.sampled_from([0.0, 0.01, 0.5, 1.0]),
    loss_burst=st.sampled_from([1.0, 3.0]),
    rate_bit_s=st.none() | st.sampled_from([8_000, 1_234_567, 20_000_000, 10**9]),
    duplicate=st.sampled_from([0.0, 0.1]),
    corrupt=st.sampled_from([0.0, 0.1]),
)


@given(shape=shapes, engine=st.just("netem"))
def test_every_netem_says_all_that_a_change_would_keep(shape: Shape, engine: Any) -> None:
    links = table((shape, shape))
    trees = filter(None, (tree.egress(links, engine), tree.ingress(links, engine)))
    for leaf in (branch.leaf for one in trees for branch in one.branches if branch.leaf.kind == "netem"):
        assert {"limit", "delay", "rate", "reorder", "corrupt", "loss"} <= set(leaf.words())


@given(
    peers=st.lists(st.tuples(shapes, shapes), min_size=1, max_size=4),
    up=st.none() | st.integers(10**5, 10**9),
    down=st.none() | st.integers(10**5, 10**9),
    engine=st.sampled_from(["netem", "hold"]),
)
def test_what_was_built_as_asked_differs_in_nothing(peers: Any, up: Any, down: Any, engine: Any) -> None:
    links = table(*peers, up=up, down=down)
    for wanted in (tree.egress(links, engine), tree.ingress(links, engine)):
        if wanted is not None:
            actual = kernel_tree(**shown(wanted))
            assert compare(wanted, actual) == []
            assert dict(actual.minors) == wanted.minors()
            assert sorted(actual.leaves) == [branch.minor for branch in wanted.branches]


def egress_and_shown() -> tuple[Tree, dict[str, str]]:
    out = Shape(latency_ms=40, jitter_ms=4, rate_bit_s=20_000_000)
    wanted = tree.egress(table((out, FREE), (FREE, FREE)), "netem")
    return wanted, shown(wanted)


@pytest.mark.parametrize(
    ("part", "before", "after", "said"),
    [
        ("classes", "ceil 20Mbit", "ceil 19Mbit", "data, w02: rate 1.9e+07 instead of 2e+07"),
        ("classes", "rate 20Mbit", "rate 2Mbit", "data, w02: share of the line 2e+06 instead of 2e+07"),
        ("qdiscs", '"delay": 0.04', '"delay": 0.05', "data, w02: delay in ms 50 instead of 40"),
        ("qdiscs", '"jitter": 0.004', '"jitter": 0.0', "data, w02: jitter in ms 0 instead of 4"),
        (
            "qdiscs",
            '"rate": {"rate": 12500000000}',
            '"ecn": false',
            "data, w02: in order is False instead of True",
        ),
        ("qdiscs", '"limit": 1000', '"limit": 10', "data, w03: queue 10 instead of 1000"),
        ("filters", "5ba1:11", "5ba1:10", "data: packets of 10.77.0.3 go to class 10 instead of 11"),
        ("filters", "a4d0003", "a4d0009", "data: packets of 10.77.0.3 go to class none instead of 11"),
        (
            "qdiscs",
            '"default": "0x0"',
            '"default": "0x10"',
            "data: unclassified packets go to 10 instead of 0",
        ),
    ],
)
def test_each_difference_is_said(part: str, before: str, after: str, said: str) -> None:
    wanted, texts = egress_and_shown()
    assert before in texts[part]
    actual = kernel_tree(**{**texts, part: texts[part].replace(before, after, 1)})
    assert said in compare(wanted, actual)


def test_no_tree_and_somebody_elses_are_said() -> None:
    wanted, texts = egress_and_shown()
    assert compare(wanted, kernel_tree("[]", "", "")) == ["data: no tree of ours"]
    other = {**texts, "qdiscs": texts["qdiscs"].replace('"5ba1:"', '"1:"', 1)}
    assert compare(wanted, kernel_tree(**other)) == ["data: no tree of ours"]


def test_counters_are_read() -> None:
    _, texts = egress_and_shown()
    actual = kernel_tree(**texts)
    assert (actual.classes[0x10].sent_bytes, actual.classes[0x10].sent_packets) == (1500, 3)
    assert actual.leaves[0x10].dropped_packets == 7


def test_rates_as_tc_shows_them() -> None:
    assert [bits(text) for text in ("800bit", "20496bit", "1234Kbit", "20Mbit", "100Gbit")] == [
        800,
        20_496,
        1_234_000,
        20_000_000,
        UNLIMITED_BIT_S,
    ]
    with pytest.raises(ValueError, match="fast"):
        bits("fast")


def test_a_branch_says_its_leafs_kind_by_its_handle() -> None:
    pfifo = Branch(0x10, "w02", "10.77.0.2", 1, 1, Leaf("pfifo", 20))
    assert pfifo.leaf_handle != replace(pfifo, leaf=Leaf("netem", 20)).leaf_handle
