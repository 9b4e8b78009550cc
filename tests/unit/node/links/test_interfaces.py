"""Which interface is called what, by the addresses that an engine gave."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from node.contract import HostError
from node.links.interfaces import Rename, decide, lines, name_interfaces
from tests.settings import node_settings

LO = {
    "ifname": "lo",
    "flags": ["LOOPBACK", "UP"],
    "addr_info": [{"local": "127.0.0.1", "prefixlen": 8}],
}


def interface(name: str, address: str) -> dict[str, Any]:
    return {
        "ifname": name,
        "flags": ["BROADCAST", "UP"],
        "addr_info": [{"local": address, "prefixlen": 22}],
    }


def test_each_is_known_by_its_address_whatever_the_order() -> None:
    shown = [LO, interface("eth0", "10.77.4.3"), interface("eth1", "10.77.0.3")]
    naming = decide(shown, "10.77.0.3", "10.77.4.3")
    assert naming.renames == (Rename("eth0", "ctl"), Rename("eth1", "data"))
    assert naming.data_subnet == "10.77.0.0/22"
    assert "link set dev eth1 down\nlink set dev eth1 name data\nlink set dev data up\n" in lines(
        naming.renames
    )


def test_where_all_have_their_names_nothing_is_done() -> None:
    shown = [LO, interface("data", "10.77.0.3"), interface("ctl", "10.77.4.3")]
    assert decide(shown, "10.77.0.3", "10.77.4.3").renames == ()


def test_loopback_and_strangers_keep_their_names() -> None:
    shown = [LO, interface("eth0", "192.0.2.1")]
    assert decide(shown, "127.0.0.1", "127.0.0.1").renames == ()


class FakeKernel:
    def __init__(self, shown: list[dict[str, Any]], has_second_names: bool = True) -> None:
        self._shown, self._has_second_names = shown, has_second_names
        self.did: list[tuple[str, ...]] = []

    def run(self, argv: Sequence[str], input_text: str = "") -> str:
        if list(argv) == ["ip", "-j", "address", "show"]:
            return json.dumps(self._shown)
        assert list(argv) == ["ip", "-batch", "-"]
        if "altname" in input_text and not self._has_second_names:
            raise HostError("RTNETLINK answers: Operation not supported")
        self.did.append(("batch", input_text))
        return ""

    def set_way(self, subnet: str, address: str, algorithm: str) -> None:
        self.did.append(("way", subnet, address, algorithm))


def test_a_renamed_data_has_what_all_its_packets_share_in_common() -> None:
    told: dict[str, Any] = {
        "data_address": "10.77.0.3",
        "ctl_address": "10.77.4.3",
        "congestion_control": "reno",
    }
    settings = node_settings("w02", **told)
    shown = [LO, interface("eth0", "10.77.0.3"), interface("eth1", "10.77.4.3")]
    kernel = FakeKernel(shown)
    name_interfaces(settings, kernel)
    second = "link property add dev data altname eth0\nlink property add dev ctl altname eth1\n"
    way = ("way", "10.77.0.0/22", "10.77.0.3", "reno")
    assert kernel.did[1:] == [("batch", second), way]
    old = FakeKernel(shown, has_second_names=False)
    name_interfaces(settings, old)
    assert old.did == [kernel.did[0], way]
