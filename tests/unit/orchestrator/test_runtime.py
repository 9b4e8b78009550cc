"""What is measured of an image, when, and what of it a node has on top of its memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from node.contract import ENV_CACHE
from node.contract.plan import NodePlan
from orchestrator.containers import runtime

SIZES = {"ipfs": 20, "trainer": 300, "aggregator": 310}


class Engine:
    """As far as it is asked which image a name stands for."""

    def __init__(self) -> None:
        self.image_id = "sha256:a1"
        self.images = SimpleNamespace(get=lambda _: SimpleNamespace(id=self.image_id))


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The parts that were measured, in turn."""
    parts: list[str] = []

    def resident_bytes(_: Any, image: str, labels: Mapping[str, str], modules: Sequence[str]) -> int:
        assert (image, labels) == ("node:1", {"a": "b"})
        (part,) = [part for part, imports in runtime.IMPORTS.items() if imports == modules]
        parts.append(part)
        return SIZES[part]

    monkeypatch.setenv(ENV_CACHE, str(tmp_path))
    monkeypatch.setattr(runtime, "resident_bytes", resident_bytes)
    return parts


def test_an_image_is_measured_once_and_only_for_what_is_limited(asked: list[str]) -> None:
    engine: Any = Engine()
    assert runtime.measured(engine, "node:1", {"a": "b"}, ()) == {}
    assert asked == []
    assert runtime.measured(engine, "node:1", {"a": "b"}, {"ipfs", "trainer"}) == {"ipfs": 20, "trainer": 300}
    assert runtime.measured(engine, "node:1", {"a": "b"}, {"ipfs"}) == {"ipfs": 20}
    assert runtime.measured(engine, "node:1", {"a": "b"}, {"ipfs", "aggregator"})["aggregator"] == 310
    assert asked == ["ipfs", "trainer", "aggregator"]


def test_an_image_that_was_made_anew_is_measured_anew(asked: list[str]) -> None:
    engine: Any = Engine()
    runtime.measured(engine, "node:1", {"a": "b"}, {"ipfs"})
    engine.image_id = "sha256:b2"
    runtime.measured(engine, "node:1", {"a": "b"}, {"ipfs"})
    assert asked == ["ipfs", "ipfs"]


def test_a_node_has_what_all_of_its_limited_parts_take() -> None:
    node = NodePlan("w01", ("trainer",), None, None, "", "")
    assert runtime.parts(node) == ("ipfs", "trainer")
    assert runtime.of_node(node, SIZES) == 320


def test_what_is_measured_grows_with_what_is_imported() -> None:
    def measure(*modules: str) -> int:
        argv = [sys.executable, "-c", runtime.MEASURE, *modules]
        return int(subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout)

    assert 1 << 20 < measure() < measure("asyncio", "http.client", "decimal") < 1 << 30
