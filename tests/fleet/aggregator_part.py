"""An aggregator with the numpy fake of learning, as a process that can be killed: `python -m … SETTINGS.json`."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from aggregator import server
from node.contract.schema import from_json
from node.contract.settings import EVENTS_FILE, NodeSettings
from node.events import Events
from node.metrics import RoleMetrics
from tests.unit.aggregator.fake_learning import FakeLearning


async def main(settings: NodeSettings) -> None:
    events = Events(Path(settings.folder) / EVENTS_FILE, settings.name)
    metrics = RoleMetrics("aggregator")
    await server.serve(settings, events, metrics, asyncio.Event(), make=lambda _: FakeLearning())


if __name__ == "__main__":
    asyncio.run(main(from_json(NodeSettings, json.loads(Path(sys.argv[1]).read_text()))))
