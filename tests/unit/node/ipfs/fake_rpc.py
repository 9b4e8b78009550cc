"""A daemon's RPC as far as the client uses it, and strict: it refuses whatever is not in the table."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from node.ipfs.cid import DAG_CBOR, RAW, Cid, FileHasher
from node.ipfs.client import multibase
from node.ipfs.commands import COMMANDS, COMMON

ME = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"
OTHER = "12D3KooWNZMBWpVK7k5eWUbHszzBvCBfsdLdaJNjvcnfmeNmUFG7"

Cat = Callable[[web.Request, web.StreamResponse, bytes], Awaitable[None]]


class RefusalError(Exception):
    """What the daemon answers as its error."""


class FakeDaemon:
    """Files, pins and peers in memory. `cats` are the manners of the next cats, one for each."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.pins: set[str] = set()
        self.connected: set[str] = set()
        self.forwards: list[dict[str, str]] = []
        self.calls: list[tuple[str, list[str], dict[str, str]]] = []
        self.violations: list[str] = []
        self.cats: list[Cat] = []
        self.received_bytes = 0
        self.overrides: dict[str, Callable[[web.Request], Awaitable[web.StreamResponse]]] = {}
        self.published: list[tuple[str, bytes]] = []
        self.port = 0
        self._news = asyncio.Event()

    def add(self, data: bytes) -> str:
        hasher = FileHasher()
        hasher.update(data)
        self.files[str(hasher.cid())] = data
        return str(hasher.cid())

    async def wait_called(self, count: int, command: str, timeout_s: float = 20.0) -> None:
        async with asyncio.timeout(timeout_s):
            while len(self.called(command)) < count:
                self._news.clear()
                await self._news.wait()

    def called(self, *commands: str) -> list[str]:
        """The commands among these that were called, in order."""
        return [command for command, _, _ in self.calls if command in commands]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/debug/metrics/prometheus" and request.method == "GET":
            return web.Response(text='# HELP x\na{l="1"} 2\na{l="2"} 3\nb 1.5e3\n')
        command = request.path.removeprefix("/api/v0/")
        args = request.query.getall("arg", [])
        options = {name: value for name, value in request.query.items() if name != "arg"}
        self.calls.append((command, args, options))
        self._news.set()
        self._judge(request, command, options)
        if self.violations:
            return web.Response(status=400, text=self.violations[-1])
        if command in self.overrides:
            return await self.overrides[command](request)
        if command == "cat":
            return await self._cat(request, args[0], int(options.get("offset", 0)))
        if command == "pubsub/sub":
            return await self._subscribe(request, args[0])
        try:
            reply = getattr(self, "_" + command.replace("/", "_"))
            value = await reply(request, args, options)
        except RefusalError as refusal:
            return web.json_response({"Message": str(refusal), "Code": 0, "Type": "error"}, status=500)
        if isinstance(value, bytes):
            return web.Response(body=value)
        lines = value if isinstance(value, list) else [value]
        return web.Response(text="".join(json.dumps(line) + "\n" for line in lines))

    def _judge(self, request: web.Request, command: str, options: dict[str, str]) -> None:
        if request.method != "POST":
            self.violations.append(f"{request.method} {request.path}")
        if command not in COMMANDS:
            self.violations.append(f"unknown command {command}")
        elif unknown := set(options) - COMMANDS[command] - COMMON:
            self.violations.append(f"{command}: unknown options {unknown}")
        timeout = options.get("timeout", "none" if command == "pubsub/sub" else "")
        if not re.fullmatch(r"[0-9]+ms|none", timeout):
            self.violations.append(f"{command}: timeout {timeout!r} is no duration")
        names = [name for name in request.query if name != "arg"]
        if len(names) != len(set(names)):
            self.violations.append(f"{command}: an option is given twice: {names}")

    async def _cat(self, request: web.Request, cid: str, offset: int) -> web.StreamResponse:
        if cid not in self.files:
            await asyncio.Event().wait()
        data = self.files[cid][offset:]
        response = web.StreamResponse(
            headers={"X-Content-Length": str(len(data)), "Trailer": "X-Stream-Error"}
        )
        response.content_type = "text/plain"
        manners = self.cats.pop(0) if self.cats else whole
        await manners(request, response, data)
        return response

    async def _subscribe(self, request: web.Request, topic: str) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for number in range(2):
            row = {
                "from": OTHER,
                "data": multibase(b"message %d" % number),
                "seqno": multibase(bytes([number])),
            }
            line = json.dumps({**row, "topicIDs": [topic]}).encode() + b"\n"
            await response.write(line[:10])
            await response.write(line[10:])
        await asyncio.Event().wait()
        return response

    async def _version(self, request: web.Request, args: list[str], options: dict[str, str]) -> Any:
        return {"Version": "0.43.1"}

    async def _id(self, request: web.Request, args: list[str], options: dict[str, str]) -> Any:
        return {"ID": ME}

    async def _ping(self, request: web.Request, args: list[str], options: dict[str, str]) -> Any:
        if args[0] not in self.connected:
            raise RefusalError("peer lookup failed: routing: not found")
        rows: list[dict[str, Any]] = [{"Success": True, "Text": f"PING {args[0]}.", "Time": 0}]
        return [
            *rows,
            {"Success": True, "Text": "", "Time": 2_500_000},
            {"Success": True, "Text": "Average", "Time": 0},
        ]

    async def _shutdown(self, request: web.Request, args: list[str], options: dict[str, str]) -> Any:
        return b""

    async def _body(self, request: web.Request) -> bytes:
        part = await (await request.multipart()).next()
        return bytes(await part.read()) if part is not None else b""  # type: ignore[union-attr]

    async def _add(self, request: web.Request, args: list[str], options: dict[str, str]) -> Any:
        wanted = {
            "cid-version": "1",
            "raw-leaves": "true",
            "chunker": "size-1048576",
            "max-file-links": "1024",
        }
        if {name: options.get(name) for name in wanted} != wanted:
            self.violations.append(f"add with {options}")
        cid = self.add(await self._body(request))
        if options["pin"] == "true":
            self.pins.add(cid)
        return {"Name": cid, "Hash": cid, "Size": str(len(self.files[cid]))}

    async def _block_put(self, request: web.Request, args: list[str], options: dict[str, str]) -> Any:
        data = await self._body(request)
        cid = str(Cid.of_block(RAW, data))
        self.files[cid] = data
        return {"Key": cid, "Size": len(data)}

    async def _block_get(self, request: web.Request, args: list[str], options: dict[str, str]) -> Any:
        return self.files[args[0]]

    async def _block_stat(self, request: web.Request, args: list[str], options: dict[str, str]) -> Any:
        if args[0] not in self.files:
            raise RefusalError(f"block was not found locally (offline): ipld: could not find {args[0]}")
        return {"Key": args[0], "Size": len(self.files[args[0]])}

    async def _block_rm(self, request: web.Request, args: list[str], options: dict[str, str]) -> Any:
        if args[0] in self.pins:
            return {"Hash": args[0], "Error": "pinned: recursive"}
        del self.files[args[0]]
        return {"Hash": args[0]}

    async def _dag_put(self, request: web.Request, args: list[str], options: dict[str, str]) -> Any:
        if (options["store-codec"], options["input-codec"]) != ("dag-cbor", "dag-json"):
            self.violations.append(f"dag/put with {options}")
        return {"Cid": {"/": str(Cid.of_block(DAG_CBOR, await self._body(request)))}}

    async def _dag_get(self, request: web.Request, args: list[str], options: dict[str, str]) -> Any:
        return {"round": 3}

    async def _pin_add(self, request: web.Request, args: list[str], options: dict[str, str]) -> Any:
        self.pins.update(args)
        return {"Pins": args}

    async def _pin_rm(self, request: web.Request, args: list[str], options: dict[str, str]) -> Any:
        if args[0] not in self.pins:
            raise RefusalError("not pinned or pinned indirectly")
        self.pins.discard(args[0])
        return {"Pins": args}

    async def _pin_ls(self, request: web.Request, args: list[str], options: dict[str, str]) -> Any:
        return {"Keys": {cid: {"Type": "recursive"} for cid in self.pins}} if self.pins else {}

    async def _repo_stat(self, request: web.Request, args: list[str], options: dict[str, str]) -> Any:
        return {"RepoSize": sum(map(len, self.files.values())), "NumObjects": len(self.files)}

    async def _repo_gc(self, request: web.Request, args: list[str], options: dict[str, str]) -> Any:
        gone = sorted(set(self.files) - self.pins)
        self.files = {cid: data for cid, data in self.files.items() if cid in self.pins}
        return [{"Key": {"/": cid}} for cid in gone]

    async def _swarm_connect(self, request: web.Request, args: list[str], options: dict[str, str]) -> Any:
        peer_id = args[0].split("/p2p/")[1]
        self.connected.add(peer_id)
        return {"Strings": [f"connect {peer_id} success"]}

    async def _swarm_disconnect(self, request: web.Request, args: list[str], options: dict[str, str]) -> Any:
        peer_id = args[0].removeprefix("/p2p/")
        word = "success" if peer_id in self.connected else "failure: not connected"
        self.connected.discard(peer_id)
        return {"Strings": [f"disconnect {peer_id} {word}"]}

    async def _swarm_peers(self, request: web.Request, args: list[str], options: dict[str, str]) -> Any:
        rows = [{"Addr": "/ip4/10.77.0.2/tcp/4001", "Peer": peer_id} for peer_id in self.connected]
        return {"Peers": rows * 2 or None}  # two connections to each

    async def _swarm_peering_add(self, request: web.Request, args: list[str], options: dict[str, str]) -> Any:
        return {"ID": args[0].split("/p2p/")[1], "Status": "success"}

    async def _p2p_listen(self, request: web.Request, args: list[str], options: dict[str, str]) -> Any:
        if args[1].endswith("/tcp/0"):
            raise RefusalError("port can not be 0")
        return b""

    async def _p2p_forward(self, request: web.Request, args: list[str], options: dict[str, str]) -> Any:
        listen = f"/ip4/127.0.0.1/tcp/{40000 + len(self.forwards)}"
        self.forwards.append({"Protocol": args[0], "ListenAddress": listen, "TargetAddress": args[2]})
        return b""

    async def _p2p_ls(self, request: web.Request, args: list[str], options: dict[str, str]) -> Any:
        listener = {"Protocol": "/x/a/1", "ListenAddress": f"/p2p/{ME}", "TargetAddress": f"/p2p/{OTHER}"}
        return {"Listeners": [*self.forwards, listener]}

    async def _p2p_close(self, request: web.Request, args: list[str], options: dict[str, str]) -> Any:
        return sum(row["Protocol"] == options["protocol"] for row in self.forwards)

    async def _bitswap_stat(self, request: web.Request, args: list[str], options: dict[str, str]) -> Any:
        return {"DataReceived": self.received_bytes, "DupDataReceived": 0}

    async def _stats_bw(self, request: web.Request, args: list[str], options: dict[str, str]) -> Any:
        return {"TotalIn": self.received_bytes, "TotalOut": 0, "RateIn": 0.5, "RateOut": 0.0}

    async def _key_sign(self, request: web.Request, args: list[str], options: dict[str, str]) -> Any:
        return {"Key": {"Name": "self"}, "Signature": multibase(b"signed " + await self._body(request))}

    async def _key_verify(self, request: web.Request, args: list[str], options: dict[str, str]) -> Any:
        right = multibase(b"signed " + await self._body(request))
        return {"SignatureValid": options["signature"] == right and options["key"] == ME}

    async def _pubsub_pub(self, request: web.Request, args: list[str], options: dict[str, str]) -> Any:
        self.published.append((args[0], await self._body(request)))
        return b""

    async def _pubsub_ls(self, request: web.Request, args: list[str], options: dict[str, str]) -> Any:
        return {"Strings": [multibase(b"rounds")]}

    async def _pubsub_peers(self, request: web.Request, args: list[str], options: dict[str, str]) -> Any:
        return {"Strings": None}


