"""The names of a node's interfaces: where a container engine gave its own, the agent gives them ours.

An engine calls them eth0, eth1, in an order of its own; which one is which is known by its address.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from node.contract import ShoalError
from node.contract.settings import NodeSettings
from node.links.tree import DATA

CTL: Final = "ctl"


class Kernel(Protocol):
    def run(self, argv: Sequence[str], input_text: str = "") -> str: ...

    def set_way(self, subnet: str, address: str, algorithm: str) -> None: ...


@dataclass(frozen=True)
class Rename:
    is_called: str
    name: str


@dataclass(frozen=True)
class Naming:
    """What is to be renamed, and the subnet of `data`; nothing where all are called as they should be."""

    renames: tuple[Rename, ...]
    data_subnet: str | None


def decide(shown: Sequence[Mapping[str, Any]], data_address: str, ctl_address: str) -> Naming:
    """From what `ip -j address show` tells. An address that no interface has is left to who listens on it."""
    wanted = {data_address: DATA, ctl_address: CTL}
    renames, subnet = [], None
    for one in shown:
        if "LOOPBACK" in one.get("flags", ()):
            continue
        for info in one.get("addr_info", ()):
            name = wanted.get(info.get("local"))
            if name is None or name == one["ifname"]:
                continue
            renames.append(Rename(one["ifname"], name))
            if name == DATA:
                subnet = _subnet(info["local"], info["prefixlen"])
    return Naming(tuple(renames), subnet)


def lines(renames: Sequence[Rename]) -> str:
    """For `ip -batch`. Kernels before 6.2 rename only what is down; the subnet's route comes back with it."""
    return "".join(
        f"link set dev {one.is_called} down\nlink set dev {one.is_called} name {one.name}\n"
        f"link set dev {one.name} up\n"
        for one in renames
    )


def second_names(renames: Sequence[Rename]) -> str:
    """For `ip -batch`: by the names that it gave, the engine goes on to find them, as for `docker stats`."""
    return "".join(f"link property add dev {one.name} altname {one.is_called}\n" for one in renames)


def name_interfaces(settings: NodeSettings, kernel: Kernel) -> None:
    """Call them by their planes; packets of `data` have then in common what every driver gives them."""
    shown = json.loads(kernel.run(["ip", "-j", "address", "show"]) or "[]")
    naming = decide(shown, settings.data_address, settings.ctl_address)
    if naming.renames:
        kernel.run(["ip", "-batch", "-"], lines(naming.renames))
        with contextlib.suppress(
            ShoalError
        ):  # before Linux 5.5 there are none, and the engine has no figures
            kernel.run(["ip", "-batch", "-"], second_names(naming.renames))
    if naming.data_subnet is not None:
        kernel.set_way(naming.data_subnet, settings.data_address, settings.congestion_control)


def _subnet(address: str, prefix: int) -> str:
    return str(ipaddress.ip_interface(f"{address}/{prefix}").network)
