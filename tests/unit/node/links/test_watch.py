"""What round trips the watch takes for possible."""

from __future__ import annotations

from dataclasses import replace

from node.contract.links import LinkTable, PeerLinks, Shape
from node.links.watch import expected_ms, has_any_shape


def table(out: Shape, into: Shape, up_bit_s: int | None = None) -> LinkTable:
    peer = PeerLinks("w02", "10.77.0.2", out, into)
    return LinkTable("w01", "10.77.0.1", "10.77.0.0/24", up_bit_s, None, (peer,))


def span_ms(links: LinkTable) -> tuple[float, float]:
    return expected_ms(links, links.peers[0])


def test_both_directions_make_a_round_trip() -> None:
    low_ms, high_ms = span_ms(table(Shape(latency_ms=30), Shape(latency_ms=70)))
    assert (low_ms, high_ms) == (98, 110)


def test_a_full_queue_is_no_fault_of_the_engine_and_an_early_answer_is() -> None:
    plain = table(Shape(latency_ms=30), Shape(latency_ms=30))
    slow = table(Shape(latency_ms=30, rate_bit_s=1_000_000), Shape(latency_ms=30))
    lined = table(Shape(latency_ms=30), Shape(latency_ms=30), up_bit_s=1_000_000)
    assert span_ms(slow)[1] > span_ms(plain)[1] + 100
    assert span_ms(lined)[1] > span_ms(plain)[1] + 100
    assert span_ms(slow)[0] == span_ms(plain)[0]


def test_a_full_queue_of_a_line_that_zones_share_is_none_either() -> None:
    plain = table(Shape(latency_ms=30), Shape(latency_ms=30))
    shared = replace(plain, peers=(replace(plain.peers[0], shared_queues_ms=150.0),))
    assert span_ms(shared)[1] == span_ms(plain)[1] + 150
    assert span_ms(shared)[0] == span_ms(plain)[0]


def test_jitter_widens_and_overtaking_opens_downwards() -> None:
    shape = Shape(latency_ms=30, jitter_ms=5)
    low_ms, high_ms = span_ms(table(shape, Shape()))
    assert (low_ms, high_ms) == (9, 60)
    assert span_ms(table(replace(shape, reorder=0.1), Shape()))[0] == 0


def test_where_nothing_is_shaped_nothing_is_probed() -> None:
    assert not has_any_shape(table(Shape(), Shape()))
    assert has_any_shape(table(Shape(), Shape(loss=0.1)))
    assert has_any_shape(table(Shape(), Shape(), up_bit_s=1))
    shared = PeerLinks("w02", "10.77.0.2", Shape(), Shape(), via="10.77.0.9")
    assert has_any_shape(replace(table(Shape(), Shape()), peers=(shared,)))
