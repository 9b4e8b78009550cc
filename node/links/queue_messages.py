"""What is said to and by the kernel's packet queues: netlink messages to bytes and back. Pure."""

from __future__ import annotations

import errno
import os
import socket
import struct
from dataclasses import dataclass
from typing import Final

from node.contract import HostError

PACKET, VERDICT, CONFIG, VERDICT_BATCH = 0x300, 0x301, 0x302, 0x303  # subsystem 3, the queues
NLMSG_ERROR: Final = 2
REQUEST, ACK = 0x1, 0x4

CFG_COMMAND, CFG_PARAMETERS, CFG_MAX_LENGTH, CFG_MASK, CFG_FLAGS = 1, 2, 3, 4, 5
BIND: Final = 1
COPY_META, COPY_PACKET = 1, 2
FAIL_OPEN, GSO = 0x1, 0x4
ATTR_PACKET, ATTR_VERDICT, ATTR_TIMESTAMP, ATTR_PAYLOAD, ATTR_WHOLE_LENGTH = 1, 2, 4, 10, 13

DROP, ACCEPT = 0, 1

HEADER = struct.Struct("=IHHII")
FAMILY = struct.Struct(">BBH")
ATTRIBUTE = struct.Struct("=HH")
VERDICT_VALUE = struct.Struct(">II")
FIRST_ATTRIBUTE: Final = HEADER.size + FAMILY.size
NUMBER_AT: Final = FIRST_ATTRIBUTE + ATTRIBUTE.size  # the packet's number is what each message begins with
ERROR = struct.Struct("=i")
SMALL_BYTES: Final = 256  # a message without payload
LARGE_BYTES: Final = 4096


# Read as big-endian together with what really is.
PACKET_SEEN: Final = struct.unpack(">H", struct.pack("=H", PACKET))[0]
STAMP_SEEN: Final = struct.unpack(">I", ATTRIBUTE.pack(ATTRIBUTE.size + 16, ATTR_TIMESTAMP))[0]

# A packet's number in its queue, the wall clock's stamp if the kernel gives one, its bytes if asked for.
Arrived = tuple[int, int | None, bytes | None]


@dataclass(frozen=True)
class Layout:
    """Where the stamp stands in the messages of one queue: mostly at one place in all of them."""

    fields: struct.Struct

    @staticmethod
    def of(messages: memoryview) -> Layout | None:
        """As in the first of these messages; None when it has no stamp."""
        at = attributes(messages[:SMALL_BYTES]).get(ATTR_TIMESTAMP)
        if at is None:
            return None
        start = at[0] - ATTRIBUTE.size
        number_end = NUMBER_AT + 4
        text = f">4xH{NUMBER_AT - 6}xI{start - number_end}xIQQ"
        return Layout(struct.Struct(f"{text}{SMALL_BYTES - struct.calcsize(text)}x"))

    def read(self, messages: memoryview) -> list[Arrived] | None:
        """The packets; None when any message looks different."""
        found = list(self.fields.iter_unpack(messages))
        for kind, _, stamp, _, _ in found:
            if kind != PACKET_SEEN or stamp != STAMP_SEEN:
                return None
        return [
            (number, seconds * 1_000_000_000 + micros * 1000, None) for _, number, _, seconds, micros in found
        ]


def attribute(kind: int, value: bytes) -> bytes:
    padding = -len(value) % 4
    return ATTRIBUTE.pack(ATTRIBUTE.size + len(value), kind) + value + bytes(padding)


def message(kind: int, body: bytes, flags: int = 0) -> bytes:
    return HEADER.pack(HEADER.size + len(body), kind, REQUEST | flags, 0, 0) + body


def config(queue: int, flags: int, *pairs: int | bytes) -> bytes:
    """A configuration of alternate attribute kinds and values."""
    body = FAMILY.pack(socket.AF_UNSPEC, 0, queue)
    for kind, value in zip(pairs[::2], pairs[1::2], strict=True):
        assert isinstance(kind, int)
        assert isinstance(value, bytes)
        body += attribute(kind, value)
    return message(CONFIG, body, flags)


def verdict(kind: int, queue: int, word: int, number: int, extra: bytes = b"") -> bytes:
    value = ATTRIBUTE.pack(12, ATTR_VERDICT) + VERDICT_VALUE.pack(word, number)
    return message(kind, FAMILY.pack(socket.AF_UNSPEC, 0, queue) + value + extra)


def attributes(piece: memoryview) -> dict[int, tuple[int, int]]:
    """By kind: where an attribute's value begins and ends."""
    end = min(HEADER.unpack_from(piece)[0], len(piece))
    at, found = FIRST_ATTRIBUTE, {}
    while at + ATTRIBUTE.size <= end:
        length, kind = ATTRIBUTE.unpack_from(piece, at)
        if length < ATTRIBUTE.size:
            break
        found[kind & 0x3FFF] = (at + ATTRIBUTE.size, at + length)
        at += length + -length % 4
    return found


def read_message(piece: memoryview) -> Arrived | None:
    """One message by its attributes; None when it is no packet."""
    _, kind, _, _, _ = HEADER.unpack_from(piece)
    if kind == NLMSG_ERROR:
        number = -ERROR.unpack_from(piece, HEADER.size)[0]
        if number in (0, errno.ENOENT):
            return None  # ENOENT: the kernel had dropped the packet itself, as its interface went
        raise HostError(f"The kernel refuses a message of the holder: {os.strerror(number)}.")
    if kind != PACKET:
        return None
    found = attributes(piece)
    (number,) = struct.unpack_from(">I", piece, found[ATTR_PACKET][0])
    stamp_ns = None
    if ATTR_TIMESTAMP in found:
        seconds, micros = struct.unpack_from(">QQ", piece, found[ATTR_TIMESTAMP][0])
        stamp_ns = seconds * 1_000_000_000 + micros * 1000
    payload = None
    if ATTR_PAYLOAD in found and ATTR_WHOLE_LENGTH not in found:
        begin, end = found[ATTR_PAYLOAD]
        payload = bytes(piece[begin:end])
    return number, stamp_ns, payload
