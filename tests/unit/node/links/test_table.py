from __future__ import annotations

import dataclasses

import pytest

from node.contract.links import Shape, TracePoint
from node.contract.plan import (
    AggregationPlan,
    LinkPlan,
    NetworkPlan,
    NodePlan,
    PartitionPlan,
    Plan,
    TracePlan,
    TrunkPlan,
    WorkloadPlan,
)
from node.links.table import shape, tables

POINTS = (TracePoint(0.0, rate_bit_s=1_000_000), TracePoint(5.0, rate_bit_s=2_000_000))


def link(from_: str, to: str, latency_ms: float = 0.0, trace: str | None = None) -> LinkPlan:
    return LinkPlan(from_, to, latency_ms, 0.0, 0.0, None, trace=trace)


@pytest.fixture
def plan() -> Plan:
    return Plan(
        version=2,
        scenario="three",
        summary="",
        seed=1,
        nodes=(
            NodePlan("agg", ("aggregator",), None, None, "10.77.0.2", "10.77.4.2"),
            NodePlan("w01", ("trainer",), None, None, "10.77.0.3", "10.77.4.3", up_bit_s=5, down_bit_s=6),
            NodePlan("w02", ("trainer",), None, None, "10.77.0.4", "10.77.4.4"),
        ),
        network=NetworkPlan(
            "10.77.0.0/22",
            "10.77.4.0/22",
            "prompt",
            edges=(("agg", "w01"), ("agg", "w02")),
            congestion_control="reno",
            trunks=(TrunkPlan("eu-asia", "eu", "asia", 1),),
            traces={"car": TracePlan("car.csv", "00", False, POINTS)},
        ),
        workload=WorkloadPlan("digits", "cnn", PartitionPlan("iid"), 1, 1, 1, 0.1),
        aggregation=AggregationPlan("mean", "sync", 1.0, 60.0, {}),
        checks=(),
        links=(
            link("agg", "w01", 10.0),
            link("agg", "w02", 30.0),
            link("w01", "agg", 20.0, trace="car"),
            link("w02", "agg", 40.0),
        ),
    )


def test_each_node_is_told_its_line_and_both_directions_to_those_it_talks_with(plan: Plan) -> None:
    told = tables(plan)
    assert list(told) == ["agg", "w01", "w02"]
    agg, w01 = told["agg"], told["w01"]
    assert [(peer.peer, peer.address) for peer in agg.peers] == [("w01", "10.77.0.3"), ("w02", "10.77.0.4")]
    assert [(peer.out.latency_ms, peer.into.latency_ms) for peer in agg.peers] == [(10.0, 20.0), (30.0, 40.0)]
    assert [(peer.peer, peer.out.latency_ms, peer.into.latency_ms) for peer in w01.peers] == [
        ("agg", 20.0, 10.0)
    ]
    assert (w01.node, w01.address, w01.subnet) == ("w01", "10.77.0.3", "10.77.0.0/22")
    assert (w01.up_bit_s, w01.down_bit_s, w01.congestion_control) == (5, 6, "reno")
    assert (agg.up_bit_s, agg.down_bit_s) == (None, None)
    assert {table.seed for table in told.values()} == {1}


def test_both_ends_of_a_link_are_told_the_same(plan: Plan) -> None:
    told = tables(plan)
    out = {(n, peer.peer): peer.out for n, table in told.items() for peer in table.peers}
    into = {(peer.peer, n): peer.into for n, table in told.items() for peer in table.peers}
    assert out == into


def test_what_goes_through_a_trunk_is_sent_there_first_where_it_does_not_get_there_by_itself(
    plan: Plan,
) -> None:
    links = tuple(
        dataclasses.replace(one, trunk="eu-asia" if one.to == "w02" else None) for one in plan.links
    )
    trunked = dataclasses.replace(plan, links=links)
    via = {
        trunks: {
            (n, peer.peer): peer.via for n, table in tables(trunked, trunks).items() for peer in table.peers
        }
        for trunks in (None, "10.77.3.254")
    }
    assert set(via[None].values()) == {None}
    assert {pair for pair, at in via["10.77.3.254"].items() if at == "10.77.3.254"} == {("agg", "w02")}


def test_both_ends_know_how_long_packets_may_wait_for_a_trunk(plan: Plan) -> None:
    links = tuple(
        dataclasses.replace(one, trunk="eu-asia" if one.to == "w02" else None) for one in plan.links
    )
    shared = dataclasses.replace(plan.network, trunks=(TrunkPlan("eu-asia", "eu", "asia", 12_112_000),))
    told = tables(dataclasses.replace(plan, links=links, network=shared))
    # 1000 packets in a second: a tenth of them is the queue.
    found = {(n, peer.peer): peer.shared_queues_ms for n, table in told.items() for peer in table.peers}
    assert found == {("agg", "w01"): 0, ("w01", "agg"): 0, ("agg", "w02"): 100, ("w02", "agg"): 100}


def test_a_trace_becomes_its_points(plan: Plan) -> None:
    (to_agg,) = tables(plan)["w01"].peers
    assert (to_agg.out.trace, to_agg.out.trace_repeats) == (POINTS, False)
    assert (to_agg.into.trace, to_agg.into.trace_repeats) == ((), True)


def test_a_shape_loses_nothing_that_the_plan_says() -> None:
    said = LinkPlan("a", "b", 1, 2, 0.3, 4, 5, "table", (6.0, 7.0), False, 0.8, 0.09, 0.1, "4g", None, None)
    expected = Shape(1, 2, "table", (6.0, 7.0), False, 0.3, 5, 4, 0.8, 0.09, 0.1)
    assert shape(said, {}) == expected
    names = {field.name for field in dataclasses.fields(Shape)}
    assert {field.name for field in dataclasses.fields(LinkPlan)} - names == {
        *("from_", "to"),
        *("profile", "trunk"),
    }


def test_a_node_that_talks_with_nobody_has_no_peers(plan: Plan) -> None:
    alone = dataclasses.replace(plan, links=())
    assert [table.peers for table in tables(alone).values()] == [(), (), ()]
