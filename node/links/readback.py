"""What the kernel says it has, as `tc` shows it, and where that is not what was asked. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Any, Final

from node.links import copies
from node.links.leaf import Leaf
from node.links.tree import Branch, Tree

TOLERANCE: Final = 0.01  # tc shows rounded figures
CLASS: Final = re.compile(
    r"^class htb \w+:(?P<minor>\w+) (?:root|parent \w+:\w*) .*?rate (?P<rate>\w+) ceil (?P<ceil>\w+)"
)
SENT: Final = re.compile(r"^ Sent (?P<bytes>\d+) bytes (?P<packets>\d+) pkt \(dropped (?P<dropped>\d+),")
UNITS: Final = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


@dataclass(frozen=True)
class KernelClass:
    floor_bit_s: int
    ceil_bit_s: int
    sent_bytes: int
    sent_packets: int
    dropped_packets: int


@dataclass(frozen=True)
class KernelLeaf:
    handle: int
    leaf: Leaf
    dropped_packets: int


@dataclass(frozen=True)
class KernelTree:
    """One device's tree; empty where it has none of ours."""

    handle: str = ""
    rest: int = 0
    classes: Mapping[int, KernelClass] = field(default_factory=dict)
    leaves: Mapping[int, KernelLeaf] = field(default_factory=dict)  # by the class' minor
    minors: Mapping[str, int] = field(default_factory=dict)  # by address
    has_ingress: bool = False
    redirects_to: str = ""
    copies: Mapping[str, int] = field(default_factory=dict)  # by address: the threshold of its filter


def kernel_tree(qdiscs: str, classes: str, filters: str, ingress_filters: str = "") -> KernelTree:
    """From `tc -j -s qdisc show`, `tc -s class show`, `tc -j filter show parent …` and `… show ingress`."""
    root: Mapping[str, Any] = {}
    leaves: dict[int, KernelLeaf] = {}
    has_ingress = False
    for qdisc in json.loads(qdiscs or "[]"):
        has_ingress = has_ingress or qdisc["kind"] == "ingress"
        if qdisc.get("root"):
            root = qdisc
        elif ":" in qdisc.get("parent", "") and qdisc["kind"] in ("pfifo", "netem"):
            minor = int(qdisc["parent"].partition(":")[2] or "0", 16)
            handle = int(qdisc["handle"].rstrip(":"), 16)
            leaves[minor] = KernelLeaf(handle, _leaf(qdisc["kind"], qdisc["options"]), qdisc["drops"])
    incoming = (has_ingress, _redirect(ingress_filters), copies.seen(ingress_filters))
    if root.get("kind") != "htb":
        return KernelTree("", 0, {}, {}, {}, *incoming)
    return KernelTree(
        root["handle"].rstrip(":"),
        int(str(root["options"]["default"]), 16),
        _classes(classes),
        leaves,
        _minors(filters),
        *incoming,
    )


def compare(tree: Tree, actual: KernelTree) -> list[str]:
    """Each place where the kernel has something else; for people."""
    if actual.handle != tree.handle:
        return [f"{tree.device}: no tree of ours"]
    said = []
    if actual.rest != tree.rest:
        said.append(f"{tree.device}: unclassified packets go to {actual.rest:x} instead of {tree.rest:x}")
    line = actual.classes.get(1)
    if line is None or not _near(line.ceil_bit_s, tree.line_bit_s):
        said.append(
            f"{tree.device}: the line has {line and line.ceil_bit_s} bit/s instead of {tree.line_bit_s}"
        )
    for branch in tree.branches:
        said += _branch_differences(tree, branch, actual)
    known = {branch.minor for branch in tree.branches}
    said += [
        f"{tree.device}: a queue too many, of class {minor:x}"
        for minor in actual.leaves
        if minor not in known
    ]
    wanted = tree.minors()
    for address in sorted({*wanted, *actual.minors}):
        if wanted.get(address) != actual.minors.get(address):
            said.append(
                f"{tree.device}: packets of {address} go to class {_hex(actual.minors.get(address))}"
                f" instead of {_hex(wanted.get(address))}"
            )
    return said


