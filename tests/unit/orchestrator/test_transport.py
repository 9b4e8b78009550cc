"""What is set in a node's TCP, from what its kernel has."""

from __future__ import annotations

from orchestrator.transport import names, settings

USUAL = {"tcp_rmem": "4096 131072 6291456", "tcp_wmem": "4096 16384 4194304"}


def test_what_a_kernel_does_not_know_is_left_out() -> None:
    found = {**USUAL, "tcp_retries2": "15"}
    assert settings("prompt", found) == {
        "tcp_retries2": "8",
        "tcp_rmem": "4096 131072 12582912",
        "tcp_wmem": "4096 16384 8388608",
    }
    assert settings("prompt", {**found, "tcp_rto_max_ms": "120000"})["tcp_rto_max_ms"] == "1000"
    assert settings("patient", found)["tcp_retries2"] == "150"
    assert set(settings("stock", found)) == set(USUAL)


def test_room_that_is_larger_already_stays() -> None:
    large = {"tcp_rmem": "4096 131072 33554432", "tcp_wmem": "4096 16384 33554432"}
    assert settings("stock", large) == {}


def test_all_that_may_be_set_is_looked_at_before() -> None:
    assert set(settings("prompt", dict.fromkeys(names("prompt"), "1 2 3"))) == set(names("prompt"))
