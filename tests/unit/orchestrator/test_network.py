from __future__ import annotations

import shlex
from string import ascii_lowercase, digits

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.contract import UsageError
from orchestrator.boxes import network

FIRST = ascii_lowercase + digits
NAMES = st.builds(str.__add__, st.sampled_from(FIRST), st.text(FIRST + "-", max_size=14))


def test_a_node_is_plugged_into_each_bridge_under_the_bridges_name() -> None:
    commands = [
        shlex.join(c) for c in network.node_commands("w1", {"data": "10.77.0.1/24", "ctl": "10.78.0.1/24"})
    ]
    assert commands[0] == "ip netns add w1"
    assert "ip link add data-w1 type veth peer name data netns w1" in commands
    assert "ip link set data-w1 master data up" in commands
    assert "ip -netns w1 address add 10.78.0.1/24 dev ctl" in commands


def test_ipv6_is_off_before_any_interface_is_up() -> None:
    commands = network.node_commands("w1", {"data": "10.77.0.1/24"})
    off = next(i for i, c in enumerate(commands) if network.DISABLE_IPV6 in c)
    assert off < min(i for i, c in enumerate(commands) if c[-1] == "up")


@pytest.mark.parametrize("name", ["", "-w", "W1", "w 1", "w/1", "w" * 64, "../w", "w1\n"])
def test_a_bad_node_name_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="cannot be the name of a node"):
        network.node_commands(name, {})


def test_a_bridge_name_fits_the_kernel() -> None:
    network.bridge_commands("b" * 15)
    with pytest.raises(UsageError, match="cannot be the name of a bridge"):
        network.bridge_commands("b" * 16)


@pytest.mark.parametrize(
    "address", ["10.77.0.1", "10.77.0.1/31", "8.8.8.8/24", "fe80::1/64", "10.77.0.256/24", ""]
)
def test_a_bad_address_is_refused_by_node_and_bridge(address: str) -> None:
    with pytest.raises(UsageError, match="Node w1, data"):
        network.node_commands("w1", {"data": address})


@given(NAMES, st.lists(NAMES, unique=True, min_size=2, max_size=40))
def test_plugs_fit_the_kernel_and_differ(bridge: str, nodes: list[str]) -> None:
    plugs = {network.plug_name(bridge, node) for node in nodes}
    assert len(plugs) == len(nodes)
    assert all(len(plug) <= network.LONGEST_INTERFACE_NAME for plug in plugs)


def test_a_script_stops_at_the_first_failure_and_shows_it() -> None:
    assert network.script([["ip", "a b"]]) == "set -ex\nip 'a b'\n"
