"""The queues' messages, what is held, and which verdicts let it through; no kernel is asked."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.contract import HostError
from node.links.held import EDGES_MS, LatenessCount, Line, Packet
from node.links.queue_messages import (
    ATTR_PACKET,
    ATTR_PAYLOAD,
    ATTR_TIMESTAMP,
    ATTR_WHOLE_LENGTH,
    FAMILY,
    NLMSG_ERROR,
    PACKET,
    SMALL_BYTES,
    VERDICT_BATCH,
    Layout,
    attribute,
    message,
    read_message,
    verdict,
)

MS = 1_000_000
INDEV = 5


def packet(number: int, stamp: tuple[int, int] | None, *more: bytes) -> bytes:
    """As the kernel writes it."""
    body = FAMILY.pack(2, 0, 7) + attribute(ATTR_PACKET, struct.pack(">IHB", number, 0x0800, 1))
    body += attribute(INDEV, struct.pack(">I", 3))
    if stamp:
        body += attribute(ATTR_TIMESTAMP, struct.pack(">QQ", *stamp))
    return message(PACKET, body + b"".join(more))


def view(*pieces: bytes) -> memoryview:
    return memoryview(b"".join(piece.ljust(SMALL_BYTES, b"\xaa") for piece in pieces))


def test_a_packet_is_read_by_its_attributes() -> None:
    whole = packet(9, (100, 5), attribute(ATTR_PAYLOAD, b"E\0\0"))
    assert read_message(memoryview(whole)) == (9, 100_000_005_000, b"E\0\0")
    assert read_message(memoryview(packet(9, None))) == (9, None, None)
    part = packet(
        9, None, attribute(ATTR_PAYLOAD, b"E"), attribute(ATTR_WHOLE_LENGTH, struct.pack(">I", 2000))
    )
    assert read_message(memoryview(part)) == (9, None, None)  # half of it is of no use


def test_many_packets_are_read_at_once_and_alike() -> None:
    pieces = [packet(number, (100, number)) for number in (1, 2, 70_000)]
    layout = Layout.of(view(*pieces))
    assert layout is not None
    assert layout.read(view(*pieces)) == [read_message(memoryview(piece)) for piece in pieces]


def test_a_message_of_another_form_is_not_misread() -> None:
    layout = Layout.of(view(packet(1, (100, 1))))
    assert layout is not None
    assert layout.read(view(packet(1, (100, 1)), packet(2, None))) is None
    refusal = message(NLMSG_ERROR, struct.pack("=i", -1) + bytes(16))
    assert layout.read(view(packet(1, (100, 1)), refusal)) is None
    with pytest.raises(HostError, match="Operation not permitted"):
        read_message(memoryview(refusal))


def test_a_packet_that_the_kernel_dropped_itself_is_no_error() -> None:
    assert read_message(memoryview(message(NLMSG_ERROR, struct.pack("=i", -2) + bytes(16)))) is None


def test_a_verdict_names_queue_and_packet() -> None:
    said = verdict(VERDICT_BATCH, 7, 1, 300)
    assert len(said) == 32 == struct.unpack_from("=I", said)[0]
    assert struct.unpack_from(">H", said, 18) == (7,)
    assert struct.unpack_from(">II", said, 24) == (1, 300)


@given(
    st.lists(st.tuples(st.integers(0, 40), st.booleans()), min_size=1),
    st.lists(st.integers(0, 50), min_size=1),
)
def test_no_packet_goes_early_and_none_stays(arrivals: list[tuple[int, bool]], looks: list[int]) -> None:
    """The kernel's side is played here: a batch takes with it all that is held up to its number."""
    line, held = Line(), {}
    times = sorted(looks)
    for number, (due, _) in enumerate(arrivals, start=1):
        line.put((due, number, 0, None))
        held[number] = due
    for now in [*times, 10_000]:
        before = line.first_due_ns()
        assert before == (min(held.values()) if held else None)
        loose, taken = line.take(now)
        for one in loose:
            assert held.pop(one[1]) <= now
        if taken:
            for number in [number for number in held if number <= taken[-1][1]]:
                assert held.pop(number) <= now
        assert all(due > now for due in held.values())
    assert not held
    assert len(line) == 0


def test_lateness_is_counted_by_bins_and_against_the_links_tolerance() -> None:
    count = LatenessCount()
    packets: list[Packet] = [(0, 1, 0, None), (9 * MS, 2, 0, None), (0, 3, 1, None)]
    assert count.note(packets, 10 * MS, tolerance_ns=4 * MS) == 2  # what was lost is not late
    found = count.read()
    assert (found.packets, found.beyond_tolerance) == (2, 1)
    assert found.counts[EDGES_MS.index(1.0)] == 1
    assert found.counts[EDGES_MS.index(10.0)] == 1
