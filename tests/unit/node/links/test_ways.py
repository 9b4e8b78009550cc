"""Ways to single peers: what `ip` is told of them, and how what it shows is read."""

from __future__ import annotations

import pytest

from node.contract.links import LinkTable, PeerLinks, Shape
from node.links.ways import Way, differences, put, remove, seen, wanted

# `ip -j route show dev data`, of iproute2 6.1.
SUBNET = '{"dst":"10.77.0.0/22","scope":"link","prefsrc":"10.77.0.1","flags":[],"metrics":[{"congestion":"cubic"}]}'
VIA = (
    '{"dst":"10.77.0.6","gateway":"10.77.3.254","prefsrc":"10.77.0.1","flags":[],'
    '"metrics":[{"congestion":"cubic"}]}'
)
DEFAULT = '{"dst":"default","gateway":"10.77.3.253","flags":[]}'
ASKED = {"10.77.0.6": Way("10.77.3.254", "cubic")}


def table() -> LinkTable:
    peers = (
        PeerLinks("w01", "10.77.0.2", Shape(), Shape()),
        PeerLinks("w05", "10.77.0.6", Shape(), Shape(), via="10.77.3.254"),
    )
    return LinkTable("agg", "10.77.0.1", "10.77.0.0/22", None, None, peers)


def test_only_whoever_is_behind_something_has_a_way_of_its_own() -> None:
    assert wanted(table()) == ASKED


def test_what_ip_is_told() -> None:
    assert put("data", "10.77.0.1", ASKED) == [
        "route replace 10.77.0.6 via 10.77.3.254 dev data src 10.77.0.1 congctl lock cubic"
    ]
    assert remove("data", ASKED, {**ASKED, "10.77.0.7": Way(None, None)}) == [
        "route delete 10.77.0.7 dev data"
    ]


@pytest.mark.parametrize("shown", ["", "[]\n", f"[{SUBNET},{DEFAULT}]"])
def test_subnets_and_the_way_to_all_others_are_of_nobody_alone(shown: str) -> None:
    assert seen(shown) == {}


def test_what_ip_shows_is_as_asked() -> None:
    assert differences(table(), seen(f"[{SUBNET},{VIA}]")) == []


@pytest.mark.parametrize(
    ("shown", "said"),
    [
        ("[]", "packets to w05 go as to all others instead of via 10.77.3.254, by cubic"),
        (
            f"[{VIA.replace('3.254', '3.9')}]",
            "packets to w05 go via 10.77.3.9, by cubic instead of via 10.77.3.254",
        ),
        (f"[{VIA.replace('cubic', 'reno')}]", "packets to w05 go via 10.77.3.254, by reno instead of via"),
        (
            f"[{VIA},{VIA.replace('0.6', '0.2')}]",
            "packets to w01 go via 10.77.3.254, by cubic instead of as to all",
        ),
        (
            '[{"dst":"10.77.0.6","scope":"link"}]',
            "packets to w05 go directly, by None instead of via 10.77.3.254",
        ),
    ],
)
def test_each_way_that_is_another_is_said(shown: str, said: str) -> None:
    (found,) = differences(table(), seen(shown))
    assert found.startswith(said)
