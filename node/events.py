"""A node's events: appended by its parts to one file, and read back by byte offset."""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from node.contract import HostError
from node.contract.events import EVENTS
from node.contract.schema import to_json

MAX_READ_BYTES: Final = 1 << 20
SHARED: Final = 0o660  # parts of a node may be of different users, who have a group in common
LOOK_S: Final = 0.05


class Events:
    """Appends lines to `path`; several processes may do so at once, each line stays whole."""

    def __init__(self, path: str | os.PathLike[str], node: str) -> None:
        self.path = Path(path)
        self._node = node

    def write(self, kind: str, **fields: Any) -> None:
        """One event with exactly the keys that the table in contract/events.py names."""
        check(kind, fields)
        stamp = {"kind": kind, "node": self._node, "wall": time.time(), "mono_ns": time.monotonic_ns()}
        line = json.dumps(_plain({**stamp, **fields}), separators=(",", ":"), allow_nan=False) + "\n"
        self._append(line.encode())

    def _append(self, line: bytes) -> None:
        # Opened each time: parts fork, and a lock would be shared with whoever shares the descriptor.
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, SHARED)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            size_bytes = os.fstat(descriptor).st_size
            try:
                written = os.write(descriptor, line)
            except OSError as error:
                raise self._unwritten(error.errno) from error
            if written != len(line):  # the disk is full: half a line would spoil the next one
                os.ftruncate(descriptor, size_bytes)
                raise self._unwritten(errno.ENOSPC)
        finally:
            os.close(descriptor)

    def _unwritten(self, number: int | None) -> HostError:
        return HostError(
            f"cannot append to {self.path}: {os.strerror(number or 0)}", "free some space on its disk"
        )


def check(kind: str, fields: Mapping[str, Any]) -> None:
    """Refuse an event that the contract does not know as such."""
    if kind not in EVENTS:
        raise ValueError(f"there is no event {kind!r}; known are {', '.join(sorted(EVENTS))}")
    wanted = set(EVENTS[kind].split())
    missing, unknown = sorted(wanted - set(fields)), sorted(set(fields) - wanted)
    if missing or unknown:
        raise ValueError(f"event {kind}: missing keys {missing}, unknown keys {unknown}")


def read_from(
    path: str | os.PathLike[str], offset: int, max_bytes: int = MAX_READ_BYTES
) -> tuple[bytes, int]:
    """The whole lines that begin at a byte offset, and the offset behind them."""
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            data = file.read(max_bytes)
            if data and b"\n" not in data:  # one line longer than the bound
                data += file.readline()
    except FileNotFoundError:
        return b"", offset
    whole = data[: data.rfind(b"\n") + 1]
    return whole, offset + len(whole)


def wait_event(path: str | os.PathLike[str], kind: str, timeout_s: float) -> bool:
    """Until one of this kind is there, whoever writes it; whether it came in time."""
    deadline = time.monotonic() + timeout_s
    offset = 0
    while True:
        lines, offset = read_from(path, offset)
        if any(json.loads(line)["kind"] == kind for line in lines.splitlines()):
            return True
        if not lines:
            if time.monotonic() >= deadline:
                return False
            time.sleep(LOOK_S)  # other processes append to the file; a look is one open


def _plain(value: Any) -> Any:
    """JSON's own types; what is not finite becomes null, because JSON has no word for it."""
    value = to_json(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value
