"""What is in force towards each peer, put together from the kernel's and the holder's figures. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from node.contract.links import CutHow, DelayEngine, LinkState, LinkTable
from node.links.cuts import CUT_CHAIN, HOLD_CHAIN, KernelRules
from node.links.hold import HoldState
from node.links.leaf import UNLIMITED_BIT_S
from node.links.readback import KernelTree
from node.links.tree import LINE_MINOR
from node.links.ways import Way


@dataclass(frozen=True)
class Seen:
    """One look at the node's links."""

    out: KernelTree
    into: KernelTree
    rules: KernelRules
    held: HoldState | None  # nothing when nothing is held, or the holder has ended
    past_cut_packets: Mapping[str, int]
    ways: Mapping[str, Way] = field(default_factory=dict)  # looked at only where any is asked for

    @staticmethod
    def line(tree: KernelTree) -> int | None:
        """The rate of the node's own line; None when it has no limit."""
        line = tree.classes.get(LINE_MINOR)
        return None if line is None or line.ceil_bit_s >= UNLIMITED_BIT_S else line.ceil_bit_s


def link_states(table: LinkTable, engine: DelayEngine, seen: Seen) -> Iterator[LinkState]:
    """In the order of the table."""
    received = _received(seen.rules)
    by_peer = {link.peer: link for link in seen.held.links} if seen.held is not None else {}
    for links in table.peers:
        out_minor = seen.out.minors.get(links.address, -1)
        sent = seen.out.classes.get(out_minor)
        out = seen.out.leaves.get(out_minor)
        into = seen.into.leaves.get(seen.into.minors.get(links.address, -1))
        held = by_peer.get(links.peer)
        latency_ms = loss = 0.0
        lost = overflowed = 0
        if engine == "netem":
            latency_ms = out.leaf.delay_ms if out else 0.0
            loss = into.leaf.loss if into else 0.0
            lost = into.dropped_packets if into else 0
        elif held is not None:
            latency_ms, loss = held.latency_ms, held.loss
            lost, overflowed = held.lost, held.overflowed
        yield LinkState(
            peer=links.peer,
            rate_bit_s=None if sent is None or sent.ceil_bit_s >= UNLIMITED_BIT_S else sent.ceil_bit_s,
            latency_ms=latency_ms,
            loss=loss,
            is_cut=cut_of(links.address, seen.rules),
            sent_packets=sent.sent_packets if sent else 0,
            sent_bytes=sent.sent_bytes if sent else 0,
            received_packets=received.get(links.address, (0, 0))[0],
            received_bytes=received.get(links.address, (0, 0))[1],
            lost_packets=lost,
            cut_packets=cut_packets(links.address, seen.rules) + seen.past_cut_packets.get(links.address, 0),
            overflowed_packets=overflowed + (out.dropped_packets if out else 0),
        )


def cut_of(address: str, rules: KernelRules) -> CutHow | None:
    """How a peer is cut, by the first rule that its packets meet."""
    if "filter" not in rules.tables or CUT_CHAIN not in rules.chains:
        return None
    for chain in rules.joined:
        for counted in rules.chains.get(chain, ()):
            if counted.rule.address == address:
                return "drop" if "DROP" in counted.rule.what else "reject"
    return None


def cut_packets(address: str, rules: KernelRules) -> int:
    return sum(
        counted.packets
        for chain in rules.joined
        for counted in rules.chains.get(chain, ())
        if counted.rule.address == address
    )


def _received(rules: KernelRules) -> dict[str, tuple[int, int]]:
    """Packets and bytes by address, as the first chain counts all that comes in."""
    return {
        counted.rule.address: (counted.packets, counted.bytes) for counted in rules.chains.get(HOLD_CHAIN, ())
    }
