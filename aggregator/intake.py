"""The checks of an update, cheapest first; each that fails is a refusal with its reason."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from aggregator.rounds import Update
from node.contract import UsageError
from node.contract.messages import MAX_MANIFEST_BYTES, Manifest, Refusal, Signed
from node.contract.schema import canonical, from_json
from node.ipfs.cid import DAG_PB, RAW, Cid
from node.ipfs.config import Peer
from node.ipfs.errors import (
    CidError,
    IpfsError,
    IpfsTimeoutError,
    TooLargeError,
    UnreachableError,
    UnverifiedError,
)
from node.learning import encoding
from node.learning.encoding import EncodingError, Weights

FETCH_S: Final = 120.0
MAX_EXAMPLES: Final = 1_000_000_000
MAX_SIGNATURE_CHARS: Final = 256
MAX_DETAIL_CHARS: Final = 200


class RefusedError(Exception):
    """This update is not taken; `signed` is there as soon as it could be read."""

    def __init__(self, reason: Refusal, detail: str, signed: Signed | None = None) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail[:MAX_DETAIL_CHARS]
        self.signed = signed


class Objects(Protocol):
    """The calls of an IPFS client that the checks make."""

    async def verify(self, data: bytes, signature: str, peer_id: str) -> bool: ...

    async def fetch(
        self,
        cid: str,
        *,
        max_bytes: int,
        size_bytes: int | None = None,
        provider: Peer | None = None,
        timeout_s: float = FETCH_S,
    ) -> bytes: ...


# Why the open round cannot take an update with this manifest now.
Objection = Callable[[str, Manifest], tuple[Refusal, str] | None]


def read_signed(body: bytes) -> Signed:
    """The message, or what is wrong with it."""
    try:
        data: Any = json.loads(body)
    except (ValueError, RecursionError) as err:
        raise RefusedError("malformed", f"no JSON: {err}") from err
    if not isinstance(data, dict):
        raise RefusedError("malformed", "no JSON object")
    signature = data.get("signature")
    if not isinstance(signature, str) or not signature.startswith("u"):
        raise RefusedError("unsigned", "there is no signature in multibase (u…)")
    try:
        signed = from_json(Signed, data)
        text = canonical(signed.manifest)
    except (UsageError, OverflowError, ValueError) as err:  # of numbers and characters beyond all bounds
        raise RefusedError("malformed", str(err).splitlines()[0]) from err
    manifest = signed.manifest
    if len(text) > MAX_MANIFEST_BYTES or len(signature) > MAX_SIGNATURE_CHARS:
        raise RefusedError("malformed", f"a manifest of {len(text)} bytes, {MAX_MANIFEST_BYTES} are allowed")
    if not 0 <= manifest.examples <= MAX_EXAMPLES:  # none: a training that came to nothing
        raise RefusedError("malformed", f"trained with {manifest.examples} examples", signed)
    return signed


def _check_finite(signed: Signed) -> None:
    """A loss that is no number is what a training has come to, and not a mistake in the message."""
    manifest = signed.manifest
    for name in ("fetch_s", "train_s", "loss"):
        if not math.isfinite(value := getattr(manifest, name)):
            raise RefusedError("not_finite", f"{name} is {value}", signed)


class Intake:
    """Checks updates of one model's shape; each sender's one after the other, different senders' at once."""

    def __init__(self, ipfs: Objects, template: Weights, peers: Mapping[str, Peer]) -> None:
        self._ipfs = ipfs
        self._template = template
        self._peers = peers
        self._max_bytes = encoding.max_bytes(template)
        self._turns: dict[str, asyncio.Lock] = {}

    def turn(self, peer_id: str) -> asyncio.Lock:
        """Held while an update of this member is checked, so that one member has one fetch at most."""
        return self._turns.setdefault(peer_id, asyncio.Lock())

    async def examine(
        self, peer_id: str, sender: str, body: bytes, objection: Objection, timeout_s: float = FETCH_S
    ) -> Update:
        """The update in a member's message, fetched and checked; else RefusedError.

        What is no fault of the sender's, such as our own daemon being away, is raised as it is.
        """
        signed = read_signed(body)
        await self._check_signature(peer_id, signed)
        manifest = signed.manifest
        if (against := objection(sender, manifest)) is not None:
            raise RefusedError(*against, signed)
        _check_finite(signed)
        if not 0 < manifest.size_bytes <= self._max_bytes:
            detail = f"names {manifest.size_bytes} bytes, {self._max_bytes} are allowed"
            raise RefusedError("too_large", detail, signed)
        return await self.fetch(peer_id, sender, signed, timeout_s)

    async def fetch(self, peer_id: str, sender: str, signed: Signed, timeout_s: float = FETCH_S) -> Update:
        """The update of a message that is in order."""
        began = time.monotonic()
        data = await self._fetch(peer_id, signed, timeout_s)
        try:
            # In a thread: looking at some million numbers would hold up everybody else.
            weights = await asyncio.to_thread(encoding.check, data, self._template)
        except EncodingError as err:
            raise RefusedError(err.reason, err.detail, signed) from err
        return Update(sender, signed, weights, time.monotonic() - began)

    async def _check_signature(self, peer_id: str, signed: Signed) -> None:
        if signed.manifest.sender != peer_id:
            raise RefusedError("forged", "the manifest is of another sender than the asker", signed)
        try:
            valid = await self._ipfs.verify(canonical(signed.manifest), signed.signature, peer_id)
        except (UnreachableError, IpfsTimeoutError):
            raise
        except IpfsError as err:
            raise RefusedError("unsigned", f"the signature cannot be read: {err.message}", signed) from err
        if not valid:
            raise RefusedError("forged", "the signature is not the asker's over this manifest", signed)

    async def _fetch(self, peer_id: str, signed: Signed, timeout_s: float) -> bytes:
        manifest = signed.manifest
        try:
            if Cid.parse(manifest.update).codec not in (RAW, DAG_PB):
                raise CidError(f"{manifest.update} is no file")
            return await self._ipfs.fetch(
                manifest.update,
                max_bytes=self._max_bytes,
                size_bytes=manifest.size_bytes,
                provider=self._peers.get(peer_id),
                timeout_s=timeout_s,
            )
        except UnreachableError:
            raise
        except CidError as err:
            raise RefusedError("malformed", err.message, signed) from err
        except TooLargeError as err:
            raise RefusedError("too_large", err.message, signed) from err
        except UnverifiedError as err:
            raise RefusedError("unverified", err.message, signed) from err
        except IpfsError as err:
            raise RefusedError("unfetchable", err.message, signed) from err
