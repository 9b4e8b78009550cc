"""Every RPC command we use, with every option we send.

The daemons ignore options that they do not know, so a typing error would do nothing and say
nothing. Whatever is not in this table is therefore refused here, before it is sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from node.contract import ShoalError

COMMANDS: Final[Mapping[str, frozenset[str]]] = {
    name: frozenset(options.split())
    for name, options in {
        "commands": "",
        "version": "",
        "id": "",
        "ping": "count",
        "shutdown": "",
        "add": "cid-version raw-leaves chunker max-file-links pin",
        "cat": "offset length offline",
        "block/put": "cid-codec pin",
        "block/get": "offline",
        "block/stat": "offline",
        "block/rm": "force",
        "dag/put": "store-codec input-codec pin",
        "dag/get": "output-codec",
        "pin/add": "recursive",
        "pin/ls": "type",
        "pin/rm": "recursive",
        "repo/stat": "size-only",
        "repo/gc": "quiet stream-errors",
        "swarm/connect": "",
        "swarm/disconnect": "",
        "swarm/peers": "verbose",
        "swarm/peering/add": "",
        "swarm/peering/ls": "",
        "swarm/peering/rm": "",
        "p2p/listen": "report-peer-id",
        "p2p/forward": "",
        "p2p/ls": "",
        "p2p/close": "all protocol listen-address target-address",
        "bitswap/stat": "",
        "bitswap/wantlist": "",
        "stats/bw": "proto peer",
        "key/sign": "key",
        "key/verify": "key signature",
        "pubsub/pub": "",
        "pubsub/sub": "",
        "pubsub/ls": "",
        "pubsub/peers": "",
    }.items()
}
COMMON: Final = frozenset({"arg", "timeout", "encoding", "stream-channels"})  # the last two by ipfshttpclient

Value = str | int | bool


def check(command: str, options: Iterable[str]) -> None:
    """Refuse a command or an option that is not in the table."""
    known = COMMANDS.get(command)
    if known is None:
        raise ShoalError(f"{command} is not in the table of RPC commands", "add it to node/ipfs/commands.py")
    unknown = set(options) - known - COMMON
    if unknown:
        raise ShoalError(
            f"{command} has no option {', '.join(sorted(unknown))} in the table of RPC commands",
            "mind the spelling, or add it to node/ipfs/commands.py",
        )


def query(
    command: str, args: Iterable[str], options: Mapping[str, Value], timeout_s: float | None
) -> list[tuple[str, str]]:
    """The query of one call, checked; None sends no timeout."""
    named = {name.rstrip("_").replace("_", "-"): value for name, value in options.items()}
    check(command, named)
    words = [("arg", arg) for arg in args]
    words += [(n, str(v).lower() if isinstance(v, bool) else str(v)) for n, v in named.items()]
    if timeout_s is not None:
        words.append(("timeout", go_duration(timeout_s)))
    return words


def go_duration(seconds: float) -> str:
    """A duration as Go reads it; without a unit Kubo would answer 200 and do nothing."""
    if not seconds > 0:
        raise ShoalError(f"a timeout must be above 0 s, not {seconds}")
    return f"{max(1, round(seconds * 1000))}ms"
