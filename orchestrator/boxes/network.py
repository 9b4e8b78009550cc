"""The commands that build bridges, nodes and the cables between them; pure, nothing is run here."""

from __future__ import annotations

import ipaddress
import re
import shlex
import zlib
from collections.abc import Mapping

from node.contract import UsageError

LONGEST_INTERFACE_NAME = 15  # the kernel's IFNAMSIZ, less its final zero

# Before any interface comes up, else the kernel sends router solicitations and holds tentative addresses.
# The file is missing where the kernel has no IPv6, and then there is nothing to switch off.
DISABLE_IPV6 = "f=/proc/sys/net/ipv6/conf/all/disable_ipv6; [ ! -e $f ] || echo 1 > $f"

Command = list[str]


def bridge_commands(name: str) -> list[Command]:
    """A bridge in the box; multicast snooping would lose packets until it has learnt who listens."""
    check_name("bridge", name, LONGEST_INTERFACE_NAME)
    return [
        ["ip", "link", "add", name, "type", "bridge", "mcast_snooping", "0"],
        ["ip", "link", "set", name, "up"],
    ]


def node_commands(name: str, addresses: Mapping[str, str]) -> list[Command]:
    """A network namespace with one interface for each bridge, named after it."""
    check_name("node", name, 63)
    commands = [
        ["ip", "netns", "add", name],
        ["ip", "netns", "exec", name, "sh", "-c", DISABLE_IPV6],
        ["ip", "-netns", name, "link", "set", "lo", "up"],
    ]
    for bridge, address in addresses.items():
        check_address(name, bridge, address)
        plug = plug_name(bridge, name)
        commands += [
            ["ip", "link", "add", plug, "type", "veth", "peer", "name", bridge, "netns", name],
            ["ip", "link", "set", plug, "master", bridge, "up"],
            ["ip", "-netns", name, "address", "add", address, "dev", bridge],
            ["ip", "-netns", name, "link", "set", bridge, "up"],
        ]
    return commands


def script(commands: list[Command]) -> str:
    """One shell script of them all: entering the box once costs less than once for each."""
    return "set -ex\n" + "".join(shlex.join(command) + "\n" for command in commands)


def plug_name(bridge: str, node: str) -> str:
    """The cable's end at the bridge; the kernel allows 15 characters."""
    name = f"{bridge}-{node}"
    return name if len(name) <= LONGEST_INTERFACE_NAME else f"{bridge[:6]}-{zlib.crc32(name.encode()):08x}"


def check_name(kind: str, name: str, longest: int) -> None:
    """Names become file names and interface names."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", name) or len(name) > longest:
        raise UsageError(
            f"{name!r} cannot be the name of a {kind}.",
            f"use small letters, digits and hyphens, beginning with a letter or digit, at most {longest}",
        )


def check_address(node: str, bridge: str, address: str) -> None:
    """An address says its prefix: without one the kernel would take /32, and nobody would be a neighbour."""
    try:
        interface = ipaddress.IPv4Interface(address)
    except ValueError as error:
        raise UsageError(
            f"Node {node}, {bridge}: {address!r} is no address.", "write it as 10.77.0.1/24"
        ) from error
    if interface.network.prefixlen > 30 or not interface.is_private:
        raise UsageError(
            f"Node {node}, {bridge}: {address} is not of a private network.", "write it as 10.77.0.1/24"
        )
