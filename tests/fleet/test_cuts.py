"""Cuts are true: TCP gets over them as it does over those far away, which its own kernel cannot see."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from pathlib import Path

from node.ipfs.engine import find
from tests.fleet.lab import Member, swarm
from tests.fleet.recovery import wait_until
from tests.fleet.test_recovery import needs_rto_max
from tests.fleet.wires import wired

PORT = 4100
EVERY_S = 0.2
# A repeated byte waits twice as long each time, from 0.2 s on: the retries are due after 12.6 and 25.4 s, so the second
# of them comes long after the heal. Where it begins with up to 0.25 s, it does so, too.
CUT_S = 16.0
PATIENCE_S = 90.0
STOCK = {"tcp_rto_max_ms": 120_000, "tcp_retries2": 15}
CAPPED = {"tcp_rto_max_ms": 1000, "tcp_retries2": 150}
MANY_S = 5.0
FEW_S = 2.0


class Drip:
    """A byte every 0.2 s over one connection, and when they came."""

    def __init__(self, sender: Member, receiver: Member) -> None:
        self.came_s: list[float] = []
        self._ended = threading.Event()
        self._listener = receiver.in_node(lambda: socket.create_server((receiver.address, PORT))).result()
        self._receiving = receiver.in_node(self._receive)
        self._link = sender.in_node(lambda: socket.create_connection((receiver.address, PORT))).result()
        self._link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sending = sender.in_node(self._send)

    def _send(self) -> None:
        while not self._ended.wait(EVERY_S):
            self._link.send(b".")

    def _receive(self) -> None:
        link, _ = self._listener.accept()
        with link:
            while link.recv(1 << 16):
                self.came_s.append(time.monotonic())

    def held_up_s(self, healed_s: float) -> float:
        """From the heal until something came."""
        while not any(came_s > healed_s for came_s in self.came_s):
            assert time.monotonic() < healed_s + PATIENCE_S, "nothing came after the heal"
            assert not self._sending.done(), self._sending.exception()
            time.sleep(EVERY_S)
        return next(came_s for came_s in self.came_s if came_s > healed_s) - healed_s

    def close(self) -> None:
        self._ended.set()
        self._sending.result(PATIENCE_S)
        with contextlib.suppress(OSError):
            self._link.shutdown(socket.SHUT_WR)
        self._receiving.result(PATIENCE_S)
        self._link.close()
        self._listener.close()


@needs_rto_max
def test_a_cut_costs_tcp_many_seconds_more_unless_its_timer_is_capped(tmp_path: Path) -> None:
    with swarm(find("embedded"), 4, peered=False) as nodes:
        members = dict(zip(("near", "far", "near-capped", "far-capped"), nodes, strict=True))
        for name, member in members.items():
            for key, value in (CAPPED if "capped" in name else STOCK).items():
                member.sh(f"echo {value} > /proc/sys/net/ipv4/{key}")
        with wired(tmp_path, members) as wires:
            drips = [
                Drip(members["near"], members["far"]),
                Drip(members["near-capped"], members["far-capped"]),
            ]
            wait_until(time.monotonic() + 1)
            begun_s = [wires.isolate("near", "far"), wires.isolate("near-capped", "far-capped")]
            wait_until(max(begun_s) + CUT_S)
            healed_s = [wires.heal("near"), wires.heal("near-capped")]
            held_up_s = [drip.held_up_s(at_s) for drip, at_s in zip(drips, healed_s, strict=True)]
            print(f"held up after the heal: {held_up_s[0]:.1f} s; with a capped timer {held_up_s[1]:.2f} s")
            for drip, cut_s, at_s in zip(drips, begun_s, healed_s, strict=True):
                assert any(came_s < cut_s for came_s in drip.came_s)
                assert not any(cut_s + EVERY_S < came_s < at_s for came_s in drip.came_s), "it was not cut"
                drip.close()
    assert held_up_s[0] > MANY_S
    assert held_up_s[1] < FEW_S
