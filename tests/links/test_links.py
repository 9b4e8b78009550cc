"""The owner of a node's links between real nodes, with whatever delay engine this kernel can do."""

from __future__ import annotations

import asyncio
import dataclasses
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from node.contract import HostError, UsageError
from node.contract.links import Cut, CutDone, PeerLinks, Shape, TracePoint
from node.links.owner import Links
from tests.links.sides import FREE, IS_SLOW, NONCE, SUBNET, Side, bit_s, goodput, is_soon, put, table


@pytest.mark.by_kernel
def test_a_table_is_in_force_as_asked(sides: tuple[Side, Side, Side]) -> None:
    answer = put(sides, Shape(rate_bit_s=20_000_000), Shape(), up_bit_s=50_000_000, down_bit_s=100_000_000)
    assert answer.mismatches == ()
    assert [(link.peer, link.rate_bit_s) for link in answer.links] == [("lnk2", 20_000_000), ("lnk3", None)]
    assert (answer.up_bit_s, answer.down_bit_s) == (50_000_000, 100_000_000)
    assert (answer.congestion_control, answer.gso_max_segs) == ("cubic", 1)
    assert answer.applied_ms > 0


def test_a_rate_holds_for_its_pair_and_direction_alone(sides: tuple[Side, Side, Side]) -> None:
    a, b, c = sides
    put(sides, Shape(rate_bit_s=5_000_000))
    assert is_soon(lambda: bit_s(a, b) == goodput(5e6))
    assert is_soon(lambda: bit_s(b, a, 0.3) > 10e6)
    assert is_soon(lambda: bit_s(a, c, 0.3) > 10e6)


def test_a_line_is_shared_by_all_peers(sides: tuple[Side, Side, Side]) -> None:
    a, b, c = sides
    put(sides, up_bit_s=6_000_000)

    def shared() -> bool:
        with ThreadPoolExecutor(2) as pool:
            both = list(pool.map(lambda peer: bit_s(a, peer), (b, c)))
        return sum(both) == goodput(6e6) and min(both) > 0.35 * sum(both)

    assert is_soon(shared)


def test_what_comes_in_is_limited_too(sides: tuple[Side, Side, Side]) -> None:
    a, b, _ = sides
    put(sides, down_bit_s=4_000_000)
    assert is_soon(lambda: bit_s(b, a) == goodput(4e6))
    assert put(sides).mismatches == ()  # the device stays, without a limit
    assert is_soon(lambda: bit_s(b, a, 0.3) > 10e6)


@pytest.mark.by_kernel
def test_latency_is_one_way(sides: tuple[Side, Side, Side]) -> None:
    a, b, c = sides
    before = statistics.median(a.rtt_ms(b))
    answer = put(sides, Shape(latency_ms=40), Shape(latency_ms=10))
    assert answer.mismatches == ()
    assert is_soon(lambda: 49.5 < statistics.median(a.rtt_ms(b)) < 53 + before)
    assert statistics.median(a.rtt_ms(c)) < 10
    states = {link.peer: link for link in answer.links}
    assert states["lnk2"].latency_ms == pytest.approx(40 if a.engine == "netem" else 10, abs=0.1)


@pytest.mark.by_kernel
def test_loss_is_at_the_receiver_and_counted(sides: tuple[Side, Side, Side]) -> None:
    a, b, _ = sides
    put(sides, Shape(loss=0.1))
    before = b.call(b.links.read).links[0]
    sink = b.ask("open", carrier="udp", nonce=NONCE)
    a.ask(
        "send",
        carrier="udp",
        nonce=NONCE,
        peer_address=b.address,
        port=sink["port"],
        packets=4000,
        packets_per_s=4000,
    )
    told = b.ask("close", sink=sink["sink"], expected=4000, wait_ms=500)
    after = b.call(b.links.read).links[0]
    assert told["overflowed"] == 0
    assert 300 < 4000 - told["packets"] < 500  # five standard deviations
    assert after.lost_packets - before.lost_packets == pytest.approx(4000 - told["packets"], abs=5)
    assert after.loss == pytest.approx(0.1, rel=0.01)


@pytest.mark.by_kernel
def test_a_change_goes_through_without_a_break(sides: tuple[Side, Side, Side]) -> None:
    a, b, _ = sides
    put(sides, Shape(latency_ms=30, rate_bit_s=20_000_000))
    assert len(a.rtt_ms(b)) == 10
    changed = put(sides, Shape(latency_ms=60, rate_bit_s=10_000_000))
    assert changed.mismatches == ()
    assert changed.links[0].sent_packets >= 10  # a new tree would count from nothing
    assert is_soon(lambda: 59.5 < statistics.median(a.rtt_ms(b)) < 65)