def _branch_differences(tree: Tree, branch: Branch, actual: KernelTree) -> list[str]:
    where = f"{tree.device}, {branch.peer or 'all others'}"
    has = actual.classes.get(branch.minor)
    queue = actual.leaves.get(branch.minor)
    if has is None or queue is None:
        return [f"{where}: no class or no queue"]
    figures: list[tuple[str, float, float]] = [
        ("rate", has.ceil_bit_s, branch.ceil_bit_s),
        ("share of the line", has.floor_bit_s, branch.floor_bit_s),
        ("queue", queue.leaf.limit, branch.leaf.limit),
        ("delay in ms", queue.leaf.delay_ms, branch.leaf.delay_ms),
        ("jitter in ms", queue.leaf.jitter_ms, branch.leaf.jitter_ms),
        ("reordered share", queue.leaf.reorder, branch.leaf.reorder),
        ("lost share", queue.leaf.loss, branch.leaf.loss),
        (
            "mean burst",
            queue.leaf.loss_burst if branch.leaf.is_bursty else 1.0,
            branch.leaf.loss_burst if branch.leaf.is_bursty else 1.0,
        ),
        ("corrupted share", queue.leaf.corrupt, branch.leaf.corrupt),
    ]
    said = [
        f"{where}: {what} {is_:g} instead of {asked:g}"
        for what, is_, asked in figures
        if not _near(is_, asked)
    ]
    if queue.leaf.kind != branch.leaf.kind:
        said.append(f"{where}: a {queue.leaf.kind} instead of a {branch.leaf.kind}")
    if branch.leaf.kind == "netem" and queue.leaf.in_order != branch.leaf.in_order:
        said.append(f"{where}: in order is {queue.leaf.in_order} instead of {branch.leaf.in_order}")
    return said


def _leaf(kind: str, options: Mapping[str, Any]) -> Leaf:
    def figure(group: str, key: str) -> float:
        return float(options.get(group, {}).get(key, 0.0))

    loss, burst = figure("loss-random", "loss"), 1.0
    if "loss-gemodel" in options:
        to_bad, to_good = figure("loss-gemodel", "p"), figure("loss-gemodel", "r")
        if to_bad + to_good > 0:
            loss = to_bad / (to_bad + to_good)
        burst = 1.0 / to_good if to_good else float("inf")
    return Leaf(
        kind,
        int(options.get("limit", 0)),
        delay_ms=figure("delay", "delay") * 1000,
        jitter_ms=figure("delay", "jitter") * 1000,
        in_order="rate" in options,
        reorder=figure("reorder", "reorder"),
        loss=loss,
        loss_burst=burst,
        corrupt=figure("corrupt", "corrupt"),
    )


def _classes(text: str) -> dict[int, KernelClass]:
    """tc 6.1 shows classes as text alone."""
    classes = {}
    head: re.Match[str] | None = None
    for line in text.splitlines():
        if match := CLASS.match(line):
            head = match
        elif head is not None and (sent := SENT.match(line)):
            classes[int(head["minor"], 16)] = KernelClass(
                bits(head["rate"]),
                bits(head["ceil"]),
                int(sent["bytes"]),
                int(sent["packets"]),
                int(sent["dropped"]),
            )
            head = None
    return classes


def bits(text: str) -> int:
    """A rate as tc shows it: 20Mbit, 1500Kbit, 800bit."""
    match = re.fullmatch(r"(\d+)([KMGT]?)bit", text)
    if match is None:
        raise ValueError(f"tc shows a rate as {text!r}")
    return int(match[1]) * UNITS[match[2]]


def _minors(filters: str) -> dict[str, int]:
    minors = {}
    for item in json.loads(filters or "[]"):
        options = item.get("options", {})
        if "flowid" in options and "match" in options:
            address = str(IPv4Address(int(options["match"]["value"], 16)))
            minors[address] = int(options["flowid"].partition(":")[2], 16)
    return minors


def _redirect(filters: str) -> str:
    """Where packets that come in are sent; empty when they are not."""
    for item in json.loads(filters or "[]"):
        for action in item.get("options", {}).get("actions", []):
            if action.get("mirred_action") == "redirect":
                return str(action.get("to_dev", ""))
    return ""


def _near(is_: float, asked: float) -> bool:
    return abs(is_ - asked) <= max(TOLERANCE * abs(asked), 1e-9)


def _hex(minor: int | None) -> str:
    return "none" if minor is None else f"{minor:x}"
