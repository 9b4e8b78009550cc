"""PUT /faults: the orchestrator tells the aggregator's agent which faults are in force, for the metrics."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.node.test_agent import GIVEN, agent_of

FAULTS = {
    "split": {"kind": "partition", "is_active": True},
    "dead": {"kind": "kill", "is_active": False},
}


async def test_faults_are_a_series_as_they_were_told_last(tmp_path: Path) -> None:
    async with agent_of(tmp_path) as client:
        async with client.get("/metrics") as reply:
            assert "shoal_fault_active" not in await reply.text()
        async with client.put("/faults", headers=GIVEN, json={"faults": FAULTS}) as reply:
            assert (reply.status, await reply.json()) == (200, {"faults": 2})
        async with client.get("/metrics") as reply:
            page = await reply.text()
        assert 'shoal_fault_active{fault="split",kind="partition"} 1.0\n' in page
        assert 'shoal_fault_active{fault="dead",kind="kill"} 0.0\n' in page


async def test_faults_need_the_token(tmp_path: Path) -> None:
    async with agent_of(tmp_path) as client, client.put("/faults", json={"faults": FAULTS}) as reply:
        assert reply.status == 401


@pytest.mark.parametrize("body", ["", "{}", '{"faults": {"split": true}}', '{"faults": [], "more": 1}'])
async def test_what_are_no_faults(tmp_path: Path, body: str) -> None:
    async with agent_of(tmp_path) as client, client.put("/faults", headers=GIVEN, data=body) as reply:
        assert reply.status == 400
        assert "no faults" in await reply.text()
