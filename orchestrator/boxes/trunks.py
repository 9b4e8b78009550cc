"""Trunks: the one line that all links of a pair of zones share, as the `netns` driver lays it. Pure.

Each trunk is an ifb device in the box, beside the bridge, with one HTB class of the trunk's rate. A packet
that comes out of a node's cable for a node at the trunk's other end goes through it, then to the bridge.
"""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from node.contract import ShoalError
from node.contract.plan import Plan
from orchestrator.boxes.network import plug_name

FRAME_BYTES: Final = 1514
QUEUE_S: Final = 0.1
FEWEST_PACKETS: Final = 20
TOLERANCE: Final = 0.01  # tc shows rounded figures
UNITS: Final = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}
SHOWN: Final = re.compile(r"^class htb 1:1 root .*\bceil (\d+)([KMG]?)bit", re.MULTILINE)


@dataclass(frozen=True)
class Trunk:
    """A directed trunk: what goes from a node of `pairs` to the other."""

    name: str
    device: str
    rate_bit_s: int
    queue_packets: int
    pairs: tuple[tuple[str, str], ...]


def trunks(plan: Plan) -> tuple[Trunk, ...]:
    """Those of a plan that any link is part of."""
    links = {
        trunk.name: [link for link in plan.links if link.trunk == trunk.name] for trunk in plan.network.trunks
    }
    latency_ms = {(link.from_, link.to): link.latency_ms for link in plan.links}
    made = []
    for number, trunk in enumerate(plan.network.trunks):
        round_trips_ms = [
            link.latency_ms + latency_ms.get((link.to, link.from_), 0.0) for link in links[trunk.name]
        ]
        wait_s = max(QUEUE_S, max(round_trips_ms, default=0.0) / 1000)
        queue = max(math.ceil(trunk.rate_bit_s / 8 * wait_s / FRAME_BYTES), FEWEST_PACKETS)
        pairs = tuple((link.from_, link.to) for link in links[trunk.name])
        made.append(Trunk(trunk.name, f"trunk{number}", trunk.rate_bit_s, queue, pairs))
    return tuple(trunk for trunk in made if trunk.pairs)


def device_lines(plan: Plan) -> list[str]:
    """For `ip -batch`: the devices."""
    return [
        line
        for trunk in trunks(plan)
        for line in (f"link add {trunk.device} type ifb", f"link set {trunk.device} up")
    ]


def traffic_lines(plan: Plan, bridge: str) -> list[str]:
    """For `tc -batch`: a class for each trunk, and what goes through it, by the cable that it comes from."""
    addresses = {node.name: node.data_address for node in plan.nodes}
    lines = []
    for trunk in trunks(plan):
        burst = max(math.ceil(trunk.rate_bit_s / 8 / 1000), FRAME_BYTES + 86)
        rate = f"rate {trunk.rate_bit_s}bit burst {burst} cburst {burst} quantum {FRAME_BYTES}"
        lines += [
            f"qdisc add dev {trunk.device} root handle 1: htb default 1",
            f"class add dev {trunk.device} parent 1: classid 1:1 htb {rate}",
            f"qdisc add dev {trunk.device} parent 1:1 handle 2: pfifo limit {trunk.queue_packets}",
        ]
    for sender, receivers in _ways(plan):
        plug = plug_name(bridge, sender)
        lines.append(f"qdisc add dev {plug} handle ffff: ingress")
        filters = f"filter add dev {plug} parent ffff: protocol ip prio 1"
        lines += [
            f"{filters} u32 match ip dst {addresses[receiver]}/32 action mirred egress redirect dev {device}"
            for receiver, device in receivers.items()
        ]
    return lines


def question(plan: Plan, bridge: str) -> str:
    """A script of the shell that shows what there is, in the order in which `differences` reads it."""
    shown = [f"tc class show dev {trunk.device}" for trunk in trunks(plan)]
    shown += [f"tc -j filter show dev {plug_name(bridge, sender)} ingress" for sender, _ in _ways(plan)]
    return "set -e\n" + "".join(f"{line}\nprintf '\\036'\n" for line in shown)


def differences(plan: Plan, answer: str) -> list[str]:
    """Where what there is is not what was asked; for people."""
    parts = iter(answer.split("\036"))
    said = []
    for trunk in trunks(plan):
        shown = SHOWN.search(next(parts, ""))
        rate_bit_s = int(shown[1]) * UNITS[shown[2]] if shown else 0
        if abs(rate_bit_s - trunk.rate_bit_s) > TOLERANCE * trunk.rate_bit_s:
            said.append(f"trunk {trunk.name} has {rate_bit_s} bit/s instead of {trunk.rate_bit_s}")
    addresses = {node.name: node.data_address for node in plan.nodes}
    for sender, receivers in _ways(plan):
        has = dict(_redirects(json.loads(next(parts, "") or "[]")))
        asked = {addresses[receiver]: device for receiver, device in receivers.items()}
        if has != asked:
            said.append(f"what {sender} sends goes through trunks by {has} instead of {asked}")
    return said


def check(plan: Plan, answer: str) -> None:
    if said := differences(plan, answer):
        raise ShoalError(f"the trunks are not as asked: {'; '.join(said)}")


def _ways(plan: Plan) -> Iterator[tuple[str, Mapping[str, str]]]:
    """For each sender, by receiver: the device that its packets go through."""
    ways: dict[str, dict[str, str]] = defaultdict(dict)
    for trunk in trunks(plan):
        for sender, receiver in trunk.pairs:
            ways[sender][receiver] = trunk.device
    return iter(sorted(ways.items()))


def _redirects(filters: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    for item in filters:
        options = item.get("options", {})
        for action in options.get("actions", []):
            number = int(options["match"]["value"], 16)
            yield ".".join(str(number >> shift & 0xFF) for shift in (24, 16, 8, 0)), action["to_dev"]