async def whole(request: web.Request, response: web.StreamResponse, data: bytes) -> None:
    """A cat as it should be, in pieces."""
    await response.prepare(request)
    for start in range(0, len(data), 100_000):
        await response.write(data[start : start + 100_000])


def cut(count: int) -> Cat:
    """A cat that ends after `count` bytes, the error in a trailer that nobody sees."""

    async def manners(request: web.Request, response: web.StreamResponse, data: bytes) -> None:
        await response.prepare(request)
        await response.write(data[:count])

    return manners


def stuck(count: int) -> Cat:
    """A cat that sends `count` bytes and then nothing more, not even the header for 0."""

    async def manners(request: web.Request, response: web.StreamResponse, data: bytes) -> None:
        if count:
            await response.prepare(request)
            await response.write(data[:count])
        await asyncio.Event().wait()

    return manners


def changed(request: web.Request, response: web.StreamResponse, data: bytes) -> Awaitable[None]:
    """A cat that lies in its last byte."""
    return whole(request, response, data[:-1] + bytes([data[-1] ^ 1]))


@asynccontextmanager
async def fake_daemon() -> AsyncIterator[FakeDaemon]:
    """A fake at work; what it had to refuse fails the test."""
    fake = FakeDaemon()
    app = web.Application(client_max_size=1 << 30)
    app.router.add_route("*", "/{tail:.*}", fake.handle)
    runner = web.AppRunner(app, shutdown_timeout=0, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    fake.port = runner.addresses[0][1]
    try:
        yield fake
    finally:
        await runner.cleanup()
    assert fake.violations == []
