"""Doubled packets with netem: the filters' lines, and what tc shows of them."""

from __future__ import annotations

import json
import re
from typing import Any

from node.contract.links import LinkTable, PeerLinks, Shape
from node.links import copies

A, B = "10.77.0.2", "10.77.1.3"
HALF, CERTAIN = 1 << 31, (1 << 32) - 1
MARK_OF, SOURCE, RANDOM = 0xFFFFF014, 0xFFF0000C, 0xFFFFF038


def table(**shares: float) -> LinkTable:
    peers = tuple(
        PeerLinks(name, address, Shape(duplicate=0.9), Shape(duplicate=shares.get(name, 0.0)))
        for name, address in (("a", A), ("b", B))
    )
    return LinkTable("w01", "10.77.0.1", "10.77.0.0/16", None, None, peers)


def shown(lines: list[str]) -> str:
    """What `tc -j filter show` tells after these lines; written from what a real one shows."""
    items: list[dict[str, Any]] = [{"parent": "ffff:", "pref": 1, "kind": "bpf", "chain": 0}]
    items += [
        {"kind": "bpf", "options": {"bytecode": {"length": 8, "insns": program(line)}}} for line in lines
    ]
    return json.dumps(items)


def program(line: str) -> list[dict[str, int]]:
    match = re.search(r'bytecode "(\d+),(.*),"', line)
    assert match is not None
    found = [
        dict(zip(("code", "jt", "jf", "k"), map(int, one.split()), strict=True))
        for one in match[2].split(",")
    ]
    assert len(found) == int(match[1])
    return found


def is_doubled(line: str, mark: int, source: str, random: int) -> bool:
    """What the kernel does with the program."""
    data = {MARK_OF: mark, SOURCE: int.from_bytes(map(int, source.split("."))), RANDOM: random}
    at, value = 0, 0
    while True:
        one = program(line)[at]
        at += 1
        match one["code"]:
            case 32:
                value = data[one["k"]]
            case 21:
                at += one["jt"] if value == one["k"] else one["jf"]
            case 53:
                at += one["jt"] if value >= one["k"] else one["jf"]
            case 6:
                return one["k"] != 0


def test_who_is_to_be_doubled_is_by_what_comes_in() -> None:
    assert copies.wanted(table(a=0.5, b=1.0), "netem") == {A: HALF, B: CERTAIN}
    assert copies.wanted(table(), "netem") == {}
    assert copies.wanted(table(a=0.5), "hold") == {}


def test_a_packet_is_doubled_if_it_is_the_peers_and_hit_and_no_copy() -> None:
    (line,) = copies.put("data", {A: HALF}, {})
    assert is_doubled(line, 0, A, HALF - 1)
    assert not is_doubled(line, 0, A, HALF)
    assert not is_doubled(line, 0, B, 0)
    assert not is_doubled(line, copies.MARK, A, 0)
    assert "mark 1 pipe action mirred ingress mirror dev data pipe action skbedit mark 0 continue" in line


def test_what_tc_shows_is_what_was_put() -> None:
    wanted = {A: HALF, B: 7}
    seen = copies.seen(shown(copies.put("data", wanted, {})))
    assert seen == wanted
    assert copies.put("data", wanted, seen) == []
    assert copies.differences(wanted, seen) == []


def test_old_ones_go_before_new_ones_come() -> None:
    gone, *lines = copies.put("data", {B: 7}, {A: 7})
    assert gone == "filter delete dev data parent ffff: prio 1"
    assert len(lines) == 1
    assert copies.put("data", {}, {A: 7}) == [gone]


def test_each_difference_is_said() -> None:
    assert copies.differences({A: HALF}, {B: HALF}) == [
        f"packets of {A} are doubled in a share of 0 instead of 0.5",
        f"packets of {B} are doubled in a share of 0.5 instead of 0",
    ]
