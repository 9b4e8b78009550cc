"""Writes the packets of an interface as a pcap file; run inside a node, until its standard input ends.

    python packets.py INTERFACE [SECONDS]    the file goes to standard output, words for people to the other

Standard library only, so that no tcpdump is needed; nanosecond pcap, which Wireshark and tcpdump read.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import sys
import time
from typing import IO

MAGIC_NANOSECONDS = 0xA1B23C4D
ETHERNET = 1
LONGEST_BYTES = 1 << 18  # beyond any packet, also of those that the kernel has joined
BUFFER_BYTES = 8 << 20
ALL_PROTOCOLS = 3
SO_TIMESTAMPNS = 35
SOL_PACKET, PACKET_STATISTICS = 263, 6
TIMESPEC = struct.Struct("@ll")


def file_header() -> bytes:
    return struct.pack("<IHHiIII", MAGIC_NANOSECONDS, 2, 4, 0, 0, LONGEST_BYTES, ETHERNET)


def record(seconds: int, nanoseconds: int, packet: bytes) -> bytes:
    return struct.pack("<IIII", seconds, nanoseconds, len(packet), len(packet)) + packet


def listen(interface: str) -> socket.socket:
    # Protocol 0 hears nothing until it is bound, so no packet of another interface comes in.
    listener = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    listener.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
    listener.bind((interface, ALL_PROTOCOLS))
    return listener


def write_packets(listener: socket.socket, out: IO[bytes], stop: IO[bytes], seconds: float | None) -> int:
    """Until `stop` ends or the time is over; how many were written."""
    deadline = None if seconds is None else time.monotonic() + seconds
    written = 0
    while True:
        left_s = None if deadline is None else deadline - time.monotonic()
        if left_s is not None and left_s <= 0:
            return written
        ready = select.select([listener, stop], [], [], left_s)[0]
        if listener in ready:
            packet, extra, _, _ = listener.recvmsg(LONGEST_BYTES, socket.CMSG_SPACE(TIMESPEC.size))
            out.write(record(*stamp(extra), packet))
            out.flush()  # whole packets only, however this ends
            written += 1
        elif stop in ready:
            return written  # after all that had come by then


def stamp(extra: list[tuple[int, int, bytes]]) -> tuple[int, int]:
    """When the kernel saw the packet."""
    for level, kind, data in extra:
        if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS):
            seconds, nanoseconds = TIMESPEC.unpack(data)
            return seconds, nanoseconds
    return divmod(time.time_ns(), 1_000_000_000)


def main(argv: list[str]) -> int:
    interface = argv[0]
    seconds = float(argv[1]) if len(argv) > 1 else None
    with listen(interface) as listener:
        sys.stdout.buffer.write(file_header())
        sys.stdout.buffer.flush()
        print(f"capturing {interface}", file=sys.stderr, flush=True)
        try:
            written = write_packets(listener, sys.stdout.buffer, sys.stdin.buffer, seconds)
        except BrokenPipeError:
            # The reader has enough; without this Python complains once more when it ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        _, dropped = struct.unpack("@II", listener.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
    print(f"{written} packets, {dropped} dropped", file=sys.stderr, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
