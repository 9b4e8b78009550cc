"""A node's links as queueing disciplines: what `tc -batch` is told. Pure.

    data: htb 5ba1: ── 5ba1:1, the node's own line (up) ── one class for each peer: the link's rate
                                                             └─ a short pfifo, or netem: delay and jitter
    data: ingress ── all IP to ifb-data: htb 5ba2: ── 5ba2:1, the line (down) ── one class for all, and with
                                                             netem one for each peer: loss and damage

A class' `ceil` is the link's rate; its `rate` is a fair share of the line, since HTB never holds a class
below its `rate`, whatever the parent has left. The tree is built once and then only changed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final

from node.contract.links import DelayEngine, LinkTable
from node.links.leaf import (
    FRAME_BYTES,
    UNLIMITED_BIT_S,
    UNLIMITED_PACKETS,
    Leaf,
    queue_packets,
    receiver_leaf,
    round_trip_ms,
    sender_leaf,
    spoils,
)

DATA: Final = "data"
IFB: Final = "ifb-data"
OUT_HANDLE: Final = "5ba1"
IN_HANDLE: Final = "5ba2"
LINE_MINOR: Final = 1
REST_MINOR: Final = 2  # on the ifb: whoever has no class of its own
FIRST_MINOR: Final = 0x10
PFIFO_HANDLES: Final = 0x1000  # a leaf's handle says its kind: tc cannot change one kind into another
NETEM_HANDLES: Final = 0x4000

UNLIMITED_BURST_BYTES: Final = 1 << 20
BURST_S: Final = 0.001
QUANTUM_BYTES: Final = 1514  # the same for all peers: the line is shared fairly


@dataclass(frozen=True)
class Branch:
    """A class below the line, and its queue. No address: whatever has no class of its own."""

    minor: int
    peer: str | None
    address: str | None
    floor_bit_s: int
    ceil_bit_s: int
    leaf: Leaf

    @property
    def leaf_handle(self) -> int:
        return self.minor + (PFIFO_HANDLES if self.leaf.kind == "pfifo" else NETEM_HANDLES)


@dataclass(frozen=True)
class Tree:
    device: str
    handle: str
    key: str  # of the packet, by which its class is found: dst, src
    line_bit_s: int
    branches: tuple[Branch, ...]

    @property
    def rest(self) -> int:
        """Where unclassified packets go; 0: past the tree, as ARP must."""
        return next((branch.minor for branch in self.branches if branch.address is None), 0)

    def minors(self) -> dict[str, int]:
        """By address: the class of its packets."""
        return {branch.address: branch.minor for branch in self.branches if branch.address is not None}


def egress(table: LinkTable, engine: DelayEngine) -> Tree:
    """The tree on `data`: each peer's class, in the table's order."""
    line_bit_s = table.up_bit_s or UNLIMITED_BIT_S
    branches = []
    for minor, links in enumerate(table.peers, FIRST_MINOR):
        ceil_bit_s = links.out.rate_bit_s or UNLIMITED_BIT_S
        leaf = sender_leaf(links, min(ceil_bit_s, line_bit_s), engine)
        floor_bit_s = _floor(table.up_bit_s, len(table.peers), ceil_bit_s)
        branches.append(Branch(minor, links.peer, links.address, floor_bit_s, ceil_bit_s, leaf))
    return Tree(DATA, OUT_HANDLE, "dst", line_bit_s, tuple(branches))


def ingress(table: LinkTable, engine: DelayEngine) -> Tree | None:
    """The tree on the ifb; none where what comes in needs no queue."""
    lossy = [
        (minor, links)
        for minor, links in enumerate(table.peers, FIRST_MINOR)
        if engine == "netem" and spoils(links.into)
    ]
    if table.down_bit_s is None and not lossy:
        return None
    line_bit_s = table.down_bit_s or UNLIMITED_BIT_S
    floor_bit_s = _floor(table.down_bit_s, len(lossy) + 1, line_bit_s)
    queue = queue_packets(table.down_bit_s, max((round_trip_ms(peer) for peer in table.peers), default=0.0))
    rest = Branch(REST_MINOR, None, None, floor_bit_s, line_bit_s, Leaf("pfifo", queue))
    branches = [rest]
    for minor, links in lossy:
        leaf = receiver_leaf(links.into, queue)
        branches.append(Branch(minor, links.peer, links.address, floor_bit_s, line_bit_s, leaf))
    return Tree(IFB, IN_HANDLE, "src", line_bit_s, tuple(branches))


def idle_ingress() -> Tree:
    """The tree on an ifb that is there and limits nothing."""
    leaf = Leaf("pfifo", UNLIMITED_PACKETS)
    rest = Branch(REST_MINOR, None, None, UNLIMITED_BIT_S, UNLIMITED_BIT_S, leaf)
    return Tree(IFB, IN_HANDLE, "src", UNLIMITED_BIT_S, (rest,))


def build(tree: Tree) -> list[str]:
    """Lines that make the whole tree where there is none of ours."""
    root = f"qdisc replace dev {tree.device} root handle {tree.handle}: htb default {tree.rest:x}"
    return [f"{root} direct_qlen {UNLIMITED_PACKETS}", *changes(tree), *filters(tree)]


def remove(tree: Tree) -> str:
    """The line that takes the tree away, with all that waits in it."""
    return f"qdisc delete dev {tree.device} root"


def remove_filters(tree: Tree) -> str:
    return f"filter delete dev {tree.device} parent {tree.handle}: prio 1"


def filters(tree: Tree) -> list[str]:
    """256 buckets by the address' last byte: u32 looks through a list otherwise."""
    minors = tree.minors()
    if not minors:
        return []
    add = f"filter add dev {tree.device} parent {tree.handle}: prio 1"
    lines = [f"{add} handle 1: protocol ip u32 divisor 256"]
    for address, minor in minors.items():
        bucket = int(IPv4Address(address)) & 0xFF
        match = f"match ip {tree.key} {address}/32 flowid {tree.handle}:{minor:x}"
        lines.append(f"{add} protocol ip u32 ht 1:{bucket:x}: {match}")
    at = key_offset(tree)
    hashed = f"match u32 0 0 at {at} hashkey mask 0x000000ff at {at} link 1:"
    return [*lines, f"{add} protocol ip u32 ht 800:: {hashed}"]


