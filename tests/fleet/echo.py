"""One connection through a tunnel to an echo server in another node."""

from __future__ import annotations

import socket
import statistics
import threading
import time
from types import TracebackType

from node.ipfs.config import LOOPBACK
from tests.fleet.lab import Member

PROTOCOL = "/x/echo"
PIECE_BYTES = 1 << 16
TIMEOUT_S = 30.0


class Echo:
    """`with Echo(server, asker) as echo`: what the asker says comes back from the server's node."""

    def __init__(self, server: Member, asker: Member) -> None:
        self._server, self._asker = server, asker

    def __enter__(self) -> Echo:
        self._listener = self._server.in_node(lambda: socket.create_server((LOOPBACK, 0))).result()
        port = self._listener.getsockname()[1]
        self._server.in_node(self._serve)
        self._server.call(lambda client: client.listen(PROTOCOL, port, report_peer_id=False))
        there = self._server.peer.peer_id
        entry = self._asker.call(lambda client: client.forward(PROTOCOL, there))
        self._conn = self._asker.in_node(
            lambda: socket.create_connection((LOOPBACK, entry), timeout=TIMEOUT_S)
        ).result()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._conn.close()
        self._listener.close()
        for member in (self._server, self._asker):
            member.call(lambda client: client.close_tunnels(PROTOCOL))

    def _serve(self) -> None:
        conn, _ = self._listener.accept()
        with conn:
            while piece := conn.recv(PIECE_BYTES):
                conn.sendall(piece)

    def __call__(self, word: bytes) -> bytes:
        """Say a word; what came back."""
        self._conn.sendall(word)
        return self._read(len(word))

    def _read(self, size_bytes: int) -> bytes:
        got = bytearray()
        while len(got) < size_bytes and (piece := self._conn.recv(PIECE_BYTES)):
            got += piece
        return bytes(got)

    def round_trip_ms(self, word: bytes, count: int) -> float:
        """The median time of an echo."""
        times = []
        for _ in range(count):
            began = time.monotonic()
            assert self(word) == word
            times.append(time.monotonic() - began)
        return statistics.median(times) * 1000

    def bytes_per_s(self, data: bytes) -> float:
        """Each way, with both ways busy."""
        began = time.monotonic()
        sender = threading.Thread(target=self._conn.sendall, args=(data,))
        sender.start()
        assert self._read(len(data)) == data
        sender.join()
        return len(data) / (time.monotonic() - began)
