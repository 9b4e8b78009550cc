"""What only netem does with a node's links, told by their owner: each change whole, copies, tables of jitter."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from itertools import islice
from typing import Any

import pytest

from node.contract.links import Shape, TracePoint
from node.links import jitter
from node.namespace import NodeThread
from tests.links.datagrams import Packet, arrived, listen, send
from tests.links.sides import FREE, Side, is_soon, put, table

pytestmark = pytest.mark.by_kernel


@pytest.fixture(autouse=True)
def _netem(delay_engine: Any) -> None:
    if delay_engine != "netem":
        pytest.skip("this kernel has no netem: make test-netem")


def passed(a: Side, b: Side, count: int, gap_s: float = 0.0) -> list[Packet]:
    """Those of so many packets from a to b that arrive."""
    with (
        NodeThread(a.name) as sender,
        NodeThread(b.name) as receiver,
        receiver.call(listen, b.address) as listener,
    ):
        sender.call(send, b.address, count, gap_s)
        return list(arrived(listener))


def test_a_change_takes_away_what_it_does_not_ask_for(sides: tuple[Side, Side, Side]) -> None:
    a, b, _ = sides
    spoilt = Shape(latency_ms=20, jitter_ms=5, reorder=0.1, corrupt=0.1, loss=0.1)
    plain = Shape(latency_ms=20, loss=0.1)
    bursty = Shape(latency_ms=20, jitter_ms=5, loss=0.1, loss_burst=4, in_order=False)
    for shape in (spoilt, plain, spoilt, bursty, spoilt, Shape(latency_ms=20)):
        assert put(sides, shape).mismatches == (), shape
        assert b.call(b.links.read).mismatches == (), shape
    numbers = [packet.number for packet in passed(a, b, 300)]
    assert numbers == list(range(300))


def test_a_rate_that_is_missing_is_seen_and_brought_back(sides: tuple[Side, Side, Side]) -> None:
    a, _, _ = sides
    put(sides, Shape(latency_ms=20))
    a.run("tc qdisc change dev data parent 5ba1:10 handle 4010: netem delay 20ms rate 0bit")
    seen = a.call(a.links.see)
    assert any("in order is False" in said for said in a.links.differences(seen))
    a.call(a.links.repair, seen)
    assert a.call(a.links.read).mismatches == ()


def test_no_packet_overtakes_when_a_latency_falls(sides: tuple[Side, Side, Side]) -> None:
    a, b, c = sides
    put(sides)
    a.restart()  # so that the trace begins now
    (a.folder / "links.json").unlink()
    points = (TracePoint(0.0, latency_ms=6500.0), TracePoint(4.0, latency_ms=5.0))
    falling = Shape(trace=points, trace_repeats=False)
    with (
        NodeThread(a.name) as sender,
        NodeThread(b.name) as receiver,
        receiver.call(listen, b.address) as listener,
    ):
        listener.settimeout(8.0)
        assert a.call(a.links.apply, table(a, {b: (falling, FREE), c: (FREE, FREE)})).mismatches == ()
        sender.call(send, b.address, 20, 0.0)
        time.sleep(a.call(a.links.follow_traces) + 0.01)
        assert a.call(a.links.follow_traces) == float("inf")
        sender.call(send, b.address, 20, 0.0)
        packets = list(islice(arrived(listener), 40))
    assert [packet.number for packet in packets] == [*range(20), *range(20)]
    assert packets[-1].one_way_ms > 50  # it had to wait for the others
    assert a.call(a.links.read).mismatches == ()


def test_packets_of_several_peers_are_doubled_each_in_its_share(sides: tuple[Side, Side, Side]) -> None:
    a, b, c = sides
    assert put(sides, FREE, Shape(latency_ms=5, duplicate=0.2)).mismatches == ()
    counts = Counter(packet.number for packet in passed(b, a, 500))
    assert (len(counts), max(counts.values())) == (500, 2)  # a copy is not copied again
    assert 60 < sum(counts.values()) - 500 < 145  # five standard deviations
    assert len(passed(c, a, 100)) == 100
    all_twice = (FREE, Shape(duplicate=1.0))
    assert a.call(a.links.apply, table(a, {b: all_twice, c: all_twice})).mismatches == ()
    assert (len(passed(b, a, 100)), len(passed(c, a, 100))) == (200, 200)
    assert put(sides).mismatches == ()
    assert len(passed(b, a, 100)) == 100


def test_copies_that_somebody_else_takes_away_are_brought_back(sides: tuple[Side, Side, Side]) -> None:
    a, _, _ = sides
    put(sides, FREE, Shape(duplicate=0.5))
    a.run("tc filter delete dev data parent ffff: prio 1")
    seen = a.call(a.links.see)
    assert "packets of 10.77.40.2 are doubled in a share of 0 instead of 0.5" in a.links.differences(seen)
    a.call(a.links.repair, seen)
    assert a.call(a.links.read).mismatches == ()


def test_loss_and_copies_add_up(sides: tuple[Side, Side, Side]) -> None:
    a, b, _ = sides
    put(sides, Shape(loss=0.5, duplicate=1.0))
    counts = Counter(packet.number for packet in passed(a, b, 1000))
    assert 830 < sum(counts.values()) < 1170
    assert 680 < len(counts) < 820  # one in four is lost twice


@pytest.mark.parametrize(
    "form",
    [
        {"jitter_kind": "pareto"},
        # Half of the packets one deviation early, half one late, and nothing between.
        {"jitter_kind": "table", "jitter_table": (-1.0,) * 20 + (1.0,) * 20},
    ],
    ids=["pareto", "table"],
)
def test_jitter_is_drawn_from_a_table_of_ours(sides: tuple[Side, Side, Side], form: dict[str, Any]) -> None:
    a, b, _ = sides
    shape = Shape(latency_ms=60, jitter_ms=20, in_order=False, **form)
    assert put(sides, shape).mismatches == ()
    own = jitter.distribution(shape)
    assert own is not None
    entries = sorted(60 + 20 * entry * own.stretch / jitter.UNIT for entry in own.entries)
    early, middle, late = (entries[int(share * len(entries))] for share in (0.1, 0.4, 0.9))

    def holds() -> bool:
        found = sorted(packet.one_way_ms for packet in passed(a, b, 300, gap_s=0.003))
        low, mid, high = (found[int(share * len(found))] for share in (0.1, 0.4, 0.9))
        print(f"asked {early:.1f} {middle:.1f} {late:.1f}: {low:.1f} {mid:.1f} {high:.1f}")
        near = abs(low - early) < 4 and abs(mid - middle) < 4 and abs(high - late) < 9
        return near and statistics.fmean(found) < 60 + 6

    assert is_soon(holds)


def test_a_socket_is_told_whole_packets_only(sides: tuple[Side, Side, Side]) -> None:
    a, b, _ = sides
    put(sides, Shape(corrupt=0.2))
    packets = passed(a, b, 500)
    assert all(packet.is_whole for packet in packets)
    assert 340 < len(packets) < 460  # some bits of the header do not matter
