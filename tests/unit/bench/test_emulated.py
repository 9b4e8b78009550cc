"""What the benchmark of whole runs computes, of literal histories and by hand."""

from __future__ import annotations

import math

import pytest

from tests.bench import emulated


def accepted(sender: str, at_s: float) -> dict[str, object]:
    return {"kind": "update_accepted", "sender": sender, "mono_ns": int(at_s * 1e9)}


def test_back_is_the_first_update_after_the_last_node_has_healed() -> None:
    healed = {
        "kind": "fault_healed",
        "mono_ns": 0,
        "effective_ns": {"w01": 10_000_000_000, "agg": 10_500_000_000},
    }
    history = [accepted("w01", 3), healed, accepted("w02", 10.6), accepted("w01", 12), accepted("w01", 13)]
    assert emulated.back_s(history, "w01") == pytest.approx(1.5)
    assert emulated.back_s(history[:3], "w01") == math.inf


def test_the_best_round_is_training_bytes_and_round_trips() -> None:
    payload = 1448 * 100  # as frames 1,211,200 bits: 0.06056 s at 20 Mbit
    assert emulated.best_s(2.0, payload, copies=2) == pytest.approx(2.0 + 2 * 0.06056 + 0.3)


def test_slow_start_leaves_the_link_idle_until_the_window_fills_it() -> None:
    # A frame takes 0.6056 ms of a round trip of 100 ms: windows of 10, 20, 40, 80 do not fill it, 160 and more do nearly.
    idle = [0.1 - window * 0.0006056 for window in (10, 20, 40, 80)]
    assert emulated.slow_start_s(1448 * 5) == 0.0
    assert emulated.slow_start_s(1448 * 25) == pytest.approx(sum(idle[:1]))
    assert emulated.slow_start_s(1448 * 200) == pytest.approx(sum(idle))
