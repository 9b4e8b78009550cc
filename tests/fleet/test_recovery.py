"""How a fetch, a tunnel and a connection come through cuts, crashes and slow links."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from node.ipfs.engine import find
from tests.fleet.echo import Echo
from tests.fleet.lab import cut, heal, shape, swarm
from tests.fleet.recovery import MIB, cut_in_mid_fetch, restart_after_kill, wait_until

MOVES_AGAIN_WITHIN_S = 3.0
RECONNECTS_WITHIN_S = 1.0

needs_rto_max = pytest.mark.skipif(
    not Path("/proc/sys/net/ipv4/tcp_rto_max_ms").exists(),
    reason="this kernel has no tcp_rto_max_ms (Linux 6.15): recovery is slower here, and has no bound to test",
)


@needs_rto_max
def test_a_fetch_moves_again_soon_after_a_cut_of_5_s() -> None:
    assert cut_in_mid_fetch(find("embedded"), "prompt", 5) <= MOVES_AGAIN_WITHIN_S


@needs_rto_max
@pytest.mark.long
@pytest.mark.parametrize("cut_s", [30, 90])
@pytest.mark.parametrize("transport", ["prompt", "patient"])
def test_a_fetch_moves_again_soon_after_a_long_cut(transport: str, cut_s: int) -> None:
    assert cut_in_mid_fetch(find("embedded"), transport, cut_s) <= MOVES_AGAIN_WITHIN_S


@pytest.mark.long
def test_stock_recovers_too_in_its_own_time() -> None:
    assert cut_in_mid_fetch(find("embedded"), "stock", 30) < 60


@pytest.mark.long
@pytest.mark.parametrize("transport", ["prompt", "patient", "stock"])
def test_a_slow_healthy_link_is_never_declared_dead(transport: str) -> None:
    """2 MiB at 0.25 Mbit take 67 s at best; not one connection may be closed in that time."""
    with swarm(find("embedded"), 2, transport=transport) as (provider, fetcher):
        shape(provider, "250kbit")
        shape(fetcher, "250kbit")
        data = os.urandom(2 * MIB)
        cid = provider.call(lambda client: client.add(data))
        closed = "libp2p_swarm_connections_closed_total"
        before = [m.call(lambda client: client.metrics()).get(closed, 0) for m in (provider, fetcher)]
        content = fetcher.call(
            lambda client: client.fetch(cid, max_bytes=len(data), stall_s=1000, timeout_s=200)
        )
        after = [m.call(lambda client: client.metrics()).get(closed, 0) for m in (provider, fetcher)]
        assert content == data
        assert after == before


def test_a_killed_peer_is_connected_again_soon_after_its_restart() -> None:
    assert restart_after_kill(find("embedded")) <= RECONNECTS_WITHIN_S


@pytest.mark.long
def test_patient_keeps_a_tunnel_through_a_long_cut() -> None:
    """What prompt gives up after seconds, patient holds; the echo is the same connection's."""
    with swarm(find("embedded"), 2, transport="patient") as (server, asker), Echo(server, asker) as echo:
        assert echo(b"before") == b"before"
        cut(server, asker)
        wait_until(time.monotonic() + 30)
        heal(server, asker)
        assert echo(b"after") == b"after"
