"""The links' part of the agent: who owns them, watches them and answers for them."""

from __future__ import annotations

from pathlib import Path

from node.contract.links import LinkTable
from node.contract.settings import NodeSettings
from node.events import Events
from node.links.interfaces import name_interfaces
from node.links.owner import Links
from node.links.probes import Probes
from node.links.routes import LinkRoutes
from node.links.series import LinkSeries
from node.links.watch import Watch


class LinkService:
    def __init__(self, settings: NodeSettings, events: Events) -> None:
        self.links = Links(settings.name, Path(settings.folder), settings.delay_engine)
        probes = Probes(settings.data_address)
        self.watch = Watch(self.links, probes, events)
        self.routes = LinkRoutes(self.links, probes, self.watch.changed)
        self._settings, self._events = settings, events
        self._series = LinkSeries()

    def resume(self, first: LinkTable | None) -> None:
        """Put in force what the node was told, and tell what came of it."""
        name_interfaces(self._settings, self.links.kernel)
        if (now := self.links.resume(first)) is not None:
            self._events.write(
                "links_applied",
                engine=now.engine,
                peers=len(now.links),
                applied_ms=now.applied_ms,
                mismatches=now.mismatches,
            )

    def text(self) -> bytes:
        """The links' series; none before they were first looked at."""
        table, seen = self.links.table, self.watch.seen
        if table is None or seen is None:
            return b""
        return self._series.text(table, self.links.engine, seen, self.watch.mismatches)
