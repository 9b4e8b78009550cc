"""The agent of a node: its HTTP on the control network, and the dialler that some daemons need.

GET /health            what became of each part             token
GET /answers           whether the other parts answer on loopback: spoke, silent, refused           token
GET /events?from=BYTES  lines of the node's events, held open until there are some; X-Next-Offset   token
GET /metrics           the node's series, its roles' and its IPFS daemon's
PUT /release           {"round": N}: the aggregator may open rounds up to N                         token
PUT /faults            which faults are in force, for the metrics                                   token
and what node/links/routes.py answers for the node's links                                          token
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web

from node.accounts import Account
from node.answers import answers
from node.contract import HostError, ShoalError, UsageError
from node.contract.settings import AGENT_PORT, EVENTS_FILE, IPFS_PORT, NodeSettings
from node.events import Events, read_from
from node.exposition import exposed
from node.instructions import Instructions
from node.ipfs.client import Client
from node.ipfs.config import LOOPBACK, Peer
from node.ipfs.dialler import Dialler
from node.ipfs.engine import EMBEDDED, KUBO
from node.ipfs_series import IpfsSeries
from node.links.routes import MAX_BODY_BYTES
from node.links.service import LinkService
from node.metrics import role_port
from node.node_series import samples
from node.process import ProcessId
from node.role import wait_ipfs

IPFS_READY_S: Final = 60.0  # of containers the agents are there first, and then one daemon after the other
LONG_POLL_S: Final = 10.0
# How often a question for events looks whether other processes have appended some; what comes in between is
# told together, which costs a fraction. Trainers tell for the record; upon what aggregators tell others act.
LOOK_S: Final = 0.5
LOOK_SOON_S: Final = 0.1
SCRAPE_S: Final = 0.8  # less than Prometheus gives us
MAX_SCRAPE_BYTES: Final = 8 << 20
PLAIN: Final = {"Accept": "text/plain", "Accept-Encoding": "identity"}  # compressing costs more than loopback
OPEN_PATHS: Final = frozenset({"/metrics"})

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Sources:
    """Whose series are passed on: a name and the URL, for each."""

    urls: Mapping[str, str]

    @staticmethod
    def of(settings: NodeSettings) -> Sources:
        urls = {"ipfs": f"http://{LOOPBACK}:{IPFS_PORT}/debug/metrics/prometheus"}
        for role in settings.roles:
            urls[role] = f"http://{LOOPBACK}:{role_port(settings.roles, role)}/metrics"
        return Sources(urls)

    def ports(self) -> dict[str, int]:
        return {name: urlsplit(url).port or 0 for name, url in self.urls.items()}


class Parts:
    """What the node's events say of its parts."""

    def __init__(self, events: Path) -> None:
        self._events = events
        self._offset = 0
        self.accounts: dict[str, Account] = {}
        self._seen: dict[str, dict[str, Any]] = {}

    def read(self) -> None:
        """Catch up with the events."""
        while True:
            lines, self._offset = read_from(self._events, self._offset)
            if not lines:
                return
            for line in lines.splitlines():
                self._take(json.loads(line))

    def _take(self, event: Mapping[str, Any]) -> None:
        if event["kind"] == "part_started":
            process = ProcessId(event["pid"], event["start_ticks"])
            self.accounts[event["part"]] = Account(process)
            self._seen[event["part"]] = {"pid": process.pid, "start_ticks": process.start_ticks}
        elif event["kind"] == "part_ended":
            ended = {"status": event["status"], "expected": event["expected"]}
            self._seen.setdefault(event["part"], {}).update(ended)

    def health(self) -> dict[str, dict[str, Any]]:
        return {
            part: {**seen, "is_up": part in self.accounts and self.accounts[part].is_up()}
            for part, seen in self._seen.items()
        }


