"""An IPFS daemon's objects in memory, strict, and killable between any two steps."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from node.ipfs.cid import DAG_CBOR, Cid, FileHasher
from node.ipfs.config import Peer
from node.ipfs.errors import IpfsError, IpfsTimeoutError, TooLargeError, UnverifiedError


class KilledError(BaseException):
    """The aggregator's process is gone; no handler of its own may see that."""


class Killer:
    """Counts steps and raises at the one named, and from then on at each, until it is revived."""

    def __init__(self, at: int | None = None) -> None:
        self.at = at
        self.steps = 0
        self.dead = False

    def step(self) -> None:
        self.steps += 1
        if self.dead or self.steps == self.at:
            self.dead = True
            raise KilledError

    @contextmanager
    def disk(self) -> Iterator[None]:
        """Count what is made durable on disk, too, before and after it is."""
        originals: dict[str, Any] = {"fsync": os.fsync, "replace": os.replace, "write": os.write}

        def counted(name: str) -> Any:
            def call(*arguments: Any) -> Any:
                self.step()
                result = originals[name](*arguments)
                self.step()
                return result

            return call

        with mock.patch.multiple(os, **{name: counted(name) for name in originals}):
            yield


def cid_of(data: bytes) -> str:
    hasher = FileHasher()
    hasher.update(data)
    return str(hasher.cid())


def sign(data: bytes, peer_id: str) -> str:
    return "u" + Cid.of_block(DAG_CBOR, peer_id.encode() + data).digest.hex()


class FakeObjects:
    """What is fetched comes from `elsewhere`, the other nodes, and is then here."""

    def __init__(self, killer: Killer | None = None) -> None:
        self.killer = killer or Killer()
        self.files: dict[str, bytes] = {}
        self.nodes: dict[str, bytes] = {}
        self.elsewhere: dict[str, bytes] = {}
        self.pinned: set[str] = set()
        self.pinned_alone: set[str] = set()
        self.fetched: list[str] = []
        self.fetching: dict[str, Any] = {}  # CID → what to await before it comes

    def offer(self, data: bytes) -> str:
        """Another node has these bytes."""
        cid = cid_of(data)
        self.elsewhere[cid] = data
        return cid

    async def add(self, data: bytes, *, pin: bool = False) -> str:
        self.killer.step()
        cid = cid_of(data)
        self.files[cid] = data
        if pin:
            self.pinned.add(cid)
        self.killer.step()
        return cid

    async def fetch(
        self,
        cid: str,
        *,
        max_bytes: int,
        size_bytes: int | None = None,
        provider: Peer | None = None,
        timeout_s: float = 120.0,
    ) -> bytes:
        self.killer.step()
        self.fetched.append(cid)
        if cid in self.fetching:
            await self.fetching[cid]
        data = self.files.get(cid, self.elsewhere.get(cid))
        if data is None:
            raise IpfsTimeoutError(f"{cid}: 0 bytes came within {timeout_s} s")
        bound = max_bytes if size_bytes is None else min(size_bytes, max_bytes)
        if len(data) > bound:
            raise TooLargeError(f"{cid} has more than the {bound} bytes allowed")
        if size_bytes is not None and len(data) != size_bytes:
            raise UnverifiedError(f"{cid} has {len(data)} bytes, {size_bytes} were named")
        if cid_of(data) != cid:
            raise UnverifiedError(f"{cid} came with other bytes than its name says")
        self.files[cid] = data
        return data

    async def verify(self, data: bytes, signature: str, peer_id: str) -> bool:
        if len(signature) != 65:
            raise IpfsError("key/verify: no signature of 64 bytes")
        return signature == sign(data, peer_id)

    async def put_node(self, dag_json: bytes) -> str:
        self.killer.step()
        cid = str(Cid.of_block(DAG_CBOR, dag_json))
        self.nodes[cid] = dag_json
        self.killer.step()
        return cid

    async def get_node(self, path: str) -> Any:
        return json.loads(self.nodes[path])

    async def pin(self, cid: str, *, recursive: bool = True) -> None:
        self.killer.step()
        if recursive:
            assert cid in self.files, (
                "only a file is pinned with all below it: a record links to the whole chain"
            )
            self.pinned.add(cid)
        else:
            assert cid in self.nodes
            self.pinned_alone.add(cid)
        self.killer.step()

    async def unpin(self, cid: str) -> None:
        self.killer.step()
        if cid not in self.pinned:
            raise IpfsError(f"pin/rm: {cid}: not pinned or pinned indirectly")
        self.pinned.remove(cid)
        self.killer.step()

    async def pins(self) -> set[str]:
        return set(self.pinned)

    async def collect_garbage(self) -> list[str]:
        self.killer.step()
        gone = sorted(set(self.files) - self.pinned)
        self.files = {cid: data for cid, data in self.files.items() if cid in self.pinned}
        self.nodes = {cid: data for cid, data in self.nodes.items() if cid in self.pinned_alone}
        return gone
