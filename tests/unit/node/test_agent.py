from __future__ import annotations

import asyncio
import json
import os
import re
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
from aiohttp import ClientResponse, web
from aiohttp.test_utils import TestClient, TestServer

from node import agent
from node.accounts import Account, Usage, cpu_seconds, interface_bytes, proportional_bytes, tree
from node.agent import Agent, Sources, watch_ipfs
from node.contract import UsageError
from node.contract.plan import Role
from node.contract.series import SERIES
from node.contract.settings import EVENTS_FILE, Neighbour, NodeSettings
from node.events import Events
from node.ipfs.client import Client as IpfsClient
from node.node_series import samples
from node.process import ProcessId
from tests.settings import node_settings
from tests.unit.node.ipfs.fake_rpc import ME, OTHER, fake_daemon

TOKEN = "open sesame"
GIVEN = {"Authorization": f"Bearer {TOKEN}"}
Client = TestClient[web.Request, web.Application]


def settings_in(folder: Path, roles: tuple[Role, ...] = ("trainer",)) -> NodeSettings:
    return node_settings("w1", folder, roles=roles)


@asynccontextmanager
async def agent_of(
    folder: Path,
    sources: Sources | None = None,
    stop: asyncio.Event | None = None,
    roles: tuple[Role, ...] = ("trainer",),
) -> AsyncIterator[Client]:
    made = Agent(settings_in(folder, roles), TOKEN, sources or Sources({}), stop or asyncio.Event())
    async with TestClient(TestServer(made.app())) as client:
        yield client


@asynccontextmanager
async def source(answer: Callable[[], web.Response]) -> AsyncIterator[str]:
    """Somebody whose series are passed on."""

    async def handle(_: web.Request) -> web.Response:
        return answer()

    app = web.Application()
    app.router.add_get("/metrics", handle)
    async with TestServer(app) as server:
        yield str(server.make_url("/metrics"))


# -- who may ask


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/health", {}, 401),
        ("/events", {}, 401),
        ("/health", {"Authorization": "Bearer wrong"}, 401),
        ("/health", {"Authorization": "Bearer ö"}, 401),
        ("/health", {"Authorization": "Bearer "}, 401),
        ("/nothing", {}, 401),
        ("/nothing", GIVEN, 404),
        ("/health", {**GIVEN, "Origin": "http://evil"}, 403),
        ("/metrics", {"Origin": "null"}, 403),
        ("/metrics", {}, 200),
        ("/health", GIVEN, 200),
    ],
)
async def test_who_may_ask(tmp_path: Path, path: str, headers: dict[str, str], status: int) -> None:
    async with agent_of(tmp_path) as client, client.get(path, headers=headers) as reply:
        assert reply.status == status


def test_an_empty_token_is_refused(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("\n")
    with pytest.raises(UsageError, match="the token is empty"):
        agent.run(settings_in(tmp_path))
    with pytest.raises(UsageError, match="cannot read the token file"):
        agent.run(replace(settings_in(tmp_path), token_file="/nowhere/token"))


# -- events


async def lines_of(reply: ClientResponse) -> tuple[int, int]:
    return len((await reply.read()).splitlines()), int(reply.headers["X-Next-Offset"])


async def test_events_come_from_an_offset_on(tmp_path: Path) -> None:
    events = Events(tmp_path / EVENTS_FILE, "w1")
    events.write("all_ready", trainers=[])
    events.write("all_ready", trainers=["w1"])
    async with agent_of(tmp_path) as client:
        async with client.get("/events", headers=GIVEN) as reply:
            count, offset = await lines_of(reply)
            assert (count, offset) == (2, events.path.stat().st_size)
        events.write("all_ready", trainers=["w2"])
        async with client.get(f"/events?from={offset}", headers=GIVEN) as reply:
            assert b'"w2"' in await reply.read()


async def test_a_question_is_held_until_there_is_an_event(tmp_path: Path) -> None:
    async with agent_of(tmp_path) as client:
        held = asyncio.create_task(client.get("/events?from=0", headers=GIVEN))
        async with client.get("/health", headers=GIVEN):
            assert not held.done()
        Events(tmp_path / EVENTS_FILE, "w1").write("all_ready", trainers=[])
        async with await held as reply:
            assert await lines_of(reply) == (1, (tmp_path / EVENTS_FILE).stat().st_size)


async def test_what_a_trainer_tells_is_gathered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent, "LOOK_S", 60.0)
    events, stop = Events(tmp_path / EVENTS_FILE, "w1"), asyncio.Event()
    events.write("all_ready", trainers=["first"])
    async with agent_of(tmp_path, stop=stop) as client:
        held = asyncio.create_task(client.get("/events", headers=GIVEN))
        async with client.get("/health", headers=GIVEN):
            assert not held.done()
        events.write("all_ready", trainers=["second"])
        stop.set()
        async with await held as reply:
            assert (await lines_of(reply))[0] == 2


