"""The same faults of processes on containers: killed, paused and started by the engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.run.place import Place
from tests.run.test_part_faults import go


@pytest.mark.usefixtures("node_image")
def test_containers_are_killed_and_paused_and_come_back_as_processes_do(tmp_path: Path) -> None:
    here = Place(tmp_path)
    go(here, "compose")
    here.wait_empty()
    killed = {(e["node"], e["part"]) for e in here.events("part_ended") if e["status"] == -9}
    whole = {("w02", part) for part in ("agent", "ipfs", "trainer")}
    assert killed == {("w03", "agent"), ("agg", "aggregator"), *whole}
