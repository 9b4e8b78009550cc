"""Which engine is taken for which links, and what is refused with the kernel's own words."""

from __future__ import annotations

import pytest

from node.contract import HostError
from node.contract.links import LinkTable, PeerLinks, Shape, TracePoint
from node.links.engine import Probed, choose, refusals

ALL = Probed(htb="", ifb="", netem="", doubling="", hold="")
NO_NETEM = Probed(htb="", ifb="", netem="kind is unknown", doubling="kind is unknown", hold="")
NOTHING = Probed(htb="no htb", ifb="no ifb", netem="kind is unknown", doubling="x", hold="no queues")


def tables(into: Shape = Shape(), down_bit_s: int | None = None) -> list[LinkTable]:  # noqa: B008 - frozen
    peer = PeerLinks("w02", "10.77.0.2", Shape(), into)
    return [LinkTable("w01", "10.77.0.1", "10.77.0.0/24", None, down_bit_s, (peer,))]


def test_netem_where_it_works_else_hold() -> None:
    slow = tables(Shape(latency_ms=5))
    assert choose("auto", slow, ALL) == "netem"
    assert choose("auto", slow, NO_NETEM) == "hold"
    assert choose("hold", slow, ALL) == "hold"


def test_nothing_delayed_needs_no_engine() -> None:
    assert choose("auto", tables(Shape(rate_bit_s=1_000_000)), NOTHING) == "none"
    traced = Shape(trace=(TracePoint(0.0), TracePoint(1.0, latency_ms=9.0)))
    assert choose("auto", tables(traced), NO_NETEM) == "hold"


def test_what_cannot_be_is_refused_in_the_kernels_words() -> None:
    with pytest.raises(HostError, match="netem: kind is unknown; hold: no queues"):
        choose("auto", tables(Shape(latency_ms=5)), NOTHING)
    with pytest.raises(HostError, match="packets: netem: kind is unknown") as caught:
        choose("netem", tables(Shape(latency_ms=5)), NO_NETEM)
    assert "hold" not in caught.value.message
    assert "modprobe" in caught.value.hint


def test_each_link_that_cannot_be_is_named() -> None:
    assert refusals(tables(Shape(duplicate=0.1)), "netem", ALL) == []
    single = Probed(htb="", ifb="", netem="", doubling="no action skbedit", hold="")
    (said,) = refusals(tables(Shape(duplicate=0.1)), "netem", single)
    assert said.startswith("w02 → w01:")
    assert said.endswith("no action skbedit")
    assert refusals(tables(Shape(duplicate=0.1)), "hold", single) == []
    (said,) = refusals(tables(Shape(loss=0.9, loss_burst=2.0)), "hold", ALL)
    assert "w02 → w01" in said
    assert len(refusals(tables(down_bit_s=1_000_000), "none", NOTHING)) == 2
