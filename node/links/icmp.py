"""ICMP echoes by a raw socket: `ping` is not installed everywhere, and sends the next only so often."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from node.contract.probes import Echo, Echoed

REQUEST, REPLY = 8, 0
HEAD: Final = struct.Struct("!BBHHH8s")  # type, code, checksum, identifier, number, nonce
MOST: Final = 2000  # echoes in one probe
SNAP_BYTES: Final = 256


def checksum(data: bytes) -> int:
    """The Internet checksum: of a packet with its checksum in it, 0."""
    total: int = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def request(number: int, nonce: bytes) -> bytes:
    bare = HEAD.pack(REQUEST, 0, 0, 0, number, nonce)
    return HEAD.pack(REQUEST, 0, checksum(bare), 0, number, nonce)


def answered(packet: bytes, nonce: bytes) -> int | None:
    """The number of our echo that an IP packet answers; None: it is not for us."""
    body = packet[(packet[0] & 15) * 4 :] if packet else b""
    if len(body) < HEAD.size:
        return None
    kind, _, _, _, number, carried = HEAD.unpack_from(body)
    return int(number) if kind == REPLY and carried == nonce else None


@contextmanager
def opened(address: str, interface: str) -> Iterator[socket.socket]:
    """A socket for echoes that leave from, and come back to, one interface."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as link:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        link.bind((address, 0))
        yield link


def echo(link: socket.socket, wanted: Echo) -> Echoed:
    """Send on time, hear meanwhile, and wait for the last ones so long as was said."""
    nonce = os.urandom(8)
    count = min(wanted.count, MOST)
    sent_at: list[float] = []
    back_ms: dict[int, float] = {}
    began = time.monotonic()
    while len(back_ms) < count:
        now = time.monotonic()
        if len(sent_at) < count:
            next_at = began + len(sent_at) * wanted.interval_ms / 1000
            if now >= next_at:
                sent_at.append(time.monotonic())
                link.sendto(request(len(sent_at) - 1, nonce), (wanted.peer_address, 0))
                continue
        else:
            next_at = sent_at[-1] + wanted.timeout_ms / 1000
            if now >= next_at:
                break
        link.settimeout(next_at - now)
        try:
            packet = link.recv(SNAP_BYTES)
        except TimeoutError:
            continue
        number = answered(packet, nonce)
        if number is not None and number < len(sent_at):
            back_ms.setdefault(number, (time.monotonic() - sent_at[number]) * 1000)
    return Echoed(len(sent_at), tuple(round(back_ms[number], 3) for number in sorted(back_ms)))
