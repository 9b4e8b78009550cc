"""Trunks as the `netns` driver lays them. Pure.

Each trunk is an ifb device in the box, beside the bridge, with one HTB class of the trunk's rate. A packet
that comes out of a node's cable for a node at the trunk's other end goes through it, then to the bridge.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, Final

from node.contract.plan import Plan
from orchestrator.boxes.network import plug_name
from orchestrator.trunks import Trunk, class_lines, rate_differences, rates, refuse, trunks

MINOR: Final = 1  # there is one in each device


def device(trunk: Trunk) -> str:
    return f"trunk{trunk.number}"


def device_lines(plan: Plan) -> list[str]:
    """For `ip -batch`: the devices."""
    names = [device(trunk) for trunk in trunks(plan)]
    return [line for name in names for line in (f"link add {name} type ifb", f"link set {name} up")]


def traffic_lines(plan: Plan, bridge: str) -> list[str]:
    """For `tc -batch`: a class for each trunk, and what goes through it, by the cable that it comes from."""
    addresses = {node.name: node.data_address for node in plan.nodes}
    lines = []
    for trunk in trunks(plan):
        lines.append(f"qdisc add dev {device(trunk)} root handle 1: htb default {MINOR}")
        lines += class_lines(trunk, device(trunk), MINOR)
    for sender, receivers in _ways(plan):
        plug = plug_name(bridge, sender)
        lines.append(f"qdisc add dev {plug} handle ffff: ingress")
        filters = f"filter add dev {plug} parent ffff: protocol ip prio 1"
        lines += [
            f"{filters} u32 match ip dst {addresses[receiver]}/32 action mirred egress redirect dev {through}"
            for receiver, through in receivers.items()
        ]
    return lines


def question(plan: Plan, bridge: str) -> str:
    """A script of the shell that shows what there is, in the order in which `differences` reads it."""
    shown = [f"tc class show dev {device(trunk)}" for trunk in trunks(plan)]
    shown += [f"tc -j filter show dev {plug_name(bridge, sender)} ingress" for sender, _ in _ways(plan)]
    return "set -e\n" + "".join(f"{line}\nprintf '\\036'\n" for line in shown)


def differences(plan: Plan, answer: str) -> list[str]:
    """Where what there is is not what was asked; for people."""
    parts = iter(answer.split("\036"))
    said = []
    for trunk in trunks(plan):
        said += rate_differences(trunk, MINOR, rates(next(parts, "")))
    addresses = {node.name: node.data_address for node in plan.nodes}
    for sender, receivers in _ways(plan):
        has = dict(_redirects(json.loads(next(parts, "") or "[]")))
        asked = {addresses[receiver]: through for receiver, through in receivers.items()}
        if has != asked:
            said.append(f"what {sender} sends goes through trunks by {has} instead of {asked}")
    return said


def check(plan: Plan, answer: str) -> None:
    refuse(differences(plan, answer))


def _ways(plan: Plan) -> Iterator[tuple[str, Mapping[str, str]]]:
    """For each sender, by receiver: the device that its packets go through."""
    ways: dict[str, dict[str, str]] = defaultdict(dict)
    for trunk in trunks(plan):
        for sender, receiver in trunk.pairs:
            ways[sender][receiver] = device(trunk)
    return iter(sorted(ways.items()))


def _redirects(filters: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    for item in filters:
        options = item.get("options", {})
        for action in options.get("actions", []):
            number = int(options["match"]["value"], 16)
            yield ".".join(str(number >> shift & 0xFF) for shift in (24, 16, 8, 0)), action["to_dev"]
