"""Doubled packets with netem: filters where packets come in from `data`, before they go to the ifb. Pure.

netem's own `duplicate` bears no other netem on its device. So a filter draws a number for each packet of a
peer, and one that is hit comes in a second time, marked lest it be doubled again. Loss and damage come after.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from ipaddress import IPv4Address
from typing import Final

from node.contract.links import DelayEngine, LinkTable

FILTERS: Final = "protocol ip prio 1"
MARK: Final = 1
CERTAIN: Final = (1 << 32) - 1
# Of the kernel's classic packet filters: operations, and where a packet's own data and those about it begin.
LOAD, IF_EQUAL, IF_AT_LEAST, RETURN = 32, 21, 53, 6
IP_HEADER, OTHER = 0xFFF0_0000, 0xFFFF_F000
SOURCE, MARK_OF, RANDOM = IP_HEADER + 12, OTHER + 20, OTHER + 56
ADDRESS_AT, THRESHOLD_AT = 3, 5  # in the program


def wanted(table: LinkTable, engine: DelayEngine) -> dict[str, int]:
    """By address: below which of 2^32 numbers a packet is doubled."""
    if engine != "netem":
        return {}
    return {
        links.address: min(round(links.into.duplicate * (1 << 32)), CERTAIN)
        for links in table.peers
        if links.into.duplicate
    }


def put(device: str, copies: Mapping[str, int], actual: Mapping[str, int]) -> list[str]:
    """Lines that make it so; nothing where it is."""
    if copies == actual:
        return []
    gone = [f"filter delete dev {device} parent ffff: prio 1"] if actual else []
    return gone + [add(device, address, threshold) for address, threshold in copies.items()]


def add(device: str, address: str, threshold: int) -> str:
    program = _program(address, threshold)
    code = f"{len(program)},{','.join(' '.join(map(str, line)) for line in program)},"
    return (
        f'filter add dev {device} parent ffff: {FILTERS} bpf bytecode "{code}"'
        f" action skbedit mark {MARK} pipe action mirred ingress mirror dev {device} pipe"
        " action skbedit mark 0 continue"
    )


def seen(filters: str) -> dict[str, int]:
    """What the kernel has, as `tc -j filter show … ingress` tells it."""
    copies = {}
    for item in json.loads(filters or "[]"):
        program = item.get("options", {}).get("bytecode", {}).get("insns", [])
        if len(program) > THRESHOLD_AT:
            copies[str(IPv4Address(program[ADDRESS_AT]["k"]))] = int(program[THRESHOLD_AT]["k"])
    return copies


def differences(copies: Mapping[str, int], actual: Mapping[str, int]) -> list[str]:
    """For people."""
    return [
        f"packets of {address} are doubled in a share of {actual.get(address, 0) / (1 << 32):g}"
        f" instead of {copies.get(address, 0) / (1 << 32):g}"
        for address in sorted({*copies, *actual})
        if copies.get(address) != actual.get(address)
    ]


def _program(address: str, threshold: int) -> list[tuple[int, int, int, int]]:
    """Operation, lines to jump over if true, if not, operand; the last line lets a packet be."""
    return [
        (LOAD, 0, 0, MARK_OF),
        (IF_EQUAL, 5, 0, MARK),
        (LOAD, 0, 0, SOURCE),
        (IF_EQUAL, 0, 3, int(IPv4Address(address))),
        (LOAD, 0, 0, RANDOM),
        (IF_AT_LEAST, 1, 0, threshold),
        (RETURN, 0, 0, CERTAIN),
        (RETURN, 0, 0, 0),
    ]
