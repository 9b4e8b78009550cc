"""What every driver sets in the network namespace of each node. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

# How soon TCP notices a dead link and its return, for engines whose sockets cannot be told.
SYSCTLS: Final[Mapping[str, Mapping[str, int]]] = {
    "prompt": {"tcp_rto_max_ms": 1000, "tcp_retries2": 8},
    "stock": {},
    "patient": {"tcp_rto_max_ms": 1000, "tcp_retries2": 150},
}

# The most that a TCP socket may hold. Limits count memory, and packets of one segment take about twice as
# much as a real host's for the same payload: with Linux' 4 MiB a stream got 72 of 100 Mbit/s at 200 ms,
# with this 96.
MOST_BYTES: Final[Mapping[str, int]] = {"tcp_rmem": 12 << 20, "tcp_wmem": 8 << 20}


def settings(transport: str, found: Mapping[str, str]) -> dict[str, str]:
    """Of /proc/sys/net/ipv4, from what a fresh namespace has; what its kernel does not know is left out."""
    wanted = {name: str(value) for name, value in SYSCTLS[transport].items() if name in found}
    for name, most in MOST_BYTES.items():
        least, usual, has = found.get(name, f"0 0 {most}").split()
        if int(has) < most:
            wanted[name] = f"{least} {usual} {most}"
    return wanted


def names(transport: str) -> Sequence[str]:
    """What has to be looked at before."""
    return (*SYSCTLS[transport], *MOST_BYTES)