def key_offset(tree: Tree) -> int:
    """Of the address in the IP header."""
    return 16 if tree.key == "dst" else 12


def changes(tree: Tree) -> list[str]:
    """Lines that bring classes and queues of a built tree to what they shall be, in place."""
    lines = [_class_line(tree, "", LINE_MINOR, tree.line_bit_s, tree.line_bit_s)]
    for branch in tree.branches:
        lines += branch_changes(tree, branch)
    return lines


def branch_changes(tree: Tree, branch: Branch) -> list[str]:
    """The lines for one peer alone."""
    parent = f"{tree.handle}:{branch.minor:x}"
    queue = f"qdisc replace dev {tree.device} parent {parent} handle {branch.leaf_handle:x}:"
    return [
        _class_line(tree, f"{LINE_MINOR}", branch.minor, branch.floor_bit_s, branch.ceil_bit_s),
        f"{queue} {' '.join(branch.leaf.words())}",
    ]


def redirect(*, anew: bool) -> list[str]:
    """Lines that send all IP packets that come in through the ifb; `anew` where something is in the way."""
    match = "u32 match u32 0 0 action mirred egress redirect dev"
    return [
        *([f"qdisc delete dev {DATA} ingress"] if anew else []),
        f"qdisc add dev {DATA} handle ffff: ingress",
        f"filter add dev {DATA} parent ffff: protocol ip prio 2 {match} {IFB}",  # 1 are copies
    ]


def _class_line(tree: Tree, parent: str, minor: int, floor_bit_s: int, ceil_bit_s: int) -> str:
    return (
        f"class replace dev {tree.device} parent {tree.handle}:{parent} classid {tree.handle}:{minor:x} htb"
        f" rate {floor_bit_s}bit ceil {ceil_bit_s}bit"
        f" burst {_burst_bytes(floor_bit_s)} cburst {_burst_bytes(ceil_bit_s)} quantum {QUANTUM_BYTES}"
    )


def _burst_bytes(rate_bit_s: int) -> int:
    if rate_bit_s >= UNLIMITED_BIT_S:
        return UNLIMITED_BURST_BYTES
    return max(math.ceil(rate_bit_s / 8 * BURST_S), FRAME_BYTES + 86)


def _floor(line_bit_s: int | None, sharers: int, ceil_bit_s: int) -> int:
    return ceil_bit_s if line_bit_s is None else max(min(line_bit_s // sharers, ceil_bit_s), 1000)
