"""Trunks as the `compose` driver lays them: in a container of the run's own, beside the nodes. Pure.

The bridge is the host's, and nothing of ours may stay there when a run is killed. So nodes send what goes
through a trunk to this container, by routes that their agents put, and it sends it on from its one interface:
an HTB with a class for each trunk, found by source and destination. What is of no trunk is not limited.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Final

from node.contract.plan import Plan
from orchestrator.containers.addresses import reserved
from orchestrator.containers.compose_yaml import labels, quoted, same, volumes
from orchestrator.trunks import NAME, Trunk, class_lines, rate_differences, rates, refuse, trunks

FILE: Final = "trunks.tc"
DEVICE: Final = "eth0"  # as engines call the only interface of a container
FORWARDING: Final = "/proc/sys/net/ipv4/ip_forward"
NOWHERE_MINOR: Final = 1  # its queue holds nothing, so that what goes there is dropped
NOWHERE_BIT_S: Final = 10_000
FIRST_MINOR: Final = 0x10
MINORS_EACH: Final = 2  # a class' own, and its queue's handle
DST, SRC = 16, 12  # where the addresses are in the header
LAST: Final = "link 1:"  # in what tc shows of the last line: all lines before it are in force, then
FILTER: Final = re.compile(
    r"flowid 1:(?P<minor>\w+).*\n"
    rf"\s+match (?P<dst>[0-9a-f]{{8}})/ffffffff at {DST}\s*\n"
    rf"\s+match (?P<src>[0-9a-f]{{8}})/ffffffff at {SRC}\s*$",
    re.MULTILINE,
)


def address(plan: Plan) -> str | None:
    """On `data`; None where no links share a line."""
    return str(reserved(IPv4Network(plan.network.data_subnet))[0]) if trunks(plan) else None


def service(plan: Plan, hidden: Path, group: int) -> list[str]:
    """Its lines in the Compose file; none where no links share a line."""
    if not trunks(plan):
        return []
    file = hidden / FILE
    is_laid = f"tc filter show dev {DEVICE} parent 1: | grep -q '{LAST}'"
    return [
        "  # The lines that zones share: nodes send what goes through one to here, and it sends it on.",
        f"  {NAME}:",
        "    <<: *any",
        "    init: true",
        f"    user: {quoted(f'0:{group}')}",
        "    cap_add: [NET_ADMIN]",
        '    sysctls: {"net.ipv4.ip_forward": "1"}',
        "    entrypoint: [sh, -ec]",
        f"    command: {quoted([f'tc -batch {file}; exec sleep infinity'])}",
        *volumes(same(file)),
        "    networks:",
        f"      data: {{ipv4_address: {address(plan)}}}",
        labels("", NAME),
        f"    healthcheck: {{<<: *health-soon, test: {quoted(['CMD-SHELL', is_laid])}}}",
        "",
    ]


def traffic_lines(plan: Plan) -> list[str]:
    """For `tc -batch`: a class for each trunk, and which packets are of it."""
    addresses = {node.name: node.data_address for node in plan.nodes}
    nowhere = f"parent 1: classid 1:{NOWHERE_MINOR:x} htb rate {NOWHERE_BIT_S}bit quantum 1514"
    lines = [
        f"qdisc add dev {DEVICE} root handle 1: htb default 0 direct_qlen 1000",
        f"class add dev {DEVICE} {nowhere}",
        f"qdisc add dev {DEVICE} parent 1:{NOWHERE_MINOR:x} handle {NOWHERE_MINOR + 1:x}: pfifo limit 0",
    ]
    for trunk in trunks(plan):
        lines += class_lines(trunk, DEVICE, _minor(trunk))
    add = f"filter add dev {DEVICE} parent 1:"
    # 256 buckets by the receiver's last byte: u32 looks through a list otherwise.
    lines.append(f"{add} prio 1 handle 1: protocol ip u32 divisor 256")
    # What it sends on leaves where it came in, so its kernel would tell the senders of a shorter way.
    redirect = f"match ip src {address(plan)}/32 match ip protocol 1 0xff match u8 5 0xff at 20"
    lines.append(f"{add} prio 1 protocol ip u32 ht 800:: {redirect} flowid 1:{NOWHERE_MINOR:x}")
    for trunk in trunks(plan):
        for sender, receiver in trunk.pairs:
            bucket = int(IPv4Address(addresses[receiver])) & 0xFF
            match = f"match ip dst {addresses[receiver]}/32 match ip src {addresses[sender]}/32"
            flow = f"flowid 1:{_minor(trunk):x}"
            lines.append(f"{add} prio 1 protocol ip u32 ht 1:{bucket:x}: {match} {flow}")
    hashed = f"match u32 0 0 at {DST} hashkey mask 0x000000ff at {DST} {LAST}"
    return [*lines, f"{add} prio 1 protocol ip u32 ht 800:: {hashed}"]


def script(plan: Plan) -> str:
    return "".join(f"{line}\n" for line in traffic_lines(plan))


def question() -> str:
    """A script of the shell that shows what there is, in the order in which `differences` reads it."""
    shown = (
        f"cat {FORWARDING}",
        f"tc class show dev {DEVICE}",
        f"tc filter show dev {DEVICE} parent 1:",
    )
    return "".join(f"{line}\nprintf '\\036'\n" for line in shown)


def differences(plan: Plan, answer: str) -> list[str]:
    """Where what there is is not what was asked; for people."""
    forwards, classes, filters, *_ = [*answer.split("\036"), "", "", ""]
    said = [] if forwards.strip() == "1" else ["their container does not forward packets"]
    seen = rates(classes)
    for trunk in trunks(plan):
        said += rate_differences(trunk, _minor(trunk), seen)
    names = {node.data_address: node.name for node in plan.nodes}
    has = dict(_classified(filters))
    asked = {pair: _minor(trunk) for trunk in trunks(plan) for pair in _addresses(plan, trunk)}
    for source, target in sorted({*has, *asked}):
        is_, wanted = has.get((source, target)), asked.get((source, target))
        if is_ != wanted:
            way = f"{names.get(source, source)} to {names.get(target, target)}"
            said.append(f"what goes from {way} is of class {_hex(is_)} instead of {_hex(wanted)}")
    if asked and LAST not in filters:
        said.append("no packet is classified")
    return said


def check(plan: Plan, answer: str) -> None:
    refuse(differences(plan, answer))


def _minor(trunk: Trunk) -> int:
    return FIRST_MINOR + MINORS_EACH * trunk.number


def _addresses(plan: Plan, trunk: Trunk) -> list[tuple[str, str]]:
    addresses = {node.name: node.data_address for node in plan.nodes}
    return [(addresses[sender], addresses[receiver]) for sender, receiver in trunk.pairs]


def _classified(filters: str) -> Iterator[tuple[tuple[str, str], int]]:
    """By source and destination: the class of its packets."""
    for found in FILTER.finditer(filters):
        source, target = (str(IPv4Address(int(found[key], 16))) for key in ("src", "dst"))
        yield (source, target), int(found["minor"], 16)


def _hex(minor: int | None) -> str:
    return "none" if minor is None else f"{minor:x}"
