from __future__ import annotations

import re

from node.contract.series import SERIES
from node.contract.settings import PROTOCOL
from node.ipfs.errors import UnreachableError
from node.ipfs_series import ASK_EVERY_S, IpfsSeries, samples

BITSWAP = "/ipfs/bitswap/1.2.0"


class FakeDaemon:
    """Counts for each protocol what it was told; `is_up` says whether it answers."""

    def __init__(self) -> None:
        self.totals = {BITSWAP: (100.0, 10.0), PROTOCOL: (3.0, 4.0), "/ipfs/id/1.0.0": (7.0, 8.0)}
        self.is_up = True
        self.asked = 0

    async def repository(self, *, timeout_s: float) -> dict[str, float]:
        self._answer()
        return {"RepoSize": 4096, "NumObjects": 12, "StorageMax": 10**10}

    async def bandwidth(self, *, protocol: str | None = None, timeout_s: float) -> dict[str, float]:
        self._answer()
        rows = [self.totals[protocol]] if protocol is not None else list(self.totals.values())
        return {"TotalIn": sum(row[0] for row in rows), "TotalOut": sum(row[1] for row in rows)}

    def _answer(self) -> None:
        self.asked += 1
        if not self.is_up:
            raise UnreachableError("no daemon answers")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_every_series_of_the_table_and_what_is_in_it() -> None:
    text = (await IpfsSeries(FakeDaemon()).text()).decode()
    names = set(re.findall(r"^(shoal_\w+)", text, re.MULTILINE))
    assert names == {name for name, series in SERIES.items() if series.by == "ipfs"}
    assert "shoal_repository_bytes 4096.0" in text
    assert "shoal_repository_blocks 12.0" in text
    assert 'shoal_stream_bytes_total{direction="in",protocol="bitswap"} 100.0' in text
    assert 'shoal_stream_bytes_total{direction="out",protocol="rounds"} 4.0' in text
    assert 'shoal_stream_bytes_total{direction="out",protocol="other"} 8.0' in text


async def test_the_daemon_is_asked_seldom() -> None:
    daemon, clock = FakeDaemon(), Clock()
    series = IpfsSeries(daemon, clock)
    first = await series.text()
    asked = daemon.asked
    daemon.totals[BITSWAP] = (200.0, 10.0)
    assert await series.text() == first
    assert daemon.asked == asked
    clock.now += ASK_EVERY_S
    assert b'protocol="bitswap"} 200.0' in await series.text()


async def test_of_a_daemon_that_does_not_answer_nothing_is_said_until_it_does() -> None:
    daemon, clock = FakeDaemon(), Clock()
    series = IpfsSeries(daemon, clock)
    assert await series.text()
    daemon.is_up = False
    clock.now += ASK_EVERY_S
    assert await series.text() == b""
    daemon.is_up = True
    assert await series.text()


def totals(bitswap: float, all_: float) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    return {"TotalIn": all_, "TotalOut": 0}, {"bitswap": {"TotalIn": bitswap, "TotalOut": 0}}


def test_the_rest_falls_only_when_the_daemon_began_anew() -> None:
    repository = {"RepoSize": 1.0, "NumObjects": 1.0}

    def rest(bitswap: float, all_: float, before: float) -> float:
        made = samples(
            repository,
            *totals(bitswap, all_),
            {"shoal_stream_bytes_total": [(("bitswap", "in"), 50.0), (("other", "in"), before)]},
        )
        return dict(made["shoal_stream_bytes_total"])["other", "in"]

    assert rest(60, 75, before=10) == 15
    assert rest(60, 65, before=10) == 10, "the total was asked a moment before the protocol"
    assert rest(60, 55, before=0) == 0
    assert rest(4, 6, before=10) == 2, "its counters are smaller than before: it was restarted"