async def test_what_an_aggregator_tells_does_not_wait_as_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent, "LOOK_S", 60.0)
    Events(tmp_path / EVENTS_FILE, "w1").write("all_ready", trainers=[])
    async with agent_of(tmp_path, roles=("aggregator",)) as client:
        reply = await asyncio.wait_for(client.get("/events", headers=GIVEN), 30.0)
        assert (await lines_of(reply))[0] == 1


async def test_a_held_question_ends_with_the_agent_or_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = asyncio.Event()
    async with agent_of(tmp_path, stop=stop) as client:
        held = asyncio.create_task(client.get("/events?from=7", headers=GIVEN))
        stop.set()
        async with await held as reply:
            assert await lines_of(reply) == (0, 7)
    monkeypatch.setattr(agent, "LONG_POLL_S", 0.0)
    async with agent_of(tmp_path) as client, client.get("/events?from=7", headers=GIVEN) as reply:
        assert await lines_of(reply) == (0, 7)


@pytest.mark.parametrize("offset", ["-1", "x", "1.5", "²"])
async def test_an_offset_that_is_none(tmp_path: Path, offset: str) -> None:
    async with (
        agent_of(tmp_path) as client,
        client.get("/events", params={"from": offset}, headers=GIVEN) as reply,
    ):
        assert reply.status == 400


# -- health and metrics


def tell_parts(folder: Path) -> None:
    """One part that lives, ourselves, and one that has ended."""
    events = Events(folder / EVENTS_FILE, "w1")
    me = ProcessId.of(os.getpid())
    events.write("part_started", part="trainer", pid=me.pid, start_ticks=me.start_ticks)
    events.write("part_started", part="ipfs", pid=me.pid, start_ticks=me.start_ticks - 1)
    events.write("part_ended", part="ipfs", status=-9, expected=False)


async def test_health_says_what_became_of_each_part(tmp_path: Path) -> None:
    tell_parts(tmp_path)
    async with agent_of(tmp_path) as client, client.get("/health", headers=GIVEN) as reply:
        parts = (await reply.json())["parts"]
    assert parts["trainer"]["is_up"] is True
    assert parts["ipfs"]["is_up"] is False
    assert (parts["ipfs"]["status"], parts["ipfs"]["expected"]) == (-9, False)


async def test_metrics_are_ours_and_passed_on(tmp_path: Path) -> None:
    tell_parts(tmp_path)
    async with (
        source(lambda: web.Response(text="# TYPE a gauge\na 1")) as first,
        source(lambda: web.Response(text="b 2\n\n")) as second,
        source(lambda: web.Response(status=500, text="broken 1")) as broken,
        agent_of(
            tmp_path, Sources({"x": first, "y": second, "z": broken, "gone": "http://127.0.0.1:1/"})
        ) as client,
        client.get("/metrics") as reply,
    ):
        assert reply.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        text = await reply.text()
    assert text.endswith("# TYPE a gauge\na 1\nb 2\n")
    assert "broken" not in text
    names = set(re.findall(r"^(shoal_\w+)", text, re.MULTILINE))
    assert names == {name for name, series in SERIES.items() if series.by == "agent"}
    assert 'shoal_part_up{part="trainer"} 1.0' in text
    assert 'shoal_part_up{part="ipfs"} 0.0' in text
    assert 'shoal_part_resident_bytes{part="ipfs"}' not in text


async def test_a_source_that_hangs_delays_nobody_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent, "SCRAPE_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as mute:  # the kernel connects, and nobody answers
        url = f"http://127.0.0.1:{mute.getsockname()[1]}/"
        async with agent_of(tmp_path, Sources({"mute": url})) as client, client.get("/metrics") as reply:
            assert reply.status == 200


# -- the daemon


def told(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / EVENTS_FILE).read_text().splitlines()]


@pytest.mark.parametrize(("engine", "dials"), [("kubo", True), ("embedded", False)])
async def test_a_daemon_that_answers_is_told_and_helped_if_it_needs_it(
    tmp_path: Path, engine: Literal["kubo", "embedded"], dials: bool
) -> None:
    neighbour = Neighbour("w2", OTHER, "/ip4/10.77.0.2/tcp/4001")
    settings = replace(settings_in(tmp_path), engine=engine, neighbours=(neighbour,))
    async with fake_daemon() as daemon:
        events = Events(tmp_path / EVENTS_FILE, "w1")
        watch = asyncio.create_task(watch_ipfs(settings, events, IpfsClient(daemon.port)))
        if dials:
            await daemon.wait_called(1, "swarm/connect")
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
        else:
            await watch
            assert daemon.called("swarm/connect", "swarm/peers") == []
    (event,) = told(tmp_path)
    assert (event["kind"], event["engine"], event["peer_id"]) == ("ipfs_ready", engine, ME)


