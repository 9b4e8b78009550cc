"""These tests make network namespaces and shape them: they run inside a box, never on the host."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from node.contract import ENV_BOX
from node.links import engine
from orchestrator.boxes.box import Box
from tests.links.sides import WAIT_S, Side


def pytest_configure() -> None:
    if os.environ.get(ENV_BOX) != "1":
        raise pytest.UsageError(
            "tests/links runs inside a box: python -m orchestrator.boxes.box run -- COMMAND"
        )


@pytest.fixture(scope="session")
def box() -> Box:
    here = Box.current()
    if here.run(["ip", "link", "show", "data"], timeout_s=WAIT_S, check=False).status != 0:
        here.add_bridge("data")
    return here


@pytest.fixture(scope="session")
def delay_engine() -> Any:
    probed = engine.probe()
    return "netem" if not probed.netem else "hold"


@pytest.fixture(scope="session")
def sides(
    box: Box, delay_engine: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Side, Side, Side]]:
    made = []
    for number in (1, 2, 3):
        node = box.add_node(f"lnk{number}", {"data": f"10.77.40.{number}/24"})
        # A run's folder may be deep; tc cuts long names of files.
        folder = tmp_path_factory.mktemp(node.name) / "a-long-way-to-a-node" / "a-long-way-to-a-node"
        folder.mkdir(parents=True)
        made.append(Side(node, folder, delay_engine))
    yield made[0], made[1], made[2]
    for side in made:
        side.call(side.links.close)