def test_a_cut_is_one_way_and_ends_with_its_own_fault(sides: tuple[Side, Side, Side]) -> None:
    a, b, c = sides
    put(sides, Shape(latency_ms=5), Shape(latency_ms=5))
    assert a.cut(Cut("one", {"lnk2": "drop"})).deaf_to == {"lnk2": "drop"}
    assert (a.hears(b), b.hears(a), a.hears(c)) == (False, True, True)
    a.cut(Cut("two", {"lnk2": "drop", "lnk3": "drop"}))
    states = {link.peer: link for link in a.call(a.links.read).links}
    assert (states["lnk2"].is_cut, states["lnk3"].is_cut) == ("drop", "drop")
    assert states["lnk2"].cut_packets >= 5
    assert a.heal("one").deaf_to == {"lnk2": "drop", "lnk3": "drop"}
    assert (a.hears(b), a.hears(c)) == (False, False)
    assert a.heal("two").deaf_to == {}
    assert (a.hears(b), a.hears(c)) == (True, True)
    assert a.heal("two").deaf_to == {}  # over already
    state = a.call(a.links.read)
    assert state.mismatches == ()
    assert state.links[0].cut_packets >= 10  # what healed cuts had dropped still counts


@pytest.mark.by_kernel
def test_a_cut_holds_for_the_copies_of_doubled_packets_too(sides: tuple[Side, Side, Side]) -> None:
    a, b, _ = sides
    put(sides, FREE, Shape(latency_ms=5, duplicate=1.0))
    sink = a.ask("open", carrier="udp", nonce=NONCE)
    told = {
        "nonce": NONCE,
        "peer_address": a.address,
        "port": sink["port"],
        "packets": 20,
        "packets_per_s": 500,
    }
    b.ask("send", carrier="udp", **told)
    assert a.ask("close", sink=sink["sink"], expected=20, wait_ms=500)["duplicates"] > 10
    a.cut(Cut("doubled", {"lnk2": "drop"}))
    assert not a.hears(b)
    a.heal("doubled")


def test_two_faults_may_cut_at_the_same_instant(sides: tuple[Side, Side, Side]) -> None:
    a, _, _ = sides
    put(sides)
    at_mono_ns = time.monotonic_ns() + 300_000_000

    async def both() -> list[CutDone]:
        wanted = (Cut("left", {"lnk2": "drop"}), Cut("right", {"lnk3": "drop"}))
        return list(await asyncio.gather(*(a.links.cut(cut, at_mono_ns) for cut in wanted)))

    assert all(done.effective_mono_ns - at_mono_ns < 1e9 for done in a.call(asyncio.run, both()))
    state = a.call(a.links.read)
    assert ([link.is_cut for link in state.links], state.mismatches) == (["drop", "drop"], ())
    a.heal("left")
    a.heal("right")


def test_a_rejecting_cut_answers_at_once(sides: tuple[Side, Side, Side]) -> None:
    a, b, _ = sides
    put(sides)
    a.cut(Cut("no", {"lnk2": "reject"}))
    try:
        connect = f"timeout 20 python3 -c 'import socket; socket.create_connection((\"{a.address}\", 9), 15)' 2>&1 || true"
        assert "ConnectionRefusedError" in b.run(connect)
        assert a.call(a.links.read).links[0].is_cut == "reject"
    finally:
        a.heal("no")


def test_a_cut_waits_for_its_moment(sides: tuple[Side, Side, Side]) -> None:
    a, b, _ = sides
    put(sides)
    at_mono_ns = time.monotonic_ns() + 400_000_000
    done = a.cut(Cut("later", {"lnk2": "drop"}), at_mono_ns)
    assert done.requested_mono_ns == at_mono_ns
    assert -2e6 < done.effective_mono_ns - at_mono_ns < 1e9
    a.heal("later")
    assert a.hears(b)


@pytest.mark.by_kernel
def test_whoever_comes_back_is_shaped_and_cut_as_told(sides: tuple[Side, Side, Side]) -> None:
    a, b, _ = sides
    put(sides, Shape(rate_bit_s=8_000_000), Shape(latency_ms=20))
    a.cut(Cut("while", {"lnk3": "drop"}))
    a.restart()
    a.run("tc qdisc delete dev data root; iptables -F INPUT")
    answer = a.call(a.links.resume, None)
    assert answer is not None
    assert answer.mismatches == ()
    assert (answer.links[0].rate_bit_s, answer.links[1].is_cut) == (8_000_000, "drop")
    assert is_soon(lambda: 19.5 < statistics.median(a.rtt_ms(b)) < 25)
    a.heal("while")


@pytest.mark.by_kernel
def test_what_somebody_else_breaks_is_seen_and_repaired(sides: tuple[Side, Side, Side]) -> None:
    a, _, _ = sides
    put(sides, Shape(rate_bit_s=8_000_000), Shape(latency_ms=20), down_bit_s=50_000_000)
    a.cut(Cut("kept", {"lnk3": "drop"}))
    for spoil in (
        "tc class change dev data parent 5ba1:1 classid 5ba1:10 htb rate 9mbit ceil 9mbit quantum 1514",
        "tc filter delete dev data parent 5ba1:",
        "tc qdisc delete dev data root",
        "tc qdisc delete dev data ingress",
        "tc qdisc delete dev ifb-data root",
        "iptables -F SHOAL-C-kept",
        "iptables -D INPUT -j SHOAL-CUT",
        "iptables -t mangle -F SHOAL-HOLD",
        "ip link delete ifb-data",
    ):
        a.run(spoil)
        seen = a.call(a.links.see)
        assert a.links.differences(seen), spoil
        a.call(a.links.repair, seen)
        assert a.call(a.links.read).mismatches == (), spoil
    a.heal("kept")


