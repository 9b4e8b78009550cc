"""Where a probe's packets or bytes arrive, and are counted and timed as a program sees them."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Final

from node.contract import ExitCode, ShoalError
from node.contract.probes import CloseSink, OpenSink, Received

LOOK_S: Final = 0.02  # between two looks at whether a sink shall end
PIECE_BYTES: Final = 1 << 16
ROOM_BYTES: Final = 8 << 20  # in a sink's socket, where we may
MOST_NUMBERS: Final = 1 << 24
HEAD: Final = struct.Struct(">8sQ")  # nonce, number
SO_RCVBUFFORCE, SO_MEMINFO, MEMINFO_DROPS = 33, 55, 8


class ProbeError(ShoalError):
    """A probe that could not be made; it says nothing about the link."""

    exit_code = ExitCode.UNKNOWN


class Sink:
    """Receives in a thread of its own until it is closed or its time is over."""

    def __init__(self, link: socket.socket, wanted: OpenSink) -> None:
        self._link, self._wanted = link, wanted
        self._nonce = bytes.fromhex(wanted.nonce)
        self.port: int = link.getsockname()[1]
        self._ends_at = time.monotonic() + wanted.lasts_s
        self._expected = 0  # 0: nobody has said yet how many there will be
        self._seen = bytearray()  # by number: whether it came
        self._last = -1
        self._packets = self._duplicates = self._overtaken = self._bytes = self._overflowed = 0
        self._first_at: float | None = None
        self._begin_at: float | None = None  # of the rate
        self._end_at = 0.0
        self._rate_bytes = 0
        self._failure: OSError | None = None
        if wanted.carrier == "tcp":
            link.listen(1)
        else:
            make_room(link)
        link.settimeout(LOOK_S)
        receive = self._receive_udp if wanted.carrier == "udp" else self._receive_tcp
        self._thread = threading.Thread(target=self._run, args=(receive,), daemon=True)
        self._thread.start()

    def is_over(self) -> bool:
        return not self._thread.is_alive() and time.monotonic() > self._ends_at

    def forget(self) -> None:
        self._ends_at = 0.0

    def close(self, wanted: CloseSink) -> Received:
        self._expected = wanted.expected
        self._ends_at = min(self._ends_at, time.monotonic() + wanted.wait_ms / 1000)
        self._thread.join()
        if self._failure is not None:
            raise ProbeError(f"the sink failed: {self._failure}")
        begun, ended = self._begin_at, self._end_at
        return Received(
            packets=self._packets,
            duplicates=self._duplicates,
            overtaken=self._overtaken,
            bytes=self._bytes,
            overflowed=self._overflowed,
            rate_bytes=self._rate_bytes,
            rate_s=ended - begun if begun is not None and self._rate_bytes else 0.0,
        )

    def _run(self, receive: Callable[[], None]) -> None:
        with self._link:
            try:
                receive()
            except OSError as error:
                self._failure = error

    def _is_ended(self) -> bool:
        if self._expected and self._packets >= self._expected:
            return True
        return time.monotonic() >= self._ends_at

    def _take(self, size_bytes: int) -> bool:
        """Count what came now; whether the window is over."""
        now = time.monotonic()
        self._bytes += size_bytes
        if self._first_at is None:
            self._first_at = now
        if now < self._first_at + self._wanted.warm_up_s:
            return False
        if self._begin_at is None:
            self._begin_at = now  # what came now was sent before it, so it does not count
            return False
        if not self._wanted.window_s or now <= self._begin_at + self._wanted.window_s:
            self._rate_bytes += size_bytes
            self._end_at = now
            return False
        return True

    def _receive_udp(self) -> None:
        buffer = bytearray(PIECE_BYTES)
        while not self._is_ended():
            try:
                size = self._link.recv_into(buffer)
            except TimeoutError:
                continue
            if size < HEAD.size:
                continue
            nonce, number = HEAD.unpack_from(buffer)
            if nonce == self._nonce and number < MOST_NUMBERS and self._is_new(number):
                self._take(size)
        told = self._link.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 4 * (MEMINFO_DROPS + 1))
        self._overflowed = struct.unpack(f"{MEMINFO_DROPS + 1}I", told)[MEMINFO_DROPS]

    def _is_new(self, number: int) -> bool:
        """Count a packet; whether it is the first of its number."""
        if number >= len(self._seen):
            self._seen.extend(bytes(max(number + 1 - len(self._seen), len(self._seen))))
        if self._seen[number]:
            self._duplicates += 1
            return False
        self._seen[number] = 1
        self._packets += 1
        if number < self._last:
            self._overtaken += 1
        else:
            self._last = number
        return True

    def _receive_tcp(self) -> None:
        while not self._is_ended():
            try:
                stream, _ = self._link.accept()
            except TimeoutError:
                continue
            with stream:
                stream.settimeout(LOOK_S)
                if self._receive_stream(stream):
                    return

    def _receive_stream(self, stream: socket.socket) -> bool:
        """Whether it was the stream that is waited for."""
        buffer = bytearray(PIECE_BYTES)
        head = b""
        while not self._is_ended():
            try:
                size = stream.recv_into(buffer)
            except TimeoutError:
                continue
            except ConnectionError:
                return head[: len(self._nonce)] == self._nonce  # the sender threw away what it had
            if not size:
                return head[: len(self._nonce)] == self._nonce
            if len(head) < len(self._nonce):
                head += bytes(buffer[:size])
                if not self._nonce.startswith(head[: len(self._nonce)]):
                    return False
            if self._take(size):
                return True
        return True


def make_room(link: socket.socket) -> None:
    """As much as we may have: beyond the host's limit where we are privileged, else up to it."""
    try:
        link.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, ROOM_BYTES)
    except PermissionError:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ROOM_BYTES)
