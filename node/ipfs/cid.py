"""Content identifiers, and the CID of a file computed from its bytes alone.

So that fetched bytes are checked against the CID that was asked for, and nobody's claim about
them is believed. Only what Shoal uses: CIDv1, base32, SHA2-256.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from typing import Final

from node.ipfs.errors import CidError

RAW: Final = 0x55
DAG_PB: Final = 0x70
DAG_CBOR: Final = 0x71
DAG_JSON: Final = 0x0129
CODECS: Final = (RAW, DAG_PB, DAG_CBOR, DAG_JSON)
SHA2_256: Final = b"\x12\x20"

CHUNK_BYTES: Final = 1 << 20
MAX_LINKS: Final = 1024
MAX_BLOCK_BYTES: Final = 2 << 20


def varint(number: int) -> bytes:
    """Unsigned LEB128."""
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


@dataclass(frozen=True)
class Cid:
    """CIDv1 with SHA2-256."""

    codec: int
    digest: bytes

    @classmethod
    def parse(cls, text: str) -> Cid:
        """Read `b…`; anything but the one canonical spelling is refused."""
        if not text.startswith("b") or text != text.lower() or len(text) > 100:
            raise CidError(f"not a CIDv1 in base32: {text[:100]!r}")
        try:
            binary = base64.b32decode(text[1:].upper() + "=" * (-len(text[1:]) % 8))
        except ValueError as err:  # also of characters beyond ASCII
            raise CidError(f"not a CIDv1 in base32: {text!r}") from err
        for codec in CODECS:
            head = b"\x01" + varint(codec) + SHA2_256
            if binary.startswith(head) and len(binary) == len(head) + 32:
                cid = cls(codec, binary[len(head) :])
                if str(cid) == text:
                    return cid
        raise CidError(f"not a CIDv1 with SHA2-256 and a codec that Shoal uses: {text!r}")

    @classmethod
    def of_block(cls, codec: int, block: bytes) -> Cid:
        return cls(codec, hashlib.sha256(block).digest())

    def to_bytes(self) -> bytes:
        return b"\x01" + varint(self.codec) + SHA2_256 + self.digest

    def __str__(self) -> str:
        return "b" + base64.b32encode(self.to_bytes()).decode().lower().rstrip("=")


@dataclass(frozen=True)
class _Node:
    """What a parent must know of a child."""

    cid: bytes
    file_bytes: int
    dag_bytes: int


def _field(number: int, value: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(value)) + value


def _number(number: int, value: int) -> bytes:
    return varint(number << 3) + varint(value)


def _parent(children: list[_Node]) -> _Node:
    """The DAG-PB node over `children`: links first, then UnixFS data, byte for byte as boxo writes it."""
    out = bytearray()
    for child in children:
        out += _field(2, _field(1, child.cid) + _field(2, b"") + _number(3, child.dag_bytes))
    file_bytes = sum(child.file_bytes for child in children)
    unixfs = _number(1, 2) + _number(3, file_bytes)  # type file
    unixfs += b"".join(_number(4, child.file_bytes) for child in children)
    block = bytes(out + _field(1, unixfs))
    dag_bytes = len(block) + sum(child.dag_bytes for child in children)
    return _Node(Cid.of_block(DAG_PB, block).to_bytes(), file_bytes, dag_bytes)


class FileHasher:
    """The CID of a UnixFS file as profile unixfs-v1-2025 builds it, from bytes as they come.

    Raw leaves of one size, a balanced tree above them. Holds one digest per pending link,
    never the bytes.
    """

    def __init__(self, chunk_bytes: int = CHUNK_BYTES, max_links: int = MAX_LINKS) -> None:
        if chunk_bytes < 1 or max_links < 2:
            raise ValueError("chunk_bytes must be at least 1, max_links at least 2")
        self._chunk_bytes = chunk_bytes
        self._max_links = max_links
        self._leaf = hashlib.sha256()
        self._leaf_bytes = 0
        self._levels: list[list[_Node]] = [[]]  # nodes without a parent yet, leaves first
        self.size_bytes = 0

    def update(self, piece: bytes) -> None:
        view = memoryview(piece)
        while view:
            if self._leaf_bytes == self._chunk_bytes:
                self._end_leaf()
            part = view[: self._chunk_bytes - self._leaf_bytes]
            self._leaf.update(part)
            self._leaf_bytes += len(part)
            self.size_bytes += len(part)
            view = view[len(part) :]

    def cid(self) -> Cid:
        """The CID of all that came so far; more may follow."""
        return self._root()[0]

    def dag_bytes(self) -> int:
        """Bytes of all blocks together, which `add` reports as Size."""
        return self._root()[1]

    def _end_leaf(self) -> None:
        self._push(0, self._leaf_node())
        self._leaf, self._leaf_bytes = hashlib.sha256(), 0

    def _leaf_node(self) -> _Node:
        return _Node(Cid(RAW, self._leaf.digest()).to_bytes(), self._leaf_bytes, self._leaf_bytes)

    def _push(self, level: int, node: _Node) -> None:
        if level == len(self._levels):
            self._levels.append([])
        if len(self._levels[level]) == self._max_links:
            full, self._levels[level] = self._levels[level], []
            self._push(level + 1, _parent(full))
        self._levels[level].append(node)

    def _root(self) -> tuple[Cid, int]:
        if self._levels == [[]]:
            return Cid(RAW, self._leaf.digest()), self._leaf_bytes
        carried = [self._leaf_node()]  # all leaves lie equally deep, so a lone last one is wrapped as well
        for level in self._levels:
            nodes = level + carried
            carried = [_parent(nodes[i : i + self._max_links]) for i in range(0, len(nodes), self._max_links)]
        while len(carried) > 1:
            carried = [_parent(carried)]
        return Cid(DAG_PB, carried[0].cid[-32:]), carried[0].dag_bytes


class Verifier:
    """Says whether bytes, given piece by piece, are those of the CID that was asked for."""

    def __init__(self, asked: Cid) -> None:
        if asked.codec not in (RAW, DAG_PB):
            raise CidError(f"{asked} is no file")
        self._asked = asked
        self._hasher = FileHasher(MAX_BLOCK_BYTES if asked.codec == RAW else CHUNK_BYTES)

    @property
    def size_bytes(self) -> int:
        return self._hasher.size_bytes

    def update(self, piece: bytes) -> None:
        self._hasher.update(piece)

    def holds(self) -> bool:
        return self._hasher.cid() == self._asked
