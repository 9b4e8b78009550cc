"""The kernel's packet queues (NFQUEUE) over a raw netlink socket.

Each queue has a socket of its own: the kernel takes verdicts only from the socket that bound the queue, and
a burst from one peer cannot fill another's buffer.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from node.contract import HostError
from node.links.queue_messages import (
    ACCEPT,
    ACK,
    ATTR_PAYLOAD,
    BIND,
    CFG_COMMAND,
    CFG_FLAGS,
    CFG_MASK,
    CFG_MAX_LENGTH,
    CFG_PARAMETERS,
    COPY_META,
    COPY_PACKET,
    DROP,
    ERROR,
    FAIL_OPEN,
    GSO,
    HEADER,
    LARGE_BYTES,
    NLMSG_ERROR,
    SMALL_BYTES,
    VERDICT,
    VERDICT_BATCH,
    Arrived,
    Layout,
    attribute,
    config,
    read_message,
    verdict,
)

NETLINK_NETFILTER: Final = 12
SOL_NETLINK: Final = 270
NETLINK_NO_ENOBUFS: Final = 5
SO_RCVBUFFORCE: Final = 33
SO_TIMESTAMPNS: Final = 35

MAX_LENGTH: Final = 65536  # packets held by the kernel for one queue
BUFFER_BYTES: Final = 16 << 20
MOST_SENT_BYTES: Final = 1 << 16
CONFIG_TIMEOUT_S: Final = 5.0


class MessageHeader(ctypes.Structure):
    """struct msghdr"""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("vector", ctypes.c_void_p),
        ("vector_length", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class Message(ctypes.Structure):
    """struct mmsghdr, what recvmmsg(2) fills"""

    _fields_ = (("header", MessageHeader), ("length", ctypes.c_uint))


class Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class Mailbox:
    """Room for the messages of one recvmmsg call, shared by all queues: it is emptied before the next."""

    def __init__(self, messages: int, stride_bytes: int) -> None:
        self.messages, self.stride_bytes = messages, stride_bytes
        self._room = ctypes.create_string_buffer(messages * stride_bytes)
        self.view = memoryview(self._room).cast("B")
        self._vectors = (Vector * messages)()
        self._headers = (Message * messages)()
        start = ctypes.addressof(self._room)
        for i, (vector, header) in enumerate(zip(self._vectors, self._headers, strict=True)):
            vector.base, vector.length = start + i * stride_bytes, stride_bytes
            header.header.vector, header.header.vector_length = ctypes.addressof(vector), 1
        self._recvmmsg = ctypes.CDLL(None, use_errno=True).recvmmsg

    def receive(self, descriptor: int) -> int:
        """How many messages came; 0 when there is none."""
        count = int(self._recvmmsg(descriptor, self._headers, self.messages, socket.MSG_DONTWAIT, None))
        if count >= 0:
            return count
        number = ctypes.get_errno()
        if number in (errno.EAGAIN, errno.EINTR):
            return 0
        raise OSError(number, f"recvmmsg: {os.strerror(number)}")


class Queue:
    """One packet queue, bound; whatever is in it is dropped by the kernel when it is closed."""

    def __init__(self, number: int, small: Mailbox, large: Mailbox) -> None:
        self.number = number
        self._small, self._large = small, large
        self._layout: Layout | None = None
        self._with_payload = False
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER
        )
        try:
            self._socket.bind((0, 0))
            self._socket.setsockopt(SOL_NETLINK, NETLINK_NO_ENOBUFS, 1)
            self._enlarge_buffer()
            # Until it knows what to copy, the kernel gives out nothing: the answers come alone.
            self._configure(CFG_COMMAND, struct.pack(">BxH", BIND, socket.AF_INET))
            self._configure(CFG_MAX_LENGTH, struct.pack(">I", MAX_LENGTH))
            # No GSO: each segment is lost or damaged by itself. No FAIL_OPEN: a full queue is a loss.
            self._configure(CFG_MASK, struct.pack(">I", FAIL_OPEN | GSO), CFG_FLAGS, struct.pack(">I", 0))
            self.copy_payload(False)
            self._socket.setblocking(False)
        except BaseException:
            self._socket.close()
            raise

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def _enlarge_buffer(self) -> None:
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
        except PermissionError:
            # Without root the kernel's own bound stays; what does not fit is counted as overflowed.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)

    def copy_payload(self, wanted: bool) -> None:
        """Whether packets come with all their bytes, or with none: that is cheaper."""
        largest = LARGE_BYTES - SMALL_BYTES if wanted else 0
        value = struct.pack(">IB", largest, COPY_PACKET if wanted else COPY_META)
        # Its answer would come among packets; a refusal does, and `arrived` raises it.
        self._socket.send(config(self.number, 0, CFG_PARAMETERS, value))
        self._with_payload = self._with_payload or wanted  # those on their way still have it

    def _configure(self, *pairs: int | bytes) -> None:
        self._socket.settimeout(CONFIG_TIMEOUT_S)
        self._socket.send(config(self.number, ACK, *pairs))
        answer = self._socket.recv(SMALL_BYTES)
        _, kind, _, _, _ = HEADER.unpack_from(answer)
        number = -ERROR.unpack_from(answer, HEADER.size)[0] if kind == NLMSG_ERROR else errno.EPROTO
        if number:
            raise HostError(
                f"The kernel refuses packet queue {self.number}: {os.strerror(number)}.",
                "the module nfnetlink_queue is needed, and nobody else on this queue",
            )

    def arrived(self) -> tuple[list[Arrived], bool]:
        """Packets that came since the last call, and whether there may be more."""
        mailbox = self._large if self._with_payload else self._small
        count = mailbox.receive(self.fileno())
        messages, is_more = mailbox.view[: count * mailbox.stride_bytes], count == mailbox.messages
        if not self._with_payload:
            if self._layout is None and count:
                self._layout = Layout.of(messages)
            if self._layout is not None and (packets := self._layout.read(messages)) is not None:
                return packets, is_more
        pieces = (
            messages[at : at + mailbox.stride_bytes] for at in range(0, len(messages), mailbox.stride_bytes)
        )
        return [packet for piece in pieces if (packet := read_message(piece)) is not None], is_more

    def tell(self, verdicts: Iterable[bytes]) -> None:
        """Send verdicts; the packets go their way before this returns."""
        rest: list[bytes] = []
        size = 0
        for one in verdicts:
            if size + len(one) > MOST_SENT_BYTES:
                self._socket.send(b"".join(rest))
                rest, size = [], 0
            rest.append(one)
            size += len(one)
        if rest:
            self._socket.send(b"".join(rest))

    def accept_until(self, number: int) -> bytes:
        """Let through all that is held up to this packet."""
        return verdict(VERDICT_BATCH, self.number, ACCEPT, number)

    def accept(self, number: int, payload: bytes | None = None) -> bytes:
        """Let one packet through, with other bytes if they are given."""
        extra = b"" if payload is None else attribute(ATTR_PAYLOAD, payload)
        return verdict(VERDICT, self.number, ACCEPT, number, extra)

    def drop(self, number: int) -> bytes:
        return verdict(VERDICT, self.number, DROP, number)


@dataclass(frozen=True)
class QueueCount:
    """What the kernel says of a queue."""

    arrived: int
    overflowed: int  # it was full, or the holder's buffer was
    held: int


def counts() -> dict[int, QueueCount]:
    """By number, the queues of the network namespace that this thread is in."""
    try:
        text = Path("/proc/thread-self/net/netfilter/nfnetlink_queue").read_text()
    except FileNotFoundError:
        return {}
    found = {}
    for line in text.splitlines():
        number, _, total, _, _, full, unheard, sequence, _ = map(int, line.split())
        found[number] = QueueCount(sequence, full + unheard, total)
    return found


def stamp_arrivals() -> socket.socket:
    """While this socket is open every kernel stamps packets as they come; some do so on demand only."""
    asker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    asker.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    return asker
