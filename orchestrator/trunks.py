"""Trunks: the one line that all links of a pair of zones share, in each direction. Pure.

A trunk is an HTB class of its rate with a short queue. Each driver has its own way of sending packets into
it: orchestrator/boxes/trunks.py, orchestrator/containers/trunks.py.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from node.contract import ShoalError
from node.contract.plan import Plan
from node.links.table import FRAME_BYTES, trunk_queue_packets

NAME: Final = "trunks"  # of whatever carries all of them, where that can end by itself
TOLERANCE: Final = 0.01  # tc shows rounded figures
UNITS: Final = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}
SHOWN: Final = re.compile(r"^class htb 1:(\w+) root .*\bceil (\d+)([KMG]?)bit", re.MULTILINE)


@dataclass(frozen=True)
class Trunk:
    """A directed trunk: what goes from a node of `pairs` to the other."""

    name: str
    number: int  # in the plan, from 0
    rate_bit_s: int
    queue_packets: int
    pairs: tuple[tuple[str, str], ...]


def trunks(plan: Plan) -> tuple[Trunk, ...]:
    """Those of a plan that any link is part of."""
    links = {
        trunk.name: [link for link in plan.links if link.trunk == trunk.name] for trunk in plan.network.trunks
    }
    made = []
    for number, trunk in enumerate(plan.network.trunks):
        queue = trunk_queue_packets(plan, trunk)
        pairs = tuple((link.from_, link.to) for link in links[trunk.name])
        made.append(Trunk(trunk.name, number, trunk.rate_bit_s, queue, pairs))
    return tuple(trunk for trunk in made if trunk.pairs)


def class_lines(trunk: Trunk, device: str, minor: int) -> list[str]:
    """For `tc -batch`: its class in the HTB 1: of a device, and its queue."""
    burst = max(math.ceil(trunk.rate_bit_s / 8 / 1000), FRAME_BYTES + 86)
    rate = f"rate {trunk.rate_bit_s}bit burst {burst} cburst {burst} quantum {FRAME_BYTES}"
    return [
        f"class add dev {device} parent 1: classid 1:{minor:x} htb {rate}",
        f"qdisc add dev {device} parent 1:{minor:x} handle {minor + 1:x}: pfifo limit {trunk.queue_packets}",
    ]


def rates(shown: str) -> dict[int, int]:
    """From `tc class show dev …`: by minor, in bit/s."""
    return {int(minor, 16): int(rate) * UNITS[unit] for minor, rate, unit in SHOWN.findall(shown)}


def rate_differences(trunk: Trunk, minor: int, seen: Mapping[int, int]) -> list[str]:
    """For people."""
    rate_bit_s = seen.get(minor, 0)
    if abs(rate_bit_s - trunk.rate_bit_s) <= TOLERANCE * trunk.rate_bit_s:
        return []
    return [f"trunk {trunk.name} has {rate_bit_s} bit/s instead of {trunk.rate_bit_s}"]


def refuse(differences: Sequence[str]) -> None:
    if differences:
        raise ShoalError(f"the trunks are not as asked: {'; '.join(differences)}")
