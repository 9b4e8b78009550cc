"""Probes: what an agent is asked to measure on `data`, and what it answers. Links are measured one way at a
time, but for the round trip: the receiver opens a sink, the sender sends to it, the receiver says what came.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Carrier = Literal["udp", "tcp"]
# Of whom a connection was made to: something came, nothing came in time, or nobody listened.
Answer = Literal["spoke", "silent", "refused"]

UDP_HEADERS_BYTES = 42  # Ethernet, IP, UDP
TCP_SEGMENT_SHARE = 1448 / 1514  # of a full segment with timestamps that is payload
LEAST_UDP_PAYLOAD_BYTES = 20  # nonce and number
MOST_UDP_PAYLOAD_BYTES = 1472
PROBE_S = 90.0  # no single request takes longer


@dataclass(frozen=True)
class Echo:
    """`do: echo`. ICMP echoes to a peer, sent on time, whether answers have come or not."""

    peer_address: str
    count: int = 20
    interval_ms: float = 20.0
    timeout_ms: float = 1000.0  # after the last was sent


@dataclass(frozen=True)
class Echoed:
    sent: int
    rtt_ms: tuple[float, ...]  # of those that came back, in the order in which they were sent


@dataclass(frozen=True)
class Knock:
    """`do: knock`. Connect to a peer's port, and wait for the first byte: libp2p's listeners speak first."""

    peer_address: str
    port: int
    timeout_ms: float


@dataclass(frozen=True)
class Knocked:
    answer: Answer


@dataclass(frozen=True)
class OpenSink:
    """`do: open`. Receive from now on, on a free port of `data`."""

    carrier: Carrier
    nonce: str  # 16 hexadecimal digits; what comes without it is not counted
    warm_up_s: float = 0.0  # since the first that came; not part of the rate
    window_s: float = 0.0  # over which the rate is taken; a TCP sink hangs up after it
    lasts_s: float = PROBE_S  # then it is forgotten


@dataclass(frozen=True)
class Opened:
    sink: int
    port: int


@dataclass(frozen=True)
class Send:
    """`do: send`. UDP: numbered packets, paced. TCP: all that the link takes, until it is hung up."""

    carrier: Carrier
    peer_address: str
    port: int
    nonce: str
    packets: int = 0  # of UDP
    payload_bytes: int = LEAST_UDP_PAYLOAD_BYTES  # of a UDP packet
    packets_per_s: float = 1000.0  # of UDP
    lasts_s: float = PROBE_S  # of TCP, at most


@dataclass(frozen=True)
class Sent:
    packets: int
    bytes: int  # payload
    seconds: float


@dataclass(frozen=True)
class CloseSink:
    """`do: close`. Answers when all that was expected, or the stream's end, has come, or after the wait."""

    sink: int
    expected: int = 0
    wait_ms: float = 0.0


@dataclass(frozen=True)
class Received:
    packets: int  # different ones
    duplicates: int
    overtaken: int  # came after a later one
    bytes: int  # payload, without duplicates
    overflowed: int  # that the socket dropped: no room, or a wrong checksum
    rate_bytes: int  # payload within the window
    rate_s: float  # between the arrivals at its two ends; 0 when fewer than two came
