"""The client of one IPFS daemon: what the rest of Shoal calls."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final

from node.ipfs.cid import CHUNK_BYTES, DAG_CBOR, MAX_BLOCK_BYTES, MAX_LINKS, RAW, Cid, FileHasher
from node.ipfs.config import LOOPBACK, Peer
from node.ipfs.errors import IpfsError, UnverifiedError
from node.ipfs.fetch import AT_ONCE, STALL_S, TIMEOUT_S, Fetcher, Wanted
from node.ipfs.library import Library
from node.ipfs.rpc import Rpc

CALL_S: Final = 30.0
ADD_OPTIONS: Final = {
    "cid-version": 1,
    "raw-leaves": "true",
    "chunker": f"size-{CHUNK_BYTES}",
    "max-file-links": MAX_LINKS,
}


@dataclass(frozen=True)
class Message:
    """One pubsub message."""

    sender: str
    data: bytes
    sequence: str


class Client:
    """Every call is bounded, and checked against the table in commands.py."""

    def __init__(self, api_port: int = 5001, host: str = LOOPBACK) -> None:
        self._rpc = Rpc(api_port, host)
        self._library = Library(host, api_port)
        self._fetcher = Fetcher(self._rpc)
        self._forwarding = asyncio.Lock()
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Client:
        await self._open.enter_async_context(self._rpc)
        self._open.callback(self._library.close)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._open.aclose()

    # -- the node
    async def version(self) -> str:
        return str(
            (await self._library.call("version", lambda c, **o: c.version(**o), timeout_s=CALL_S))["Version"]
        )

    async def peer_id(self) -> str:
        return str((await self._library.call("id", lambda c, **o: c.id(**o), timeout_s=CALL_S))["ID"])

    async def ping(self, peer_id: str, timeout_s: float = 5.0) -> float:
        """Round trip in seconds; the first and last rows of a ping have Time 0 and mean nothing."""
        rows = await self._rpc.call("ping", peer_id, count=1, timeout_s=timeout_s)
        times = [row["Time"] for row in rows if row.get("Success") and row.get("Time", 0) > 0]
        if not times:
            raise IpfsError(f"ping {peer_id}: no echo: {[row.get('Text') for row in rows]}")
        return float(times[0]) / 1e9

    async def shutdown(self) -> None:
        await self._rpc.call("shutdown")

    # -- content
    async def add(self, data: bytes, *, pin: bool = False, timeout_s: float = TIMEOUT_S) -> str:
        """Store a file; its CID, which must be the one that we compute ourselves."""
        options = {**ADD_OPTIONS, "pin": str(pin).lower()}
        cid = await self._library.call(
            "add", lambda c, **o: c.add_bytes(data, opts=options, **o), timeout_s=timeout_s
        )
        hasher = FileHasher()
        await asyncio.to_thread(hasher.update, data)
        if cid != str(hasher.cid()):
            raise UnverifiedError(f"add: the daemon calls the file {cid}, it is {hasher.cid()}")
        return str(cid)

    async def fetch(
        self,
        cid: str,
        *,
        max_bytes: int,
        size_bytes: int | None = None,
        provider: Peer | None = None,
        stall_s: float = STALL_S,
        timeout_s: float = TIMEOUT_S,
    ) -> bytes:
        """A file from whoever has it, verified; see Fetcher."""
        return await self._fetcher.fetch(Wanted(cid, max_bytes, size_bytes, provider), stall_s, timeout_s)

    async def fetch_all(
        self,
        wanted: Sequence[Wanted],
        *,
        stall_s: float = STALL_S,
        timeout_s: float = TIMEOUT_S,
        at_once: int = AT_ONCE,
    ) -> list[bytes]:
        return await self._fetcher.fetch_all(wanted, stall_s, timeout_s, at_once)

    async def fetch_block(self, cid: str, *, timeout_s: float = CALL_S) -> bytes:
        return await self._fetcher.fetch_block(cid, timeout_s)

    async def put_block(self, data: bytes) -> str:
        """Store one raw block."""
        if len(data) > MAX_BLOCK_BYTES:
            raise IpfsError(
                f"a block of {len(data)} bytes; at most {MAX_BLOCK_BYTES} travel", "add it as a file"
            )
        put = await self._library.call(
            "block/put", lambda c, **o: c.block.put(io.BytesIO(data), **o), timeout_s=CALL_S
        )
        if put["Key"] != str(Cid.of_block(RAW, data)):
            raise UnverifiedError(f"block/put: the daemon calls the block {put['Key']}")
        return str(put["Key"])

    async def has_block(self, cid: str) -> bool:
        """Whether the block is stored here; asks nobody else."""
        try:
            await self._rpc.value("block/stat", cid, offline=True)
        except IpfsError as err:
            if "not find" in err.message or "not found" in err.message:
                return False
            raise
        return True

    async def remove_block(self, cid: str) -> None:
        row = await self._rpc.value("block/rm", cid)
        if row.get("Error"):  # Kubo says it with status 200
            raise IpfsError(f"block/rm: {row['Error']}")

    async def put_node(self, dag_json: bytes, *, pin: bool = False) -> str:
        """Store a DAG-CBOR node given as DAG-JSON."""
        options: dict[str, Any] = {"store_codec": "dag-cbor", "input_codec": "dag-json", "pin": pin}
        put = await self._rpc.value("dag/put", body=dag_json, timeout_s=CALL_S, **options)
        cid = str(put["Cid"]["/"])
        if Cid.parse(cid).codec != DAG_CBOR:
            raise UnverifiedError(f"dag/put: {cid} is no DAG-CBOR node")
        return cid

    async def get_node(self, path: str, *, timeout_s: float = CALL_S) -> Any:
        """A node, or a value in it, as DAG-JSON; for a check by hash fetch its block."""
        return await self._rpc.value("dag/get", path, timeout_s=timeout_s)

    # -- keeping
    async def pin(self, cid: str, *, recursive: bool = True, timeout_s: float = TIMEOUT_S) -> None:
        """Keep an object; all that it links to is fetched and kept as well, unless not `recursive`."""
        await self._library.call(
            "pin/add", lambda c, **o: c.pin.add(cid, recursive=recursive, **o), timeout_s=timeout_s
        )

    async def unpin(self, cid: str) -> None:
        await self._library.call("pin/rm", lambda c, **o: c.pin.rm(cid, **o), timeout_s=CALL_S)

    async def pins(self) -> set[str]:
        listed = await self._library.call(
            "pin/ls", lambda c, **o: c.pin.ls(type="recursive", **o), timeout_s=CALL_S
        )
        return set(listed.as_json().get("Keys", {}))  # with nothing to show Kubo leaves Keys out

    async def repository(self, *, timeout_s: float = CALL_S) -> dict[str, Any]:
        return dict(await self._rpc.value("repo/stat", timeout_s=timeout_s))

    async def collect_garbage(self, *, timeout_s: float = TIMEOUT_S) -> list[str]:
        """Remove what is not pinned; the blocks removed, as raw CIDs."""
        rows = await self._library.call("repo/gc", lambda c, **o: c.repo.gc(**o), timeout_s=timeout_s)
        values = [row.as_json() for row in rows or []]
        for value in values:
            if value.get("Error"):
                raise IpfsError(f"repo/gc: {value['Error']}")
        return [value["Key"]["/"] for value in values]

    # -- swarm
    async def peers(self) -> set[str]:
        """Who is connected; a peer with two connections counts once."""
        listed = await self._library.call("swarm/peers", lambda c, **o: c.swarm.peers(**o), timeout_s=CALL_S)
        return {row["Peer"] for row in listed.as_json()["Peers"] or []}

    async def connect(self, peer: Peer, *, timeout_s: float = 10.0) -> None:
        """Connect; one right address, since the daemon remembers and dials all that it is told."""
        await self._rpc.value("swarm/connect", peer.full_address, timeout_s=timeout_s)

    async def disconnect(self, peer_id: str) -> bool:
        """Close all connections to a peer; False when there was none."""
        answer = await self._rpc.value("swarm/disconnect", f"/p2p/{peer_id}")
        return not any("failure" in line for line in answer["Strings"])

    async def keep_connected(self, peer: Peer) -> None:
        """Let the daemon redial this peer from now on, until it restarts."""
        await self._rpc.value("swarm/peering/add", peer.full_address)

    # -- tunnels; a restarted daemon has forgotten them
    async def listen(self, protocol: str, target_port: int, *, report_peer_id: bool = True) -> None:
        """Hand connections for `protocol` (/x/…) to a port of ours; see asker.py for the first line."""
        target = f"/ip4/{LOOPBACK}/tcp/{target_port}"
        await self._rpc.call("p2p/listen", protocol, target, report_peer_id=report_peer_id)

    async def forward(self, protocol: str, peer_id: str) -> int:
        """A local port whose connections come out at the peer; a dead peer shows only in use."""
        async with self._forwarding:  # which port is new can only be told one at a time
            before = await self._forwards(protocol, peer_id)
            await self._rpc.call("p2p/forward", protocol, f"/ip4/{LOOPBACK}/tcp/0", f"/p2p/{peer_id}")
            new = await self._forwards(protocol, peer_id) - before
        if len(new) != 1:
            raise IpfsError(f"p2p/forward {protocol}: expected one new port, found {sorted(new)}")
        return new.pop()

    async def _forwards(self, protocol: str, peer_id: str) -> set[int]:
        rows = (await self._rpc.value("p2p/ls"))["Listeners"] or []
        wanted = (protocol, f"/p2p/{peer_id}")
        return {
            int(row["ListenAddress"].split("/tcp/")[1].split("/")[0])
            for row in rows
            if (row["Protocol"], row["TargetAddress"]) == wanted and "/tcp/" in row["ListenAddress"]
        }

    async def close_tunnels(self, protocol: str) -> int:
        """Close listeners and forwards of a protocol; how many there were."""
        return int(await self._rpc.value("p2p/close", protocol=protocol))

    # -- counters
    async def bitswap(self) -> dict[str, Any]:
        stat = await self._library.call("bitswap/stat", lambda c, **o: c.bitswap.stat(**o), timeout_s=CALL_S)
        return dict(stat.as_json())

    async def bandwidth(
        self, *, protocol: str | None = None, peer_id: str | None = None, timeout_s: float = CALL_S
    ) -> dict[str, float]:
        """Totals and rates; they lag by a second. By protocol, or by peer, or of all."""
        which = {"proto": protocol, "peer": peer_id}
        options: dict[str, Any] = {name: value for name, value in which.items() if value is not None}
        if len(options) > 1:
            raise IpfsError("stats/bw is by protocol or by peer, not by both")
        return dict(await self._rpc.value("stats/bw", timeout_s=timeout_s, **options))

    async def metrics(self) -> dict[str, float]:
        """Prometheus samples by name, summed over their labels."""
        totals: dict[str, float] = {}
        for line in (await self._rpc.get("/debug/metrics/prometheus")).decode().splitlines():
            if line and not line.startswith("#"):
                name = line.split("{")[0].split(" ")[0]
                totals[name] = totals.get(name, 0.0) + float(line.rsplit(" ", 1)[1])
        return totals

    # -- keys
    async def sign(self, data: bytes) -> str:
        """Sign with the daemon's identity; Ed25519 in multibase."""
        return str((await self._rpc.value("key/sign", body=data))["Signature"])

    async def verify(self, data: bytes, signature: str, peer_id: str) -> bool:
        answer = await self._rpc.value("key/verify", body=data, key=peer_id, signature=signature)
        return bool(answer["SignatureValid"])

    # -- messages
    async def publish(self, topic: str, data: bytes) -> None:
        await self._rpc.call("pubsub/pub", multibase(topic.encode()), body=data)

    async def subscribe(self, topic: str) -> AsyncIterator[Message]:
        """Messages as they come. Close it before the daemon stops: Kubo waits 30 s for subscribers."""
        async for row in self._rpc.lines("pubsub/sub", multibase(topic.encode())):
            yield Message(row["from"], from_multibase(row["data"]), row["seqno"])

    async def topics(self) -> set[str]:
        answer = await self._rpc.value("pubsub/ls")
        return {from_multibase(text).decode(errors="replace") for text in answer["Strings"] or []}

    async def subscribers(self, topic: str) -> set[str]:
        answer = await self._rpc.value("pubsub/peers", multibase(topic.encode()))
        return set(answer["Strings"] or [])


def multibase(data: bytes) -> str:
    return "u" + base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def from_multibase(text: str) -> bytes:
    if not text.startswith("u"):
        raise UnverifiedError(f"expected multibase base64url (u…), got {text[:60]!r}")
    return base64.urlsafe_b64decode(text[1:] + "=" * (-len(text[1:]) % 4))