class Agent:
    """The HTTP of one node; `stop` ends what is held open."""

    def __init__(
        self,
        settings: NodeSettings,
        token: str,
        sources: Sources,
        stop: asyncio.Event,
        links: LinkService | None = None,
        ipfs: IpfsSeries | None = None,
    ) -> None:
        self._links = links
        self._ipfs = ipfs
        self._events = Path(settings.folder) / EVENTS_FILE
        self._token = token.encode()
        self._sources = sources
        self._stop = stop
        self._look_s = LOOK_SOON_S if "aggregator" in settings.roles else LOOK_S
        self._parts = Parts(self._events)
        self._instructions = Instructions(Path(settings.folder))
        self._supervisor = Account(ProcessId.of(os.getppid()), alone=True)
        self._session: aiohttp.ClientSession | None = None

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._guard], client_max_size=MAX_BODY_BYTES)
        if self._links is not None:
            self._links.routes.add_to(app.router)
        app.router.add_get("/health", self._health)
        app.router.add_get("/answers", self._answers)
        app.router.add_get("/events", self._get_events)
        app.router.add_get("/metrics", self._metrics)
        self._instructions.add_to(app.router)
        app.cleanup_ctx.append(self._client_session)
        return app

    async def _client_session(self, _: web.Application) -> AsyncIterator[None]:
        timeout = aiohttp.ClientTimeout(total=SCRAPE_S)
        async with aiohttp.ClientSession(timeout=timeout, trust_env=False) as self._session:
            yield

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if "Origin" in request.headers:
            raise web.HTTPForbidden(text="no browser page may ask this\n")
        if request.path not in OPEN_PATHS:
            given = request.headers.get("Authorization", "").removeprefix("Bearer ")
            if not hmac.compare_digest(given.encode(), self._token):
                raise web.HTTPUnauthorized(text="the run's token is needed: Authorization: Bearer TOKEN\n")
        return await handler(request)

    async def _health(self, _: web.Request) -> web.Response:
        self._parts.read()
        return web.json_response({"parts": self._parts.health()})

    async def _answers(self, _: web.Request) -> web.Response:
        return web.json_response(await answers(self._sources.ports()))

    async def _get_events(self, request: web.Request) -> web.Response:
        text = request.query.get("from", "0")
        if not (text.isascii() and text.isdigit()):
            raise web.HTTPBadRequest(text="from must be a number of bytes\n")
        deadline = time.monotonic() + LONG_POLL_S
        lines, offset = read_from(self._events, int(text))
        while lines or time.monotonic() < deadline:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), self._look_s)
            more, offset = read_from(self._events, offset)
            lines += more
            if lines or self._stop.is_set():
                break
        return web.Response(
            body=lines, content_type="application/x-ndjson", headers={"X-Next-Offset": str(offset)}
        )

    async def _metrics(self, _: web.Request) -> web.Response:
        self._parts.read()
        usages = {part: account.usage() for part, account in self._parts.accounts.items()}
        usages["supervisor"] = self._supervisor.usage()
        interfaces = await asyncio.to_thread(Path("/proc/thread-self/net/dev").read_text)
        asked, *passed_on = await asyncio.gather(
            self._ask_ipfs(), *(self._scrape(url) for url in self._sources.urls.values())
        )
        links = self._links.text() if self._links is not None else b""
        told = links + self._instructions.text()
        body = exposed(samples(interfaces, usages)) + told + asked + b"".join(passed_on)
        return web.Response(body=body, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    async def _ask_ipfs(self) -> bytes:
        return await self._ipfs.text() if self._ipfs is not None else b""

    async def _scrape(self, url: str) -> bytes:
        """Somebody else's series; nothing when they do not answer, which shoal_part_up explains."""
        assert self._session is not None
        try:
            async with self._session.get(url, headers=PLAIN) as reply:
                body = await reply.content.read(MAX_SCRAPE_BYTES)
                while len(body) < MAX_SCRAPE_BYTES and (piece := await reply.content.read(1 << 16)):
                    body += piece
        except (aiohttp.ClientError, OSError, TimeoutError):
            return b""
        return body.rstrip(b"\n") + b"\n" if reply.status == 200 and body else b""


async def serve(settings: NodeSettings, stop: asyncio.Event, links: LinkService | None = None) -> None:
    """Answer on the control network until told to stop."""
    token = _token(settings.token_file)
    events = Events(Path(settings.folder) / EVENTS_FILE, settings.name)
    async with AsyncExitStack() as open_things:
        ipfs = None
        if settings.engine_path:
            ipfs = IpfsSeries(await open_things.enter_async_context(Client()))
        agent = Agent(settings, token, Sources.of(settings), stop, links, ipfs)
        runner = web.AppRunner(agent.app(), access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        open_things.push_async_callback(runner.cleanup)
        try:
            await web.TCPSite(runner, settings.ctl_address, AGENT_PORT).start()
        except OSError as error:
            raise HostError(
                f"the agent cannot listen on {settings.ctl_address}:{AGENT_PORT}: {error.strerror}",
                "is that address this node's, and nothing else on the port?",
            ) from error
        watch = asyncio.create_task(watch_ipfs(settings, events, Client()))
        watching = asyncio.create_task(links.watch.run() if links is not None else stop.wait())
        stopped = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait((watching, stopped), return_when=asyncio.FIRST_COMPLETED)
            if watching.done():
                watching.result()  # links that nobody watches any more are not for silence
        finally:
            for task in (watch, watching, stopped):
                task.cancel()
            await asyncio.gather(watch, watching, stopped, return_exceptions=True)


async def watch_ipfs(settings: NodeSettings, events: Events, client: Client) -> None:
    """Tell when the daemon answers, then keep it connected if it does not do so by itself."""
    if not settings.engine_path:  # a fleet without daemons, whose links are measured
        return
    async with client:
        try:
            peer_id = await wait_ipfs(client, IPFS_READY_S)
            version = await client.version()
        except ShoalError as error:
            events.write("failed", part="ipfs", message=error.message, hint=error.hint)
            return
        events.write("ipfs_ready", engine=settings.engine, version=version, peer_id=peer_id)
        capabilities = KUBO if settings.engine == "kubo" else EMBEDDED
        if capabilities.needs_dialler:
            await Dialler(client, [Peer(n.peer_id, n.address) for n in settings.neighbours]).run()


def run(settings: NodeSettings, ready: Callable[[], None] = lambda: None) -> int:
    """The part `agent`: from a freshly forked process to its end by SIGTERM.

    Ready is when the node's links are in force; before the event loop, since the holder is forked here.
    """
    parts = LinkService(settings, Events(Path(settings.folder) / EVENTS_FILE, settings.name))
    parts.resume(settings.links)
    ready()

    async def until_told() -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        await serve(settings, stop, parts)

    try:
        asyncio.run(until_told())
    finally:
        parts.links.close()
    return 0


def _token(file: str) -> str:
    try:
        token = Path(file).read_text().strip()
    except OSError as error:
        raise UsageError(f"cannot read the token file {file}: {error.strerror}") from error
    if not token:
        raise UsageError(f"{file}: the token is empty", "write some random words into it")
    return token
