"""Probes over loopback, without rights: sinks and senders; and echoes as bytes."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
import time

import pytest

from node.contract import UsageError
from node.contract.probes import CloseSink, OpenSink, Received, Send
from node.links import icmp
from node.links.probes import Probes, send_tcp, send_udp
from node.links.sink import HEAD, ProbeError, Sink

OURS, OTHER = "00" * 8, "11" * 8
LOOPBACK = "127.0.0.1"
WAIT_MS = 5000.0


def bound(kind: socket.SocketKind) -> socket.socket:
    link = socket.socket(socket.AF_INET, kind)
    link.bind((LOOPBACK, 0))
    return link


def udp_sink(**more: float) -> Sink:
    return Sink(bound(socket.SOCK_DGRAM), OpenSink("udp", OURS, **more))


def datagrams(sink: Sink, numbers: list[int], nonce: str = OURS) -> None:
    with bound(socket.SOCK_DGRAM) as link:
        for number in numbers:
            link.sendto(HEAD.pack(bytes.fromhex(nonce), number), (LOOPBACK, sink.port))


def counts(received: Received) -> tuple[int, int, int]:
    return received.packets, received.duplicates, received.overtaken


def test_a_sink_counts_what_was_sent() -> None:
    sink = udp_sink()
    with bound(socket.SOCK_DGRAM) as link:
        sent = send_udp(link, Send("udp", LOOPBACK, sink.port, OURS, packets=50, payload_bytes=30))
    assert (sent.packets, sent.bytes) == (50, 1500)
    received = sink.close(CloseSink(1, expected=50, wait_ms=WAIT_MS))
    assert (received.packets, received.bytes, received.overflowed) == (50, 1500, 0)


def test_a_sender_keeps_its_pace() -> None:
    sink = udp_sink()
    with bound(socket.SOCK_DGRAM) as link:
        wanted = Send("udp", LOOPBACK, sink.port, OURS, packets=11, packets_per_s=100)
        assert send_udp(link, wanted).seconds >= 0.1
    sink.forget()


def test_what_is_missing_doubled_or_overtaken_is_told() -> None:
    sink = udp_sink()
    datagrams(sink, [0, 1, 3, 3, 2, 5])
    assert counts(sink.close(CloseSink(1, wait_ms=200))) == (5, 1, 1)


def test_strangers_are_not_counted() -> None:
    sink = udp_sink()
    datagrams(sink, [0, 1], OTHER)
    with bound(socket.SOCK_DGRAM) as link:
        link.sendto(b"short", (LOOPBACK, sink.port))
    datagrams(sink, [7])
    assert counts(sink.close(CloseSink(1, wait_ms=200))) == (1, 0, 0)


def test_the_rate_is_between_the_first_and_the_last_arrival_of_the_window() -> None:
    """However late a step may be: what came is divided by the time in which it came."""
    sink = udp_sink(warm_up_s=0.05, window_s=0.1)
    with bound(socket.SOCK_DGRAM) as link:
        wanted = Send("udp", LOOPBACK, sink.port, OURS, packets=40, packets_per_s=200, payload_bytes=100)
        send_udp(link, wanted)
    received = sink.close(CloseSink(1, expected=40, wait_ms=WAIT_MS))
    assert received.bytes == 4000
    assert 0 < received.rate_s <= 0.1
    assert received.rate_bytes <= 3500
    assert received.rate_bytes / received.rate_s == pytest.approx(20_000, rel=0.5)


def test_a_stream_is_hung_up_after_its_window() -> None:
    sink = Sink(bound(socket.SOCK_STREAM), OpenSink("tcp", OURS, warm_up_s=0.02, window_s=0.05))
    with bound(socket.SOCK_STREAM) as link:
        sent = send_tcp(link, Send("tcp", LOOPBACK, sink.port, OURS, lasts_s=30))
    assert sent.seconds < 30
    received = sink.close(CloseSink(1, wait_ms=WAIT_MS))
    assert 0 < received.rate_s <= 0.05
    assert 0 < received.rate_bytes < received.bytes <= sent.bytes


def test_a_stream_of_a_stranger_is_passed_over() -> None:
    sink = Sink(bound(socket.SOCK_STREAM), OpenSink("tcp", OURS))
    with socket.create_connection((LOOPBACK, sink.port)) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
        stranger.settimeout(5)
        assert stranger.recv(1) == b""
    with bound(socket.SOCK_STREAM) as link:
        send_tcp(link, Send("tcp", LOOPBACK, sink.port, OURS, lasts_s=0.05))
    assert sink.close(CloseSink(1, wait_ms=WAIT_MS)).bytes > 0


def test_a_sink_that_nobody_closes_ends() -> None:
    sink = udp_sink(lasts_s=0.05)
    deadline = time.monotonic() + 5
    while not sink.is_over() and time.monotonic() < deadline:
        threading.Event().wait(0.01)
    assert sink.is_over()


def test_closing_does_not_wait_when_all_has_come() -> None:
    sink = udp_sink()
    datagrams(sink, [0])
    began = time.monotonic()
    sink.close(CloseSink(1, expected=1, wait_ms=60_000))
    assert time.monotonic() - began < 30


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"do": "ping"}, "there is no probe 'ping'"),
        ({"do": "echo"}, "peer_address: this key is missing"),
        ({"do": "echo", "peer_address": LOOPBACK, "via": "ctl"}, "via: unknown key"),
        ({"do": "close", "sink": 3}, "there is no sink 3"),
    ],
)
def test_what_cannot_be_asked_is_an_error_in_the_answer(request_: dict[str, object], said: str) -> None:
    probes = Probes(LOOPBACK)
    assert said in asyncio.run(probes.answer(request_))["error"]
    probes.close()


def test_a_probe_leaves_by_its_interface_or_not_at_all() -> None:
    probes = Probes(LOOPBACK, "nosuchif")
    said = asyncio.run(probes.answer({"do": "open", "carrier": "udp", "nonce": OURS}))
    assert "error" in said
    probes.close()


def test_wrong_requests_raise_for_our_own_code() -> None:
    with pytest.raises(UsageError):
        Probes(LOOPBACK).make({})
    with pytest.raises(ProbeError):
        Probes(LOOPBACK).make({"do": "close", "sink": 1})


def reply(number: int, nonce: bytes, kind: int = icmp.REPLY) -> bytes:
    ip = struct.pack("!BBHHHBBH4s4s", 0x46, 0, 0, 0, 0, 64, 1, 0, b"", b"") + bytes(4)  # with an option
    return ip + icmp.HEAD.pack(kind, 0, 0, 0, number, nonce) + b"more"


def test_an_echo_is_known_by_its_nonce() -> None:
    ours = bytes(range(8))
    assert icmp.checksum(icmp.request(7, ours)) == 0
    assert icmp.answered(reply(7, ours), ours) == 7
    assert icmp.answered(reply(7, bytes(8)), ours) is None
    assert icmp.answered(reply(7, ours, icmp.REQUEST), ours) is None
    assert icmp.answered(reply(7, ours)[:30], ours) is None
    assert icmp.answered(b"", ours) is None
