"""Probes in a node: what really passes on `data`, by programs' own sockets and clocks.

Every socket is bound to the interface `data`, so that no answer can come by another way. Arrivals are timed
where a program sees them: the kernel's own stamp is older than a holder's delay.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
import struct
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from node.contract import ShoalError, UsageError
from node.contract.probes import (
    CloseSink,
    Echo,
    Echoed,
    Knock,
    Knocked,
    Opened,
    OpenSink,
    Received,
    Send,
    Sent,
)
from node.contract.schema import from_json, to_json
from node.contract.settings import DATA_INTERFACE
from node.links import icmp
from node.links.sink import HEAD, ProbeError, Sink

THREADS: Final = 16  # probes of one node at the same time
MOST_SINKS: Final = 256
CONNECT_S: Final = 20.0
PIECE_BYTES: Final = 1 << 16
# So little that a sender waits for its link, rather than filling the link's queue until that drops.
SENDER_ROOM_BYTES: Final = 10_000


class Probes:
    """All probes of one node, on its address and interface."""

    def __init__(self, address: str, interface: str = DATA_INTERFACE) -> None:
        self._address, self._interface = address, interface
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="probe")
        self._sinks: dict[int, Sink] = {}
        self._numbers = itertools.count(1)

    async def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """What `POST /probes` answers; `error` when the probe could not be made."""
        loop = asyncio.get_running_loop()
        try:
            made = await loop.run_in_executor(self._threads, self.make, request)
        except (ShoalError, OSError) as error:
            return {"error": str(error)}
        answered: dict[str, Any] = to_json(made)
        return answered

    async def round_trip(self, wanted: Echo) -> Echoed:
        """For the agent itself: echoes to a peer."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._echo, wanted)

    def make(self, request: Mapping[str, Any]) -> Echoed | Knocked | Opened | Sent | Received:
        """Do one probe, in this thread."""
        what = {key: value for key, value in request.items() if key != "do"}
        match request.get("do"):
            case "echo":
                return self._echo(from_json(Echo, what))
            case "knock":
                return self._knock(from_json(Knock, what))
            case "open":
                return self._open(from_json(OpenSink, what))
            case "send":
                return self._send(from_json(Send, what))
            case "close":
                return self._close(from_json(CloseSink, what))
        raise UsageError(f"there is no probe {request.get('do')!r}", "do: echo, knock, open, send or close")

    def close(self) -> None:
        """End all sinks and wait for no probe."""
        for sink in list(self._sinks.values()):
            sink.forget()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _echo(self, wanted: Echo) -> Echoed:
        with icmp.opened(self._address, self._interface) as link:
            return icmp.echo(link, wanted)

    def _knock(self, wanted: Knock) -> Knocked:
        with self._bound("tcp") as link:
            link.settimeout(wanted.timeout_ms / 1000)
            try:
                link.connect((wanted.peer_address, wanted.port))
                return Knocked("spoke" if link.recv(1) else "refused")
            except TimeoutError:
                return Knocked("silent")
            except ConnectionError:
                return Knocked("refused")

    def _open(self, wanted: OpenSink) -> Opened:
        self._sinks = {number: sink for number, sink in self._sinks.items() if not sink.is_over()}
        if len(self._sinks) >= MOST_SINKS:
            raise ProbeError(f"{MOST_SINKS} sinks are open already", "close them")
        number = next(self._numbers)
        sink = Sink(self._bound(wanted.carrier), wanted)
        self._sinks[number] = sink
        return Opened(number, sink.port)

    def _close(self, wanted: CloseSink) -> Received:
        sink = self._sinks.pop(wanted.sink, None)
        if sink is None:
            raise ProbeError(f"there is no sink {wanted.sink}", "it was closed, or its time is over")
        return sink.close(wanted)

    def _send(self, wanted: Send) -> Sent:
        with self._bound(wanted.carrier) as link:
            return send_udp(link, wanted) if wanted.carrier == "udp" else send_tcp(link, wanted)

    def _bound(self, carrier: str) -> socket.socket:
        link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM if carrier == "udp" else socket.SOCK_STREAM)
        try:
            link.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, self._interface.encode())
            link.bind((self._address, 0))
        except BaseException:
            link.close()
            raise
        return link


def send_udp(link: socket.socket, wanted: Send) -> Sent:
    """Numbered packets at an even pace; one that is late goes at once."""
    link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SENDER_ROOM_BYTES)
    target = (wanted.peer_address, wanted.port)
    nonce = bytes.fromhex(wanted.nonce)
    padding = bytes(max(0, wanted.payload_bytes - HEAD.size))
    began = time.monotonic()
    for number in range(wanted.packets):
        early_s = began + number / wanted.packets_per_s - time.monotonic()
        if early_s > 0:
            time.sleep(early_s)
        link.sendto(HEAD.pack(nonce, number) + padding, target)
    sent_bytes = wanted.packets * (HEAD.size + len(padding))
    return Sent(wanted.packets, sent_bytes, time.monotonic() - began)


def send_tcp(link: socket.socket, wanted: Send) -> Sent:
    """As fast as it goes, until the sink hangs up or the time is over; what is queued then is thrown away."""
    link.settimeout(CONNECT_S)
    link.connect((wanted.peer_address, wanted.port))
    link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    began = time.monotonic()
    piece = bytes(PIECE_BYTES)
    sent_bytes = link.send(bytes.fromhex(wanted.nonce))
    while (left_s := began + wanted.lasts_s - time.monotonic()) > 0:
        link.settimeout(left_s)
        try:
            sent_bytes += link.send(piece)
        except (ConnectionError, TimeoutError):
            break
    return Sent(0, sent_bytes, time.monotonic() - began)
