"""What the orchestrator tells an agent beside links: which rounds may open, and which faults are in force."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from node.contract import UsageError
from node.contract.faults import FaultsNow
from node.contract.schema import from_json
from node.contract.series import SERIES
from node.contract.settings import RELEASE_FILE

ACTIVE = "shoal_fault_active"


@dataclass(frozen=True)
class Release:
    """Up to which round the aggregator on this node may go."""

    round: int


class Instructions(Collector):
    """The aggregator's agent is told of them, and no other; it renders the faults as a series."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._faults = FaultsNow({})
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def add_to(self, router: web.UrlDispatcher) -> None:
        router.add_put("/release", self._release)
        router.add_put("/faults", self._put_faults)

    def text(self) -> bytes:
        """The series; none before the agent was told of any fault."""
        return generate_latest(self._registry) if self._faults.faults else b""

    def describe(self) -> Iterable[Metric]:
        return []  # so that registering does not collect

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(ACTIVE, SERIES[ACTIVE].help, labels=SERIES[ACTIVE].labels)
        for name, now in sorted(self._faults.faults.items()):
            family.add_metric([name, now.kind], float(now.is_active))
        yield family

    async def _release(self, request: web.Request) -> web.Response:
        try:
            said = from_json(Release, await request.json())
        except (ValueError, UsageError) as error:
            raise web.HTTPBadRequest(text=f"this is no release: {error}\n") from error
        part = self._folder / f"{RELEASE_FILE}.new"
        part.write_text(str(said.round))
        part.replace(self._folder / RELEASE_FILE)  # whoever looks sees a whole number
        return web.json_response({"round": said.round})

    async def _put_faults(self, request: web.Request) -> web.Response:
        try:
            self._faults = from_json(FaultsNow, await request.json())
        except (ValueError, UsageError) as error:
            raise web.HTTPBadRequest(text=f"these are no faults: {error}\n") from error
        return web.json_response({"faults": len(self._faults.faults)})