def test_a_trace_is_followed(sides: tuple[Side, Side, Side]) -> None:
    a, _, _ = sides
    step_s = 10.0 if IS_SLOW else 0.7
    points = (TracePoint(0.0, rate_bit_s=4_000_000), TracePoint(step_s, rate_bit_s=2_000_000))
    a.restart()  # so that the trace begins now
    (a.folder / "links.json").unlink()
    traced = Shape(trace=points, trace_repeats=False)
    assert put(sides, traced).links[0].rate_bit_s == 4_000_000
    time.sleep(a.call(a.links.follow_traces) + 0.01)
    assert a.call(a.links.follow_traces) == float("inf")
    state = a.call(a.links.read)
    assert (state.links[0].rate_bit_s, state.mismatches) == (2_000_000, ())


def test_what_no_engine_was_chosen_for_is_refused(sides: tuple[Side, Side, Side], tmp_path: Path) -> None:
    a, b, _ = sides
    links = Links(a.name, tmp_path, "none")
    with pytest.raises(UsageError, match="no engine"):
        a.call(links.apply, table(a, {b: (FREE, Shape(latency_ms=5))}))
    assert links.table is None


@pytest.mark.parametrize(
    ("address", "algorithm", "said", "cure"),
    [
        (None, "nonesuch", "no congestion control nonesuch", "cubic"),
        ("10.99.0.1", "cubic", "the way to", ""),
    ],
)
def test_a_way_that_cannot_be_set_is_told_with_its_cause(
    sides: tuple[Side, Side, Side], address: str | None, algorithm: str, said: str, cure: str
) -> None:
    side = sides[0]
    with pytest.raises(HostError, match=said) as told:
        side.call(side.links.kernel.set_way, SUBNET, address or side.address, algorithm)
    assert cure in told.value.hint
    assert bool(cure) == bool(told.value.hint)


def forwarded(side: Side) -> int:
    """Packets that it has sent on for others."""
    names, values = (
        line.split() for line in side.run("cat /proc/net/snmp").splitlines() if line.startswith("Ip:")
    )
    return int(values[names.index("ForwDatagrams")])


def test_a_peer_behind_something_is_sent_to_by_that_until_it_is_not_asked_any_more(
    sides: tuple[Side, Side, Side],
) -> None:
    a, b, c = sides
    direct = table(a, {b: (FREE, FREE), c: (FREE, FREE)})
    behind = dataclasses.replace(direct.peers[0], via=c.address)
    through = dataclasses.replace(direct, peers=(behind, direct.peers[1]))
    put(sides)
    settings = "/proc/sys/net/ipv4"
    quiet = "".join(f"echo 0 > {settings}/conf/{one}/send_redirects\n" for one in ("all", "data"))
    c.run(f"{quiet}echo 1 > {settings}/ip_forward")

    def said() -> list[str]:
        return a.call(lambda: a.links.differences(a.links.see()))

    try:
        before = forwarded(c)
        assert a.call(a.links.apply, through).mismatches == ()
        assert len(a.rtt_ms(b)) == 10
        assert forwarded(c) - before >= 10
        for broken in (
            f"ip route delete {b.address}",
            f"ip route replace {b.address} via {b.address} dev data congctl lock cubic",
            f"ip route replace {b.address} via {c.address} dev data congctl lock reno",
            f"ip route replace {c.address} via {b.address} dev data",
        ):
            a.run(broken)
            assert len(said()) == 1, broken
            a.call(lambda: a.links.repair(a.links.see()))
            assert said() == [], broken
    finally:
        assert a.call(a.links.apply, direct).mismatches == ()
        c.run(f"echo 0 > {settings}/ip_forward")
    assert "via" not in a.run("ip route show dev data")
    assert len(a.rtt_ms(b)) == 10


@pytest.mark.by_kernel
def test_many_peers_are_applied_soon(sides: tuple[Side, Side, Side]) -> None:
    a, b, _ = sides
    peers = tuple(
        PeerLinks(f"p{n}", f"10.77.40.{n}", Shape(rate_bit_s=1_000_000 + n), Shape(latency_ms=1.0 + n))
        for n in range(2, 66)
    )
    wanted = dataclasses.replace(table(a, {}), peers=peers)
    assert a.call(a.links.apply, wanted).mismatches == ()
    again = a.call(a.links.apply, wanted)
    assert again.mismatches == ()
    print(f"64 peers in {again.applied_ms:.1f} ms")
    assert is_soon(lambda: bit_s(a, b, 2.0) == goodput(1e6))
