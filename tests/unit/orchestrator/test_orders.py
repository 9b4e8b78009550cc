"""Whole netns nodes that are killed, as far as they take orders."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from node.contract import ShoalError
from node.contract.settings import ORDERS_SOCKET
from orchestrator.faults.orders import WHOLE, OrderedParts


class FakeNodes:
    """One that lives and does not end."""

    def __init__(self) -> None:
        self.expected: set[str] = set()

    def start_node(self, name: str, settings: Path, /) -> dict[str, Any]:
        raise AssertionError(f"{name} lives")

    def is_forked(self, name: str, /) -> bool:
        return name == "w01"

    def expect_end(self, name: str, /) -> None:
        self.expected.add(name)

    def expect_life(self, name: str, /) -> None:
        self.expected.remove(name)

    def wait_ended(self, name: str, timeout_s: float, /) -> bool:
        raise AssertionError(f"{name} took no order")


def test_a_node_that_takes_no_order_is_lost_when_it_ends_by_itself(tmp_path: Path) -> None:
    nodes = FakeNodes()
    with pytest.raises(ShoalError, match=r"w01 takes no orders: .*No such file"):
        OrderedParts(tmp_path, nodes).kill("w01", WHOLE)
    (tmp_path / "w01").mkdir()
    with socket.socket(socket.AF_UNIX) as nobody:
        nobody.bind(str(tmp_path / "w01" / ORDERS_SOCKET))
        with pytest.raises(ShoalError, match=r"w01 takes no orders: .*refused"):
            OrderedParts(tmp_path, nodes).kill("w01", WHOLE)
    assert nodes.expected == set()


def test_of_a_node_that_is_not_there_nothing_is_expected(tmp_path: Path) -> None:
    nodes = FakeNodes()
    OrderedParts(tmp_path, nodes).kill("w02", WHOLE)
    assert nodes.expected == set()