async def test_a_daemon_that_never_answers_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent, "IPFS_READY_S", 0.0)
    events = Events(tmp_path / EVENTS_FILE, "w1")
    await watch_ipfs(settings_in(tmp_path), events, IpfsClient(1))
    (event,) = told(tmp_path)
    assert (event["kind"], event["part"]) == ("failed", "ipfs")
    assert "does not answer after 0 s" in event["message"]


# -- accounts


NET_DEV = """Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     100       1    0    0    0     0          0         0      200       1    0    0    0     0       0          0
  data:12345678901    2    0    0    0     0          0         0 98765432109    3    0    0    0     0       0          0
"""


def test_interfaces_are_counted_by_name() -> None:
    assert interface_bytes(NET_DEV) == {"lo": (100, 200), "data": (12345678901, 98765432109)}
    assert (("data",), 98765432109) in samples(NET_DEV, {})["shoal_interface_sent_bytes_total"]


def test_a_figure_that_is_not_known_stands_nowhere() -> None:
    made = samples(NET_DEV, {"ipfs": Usage(False, 1.5, None, None, 7)})
    assert made["shoal_part_up"] == [(("ipfs",), 0.0)]
    assert made["shoal_part_cpu_seconds_total"] == [(("ipfs",), 1.5)]
    assert made["shoal_part_proportional_bytes"] == []
    assert made["shoal_part_proportional_peak_bytes"] == [(("ipfs",), 7)]


class Proc:
    """A folder that looks like /proc, with one part and a helper that it started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process(10, "(a) part)", utime=100, reaped=50, pss_kb=300, children="11 ")
        self.process(11, "helper", utime=10, reaped=0, pss_kb=20, children="")

    def process(
        self,
        pid: int,
        name: str,
        *,
        utime: int,
        reaped: int,
        pss_kb: int,
        children: str,
        resident_pages: int = 40,
    ) -> None:
        home = self.folder / str(pid)
        (home / "task" / str(pid)).mkdir(parents=True, exist_ok=True)
        (home / "task" / str(pid) / "children").write_text(children)
        before = f"{pid} ({name}) S 1 1 1 0 -1 4194304 0 0 0 0"
        (home / "stat").write_text(f"{before} {utime} 5 {reaped} 1 20 0 1 0 4242 0 0\n")
        (home / "statm").write_text(f"500 {resident_pages} 30 1 0 100 0\n")
        (home / "smaps_rollup").write_text(f"00-ff ---p 0 00:00 0 [rollup]\nRss: 999 kB\nPss: {pss_kb} kB\n")


def test_a_part_is_what_it_started_too(tmp_path: Path) -> None:
    Proc(tmp_path)
    assert tree(10, tmp_path) == [10, 11]
    ticks = os.sysconf("SC_CLK_TCK")
    assert cpu_seconds(10, tmp_path) == (100 + 5 + 50 + 1) / ticks
    assert proportional_bytes(10, tmp_path) == 300 * 1024


def test_a_process_that_is_gone_counts_nothing(tmp_path: Path) -> None:
    assert (tree(9, tmp_path), cpu_seconds(9, tmp_path), proportional_bytes(9, tmp_path)) == ([9], 0, None)


class Alive(ProcessId):
    up = True

    def is_alive(self) -> bool:
        return type(self).up


def test_the_proportional_size_is_read_when_the_cheap_one_has_grown(tmp_path: Path) -> None:
    proc, now = Proc(tmp_path), [100.0]

    class Part(Alive):
        pass

    account = Account(Part(10, 1), proc=tmp_path, clock=lambda: now[0])
    assert account.usage().proportional_bytes == 320 * 1024
    proc.process(10, "part", utime=0, reaped=0, pss_kb=80, children="11", resident_pages=2000)
    now[0] += 1.9  # too soon, be it grown
    again = account.usage()
    assert again.proportional_bytes == 320 * 1024
    assert again.cpu_seconds == pytest.approx((156 + 16) / os.sysconf("SC_CLK_TCK"))  # a counter never falls
    now[0] += 0.2
    later = account.usage()
    assert (later.proportional_bytes, later.proportional_peak_bytes) == (100 * 1024, 320 * 1024)
    proc.process(10, "part", utime=0, reaped=0, pss_kb=70, children="11", resident_pages=2020)
    now[0] += 29  # by one part in a hundred: no new peak
    assert account.usage().proportional_bytes == 100 * 1024
    now[0] += 2
    assert account.usage().proportional_bytes == 90 * 1024
    Part.up = False
    assert account.usage() == Usage(False, later.cpu_seconds, None, None, 320 * 1024)


def test_one_alone_is_without_what_it_started(tmp_path: Path) -> None:
    Proc(tmp_path)
    usage = Account(Alive(10, 1), alone=True, proc=tmp_path).usage()
    assert usage.proportional_bytes == 300 * 1024
    assert usage.cpu_seconds == (100 + 5) / os.sysconf("SC_CLK_TCK")  # nor what has ended and was reaped
