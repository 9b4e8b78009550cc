"""A plan in other subnets: every node keeps its place, and nothing else changes."""

from __future__ import annotations

import dataclasses
from ipaddress import IPv4Address, IPv4Network

import pytest

from node.contract import HostError
from node.contract.plan import Plan
from node.contract.schema import to_json
from orchestrator.containers.addresses import placed, readdress, reserved
from orchestrator.planning import listing
from orchestrator.planning.plan import make_plan

DATA, CTL = IPv4Network("10.80.0.0/22"), IPv4Network("10.80.4.0/22")


def plan_of() -> Plan:
    return make_plan(listing.load("partition"))


def test_a_plan_with_nothing_in_its_way_stays_as_it_is() -> None:
    plan = plan_of()
    assert placed(plan, [IPv4Network("172.17.0.0/16"), IPv4Network("10.76.0.0/16")]) is plan


def test_every_node_keeps_its_place() -> None:
    plan = plan_of()
    moved = readdress(plan, DATA, CTL)
    old, new = IPv4Network(plan.network.data_subnet), DATA
    for before, after in zip(plan.nodes, moved.nodes, strict=True):
        offset = int(IPv4Address(before.data_address)) - int(old.network_address)
        assert after.data_address == str(new[offset])
        assert IPv4Address(after.ctl_address) in CTL
        same = dataclasses.replace(after, data_address=before.data_address, ctl_address=before.ctl_address)
        assert same == before
    network = dataclasses.replace(
        moved.network, data_subnet=plan.network.data_subnet, ctl_subnet=plan.network.ctl_subnet
    )
    assert to_json(dataclasses.replace(moved, nodes=plan.nodes, network=network)) == to_json(plan)


@pytest.mark.parametrize("taken", ["10.77.4.0/24", "10.77.0.0/22", "10.64.0.0/12"])
def test_a_taken_subnet_is_avoided_and_so_is_the_next(taken: str) -> None:
    others = [IPv4Network(taken), IPv4Network("10.64.0.0/22")]
    network = placed(plan_of(), others).network
    subnets = [IPv4Network(network.data_subnet), IPv4Network(network.ctl_subnet)]
    assert not subnets[0].overlaps(subnets[1])
    assert not any(one.overlaps(other) for one in subnets for other in others)
    assert all(one.is_private and one.prefixlen == 22 for one in subnets)


def test_where_nothing_is_free_the_host_is_to_blame() -> None:
    with pytest.raises(HostError, match="no private subnet of size /22 is free"):
        placed(plan_of(), [IPv4Network("10.0.0.0/8"), IPv4Network("172.16.0.0/12")])


def test_what_is_reserved_lies_at_the_end_where_no_plan_puts_a_node() -> None:
    gate, bridge, prometheus = reserved(CTL)
    assert len({gate, bridge, prometheus}) == 3
    assert all(CTL[-5] < one < CTL.broadcast_address for one in (gate, bridge, prometheus))
