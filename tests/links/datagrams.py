"""Numbered packets through whatever a link does to them: which arrive, in which order, how late, how whole."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from typing import NamedTuple

QUIET_S = 0.5  # nothing came for so long: nothing will
SO_TIMESTAMPNS, SO_RCVBUFFORCE = 35, 33  # Python has no names for them
PADDING = b"netem" * 40


class Packet(NamedTuple):
    """One that arrived."""

    number: int
    one_way_ms: float
    is_whole: bool


def send(address: str, count: int, gap_s: float) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        for number in range(count):
            out.sendto(struct.pack("!IQ", number, time.time_ns()) + PADDING, (address, 7000))
            if gap_s:
                time.sleep(gap_s)


def listen(address: str) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listener.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
    listener.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    listener.settimeout(QUIET_S)
    listener.bind((address, 7000))
    return listener


def arrived(listener: socket.socket) -> Iterator[Packet]:
    while True:
        try:
            data, [(_, _, stamp)], *_ = listener.recvmsg(2048, 64)
        except TimeoutError:
            return
        seconds, nanoseconds = struct.unpack("qq", stamp)  # when the kernel had it, however late we are
        number, sent_ns = struct.unpack("!IQ", data[:12])
        yield Packet(number, (seconds * 10**9 + nanoseconds - sent_ns) / 1e6, data[12:] == PADDING)
