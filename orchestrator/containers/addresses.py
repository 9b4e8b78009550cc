"""A plan's addresses where its subnets are taken: the same places in subnets that are free. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Final

from node.contract import HostError
from node.contract.plan import Plan

ROUTES: Final = Path("/proc/net/route")
# Asked in this order: the plan's own neighbourhood first, since people know it, then other private ranges.
RANGES: Final = (IPv4Network("10.64.0.0/10"), IPv4Network("10.128.0.0/9"), IPv4Network("172.16.0.0/12"))


def readdress(plan: Plan, data: IPv4Network, ctl: IPv4Network) -> Plan:
    """The plan in these subnets; every node keeps its place in them."""
    network = plan.network
    nodes = tuple(
        replace(
            node,
            data_address=_moved(node.data_address, IPv4Network(network.data_subnet), data),
            ctl_address=_moved(node.ctl_address, IPv4Network(network.ctl_subnet), ctl),
        )
        for node in plan.nodes
    )
    return replace(plan, nodes=nodes, network=replace(network, data_subnet=str(data), ctl_subnet=str(ctl)))


def placed(plan: Plan, taken: Collection[IPv4Network]) -> Plan:
    """The plan itself where nothing is in its way, else in the first free subnets of the same size."""
    wanted = [IPv4Network(plan.network.data_subnet), IPv4Network(plan.network.ctl_subnet)]
    if not any(one.overlaps(other) for one in wanted for other in taken):
        return plan
    free = list(itertools.islice(_free(wanted[0].prefixlen, taken), len(wanted)))
    if len(free) < len(wanted):
        raise HostError(
            f"no private subnet of size /{wanted[0].prefixlen} is free on this host",
            "remove networks that nobody uses: docker network prune",
        )
    return readdress(plan, *free)


def routes(text: str) -> list[IPv4Network]:
    """Where the host knows the way to, but by default, from the text of /proc/net/route."""
    found = []
    for line in text.splitlines()[1:]:
        fields = line.split()
        address, mask = (int.from_bytes(bytes.fromhex(fields[n]), "little") for n in (1, 7))
        if mask:
            found.append(IPv4Network((address, mask.bit_count())))
    return found


def reserved(subnet: IPv4Network) -> tuple[IPv4Address, IPv4Address, IPv4Address]:
    """Addresses that no node has: the gate's (on `data` the trunks'), the bridge's, Prometheus'."""
    return subnet[-2], subnet[-3], subnet[-4]


def _free(prefix: int, taken: Collection[IPv4Network]) -> Iterator[IPv4Network]:
    for space in RANGES:
        for subnet in space.subnets(new_prefix=prefix):
            if not any(subnet.overlaps(other) for other in taken):
                yield subnet


def _moved(address: str, old: IPv4Network, new: IPv4Network) -> str:
    return str(new[int(IPv4Address(address)) - int(old.network_address)])
