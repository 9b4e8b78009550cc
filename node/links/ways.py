"""Peers that a node does not send to as to the rest of the subnet, as routes of the kernel. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from node.contract.links import LinkTable


@dataclass(frozen=True)
class Way:
    """To one peer."""

    via: str | None
    congestion_control: str | None

    def __str__(self) -> str:
        return f"{f'via {self.via}' if self.via else 'directly'}, by {self.congestion_control}"


def wanted(table: LinkTable) -> dict[str, Way]:
    """By address: those peers alone that something stands before."""
    return {
        links.address: Way(links.via, table.congestion_control)
        for links in table.peers
        if links.via is not None
    }


def put(device: str, source: str, asked: Mapping[str, Way]) -> list[str]:
    """Lines for `ip -batch`; there they may be already."""
    about = f"dev {device} src {source} congctl lock"
    return [
        f"route replace {address} via {way.via} {about} {way.congestion_control}"
        for address, way in asked.items()
    ]


def remove(device: str, asked: Mapping[str, Way], actual: Mapping[str, Way]) -> list[str]:
    """Lines for `ip -batch`, for what is not asked any more."""
    return [f"route delete {address} dev {device}" for address in actual if address not in asked]


def seen(shown: str) -> dict[str, Way]:
    """From `ip -j route show dev …`; a subnet has a slash, and the way to all others a name."""
    ways = {}
    for route in json.loads(shown.strip() or "[]"):
        if "/" not in route["dst"] and route["dst"] != "default":
            metrics = {key: value for one in route.get("metrics", ()) for key, value in one.items()}
            ways[route["dst"]] = Way(route.get("gateway"), metrics.get("congestion"))
    return ways


def differences(table: LinkTable, actual: Mapping[str, Way]) -> list[str]:
    """Each peer that is sent to in another way than was asked; for people."""
    asked = wanted(table)
    names = {links.address: links.peer for links in table.peers}
    return [
        f"packets to {names.get(address, address)} go {_said(actual.get(address))}"
        f" instead of {_said(asked.get(address))}"
        for address in sorted({*asked, *actual})
        if actual.get(address) != asked.get(address)
    ]


def _said(way: Way | None) -> str:
    return str(way) if way is not None else "as to all others"
