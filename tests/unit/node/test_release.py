"""PUT /release: the orchestrator lets the aggregator on this node go on."""

from __future__ import annotations

from pathlib import Path

import pytest

from node.contract.settings import RELEASE_FILE
from tests.unit.node.test_agent import GIVEN, agent_of


async def test_a_release_is_written_where_the_aggregator_looks(tmp_path: Path) -> None:
    async with agent_of(tmp_path) as client:
        for number in (3, 5):
            async with client.put("/release", headers=GIVEN, json={"round": number}) as reply:
                assert (reply.status, await reply.json()) == (200, {"round": number})
            assert (tmp_path / RELEASE_FILE).read_text() == str(number)


async def test_a_release_needs_the_token(tmp_path: Path) -> None:
    async with agent_of(tmp_path) as client, client.put("/release", json={"round": 3}) as reply:
        assert reply.status == 401
    assert not (tmp_path / RELEASE_FILE).exists()


@pytest.mark.parametrize(
    "body", ["", "3", "{}", '{"round": "3"}', '{"round": 3, "more": 1}', '{"round": true}']
)
async def test_what_is_no_release(tmp_path: Path, body: str) -> None:
    async with agent_of(tmp_path) as client, client.put("/release", headers=GIVEN, data=body) as reply:
        assert reply.status == 400
        assert "no release" in await reply.text()
    assert not (tmp_path / RELEASE_FILE).exists()
