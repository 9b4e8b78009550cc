"""open-round.jsonl: what the open round has accepted and refused, durable before anybody is answered."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from aggregator.records import Taken, replace_file
from aggregator.rounds import Refused, Terms
from node.contract import HostError, UsageError
from node.contract.schema import from_json, to_json

JOURNAL_FILE: Final = "open-round.jsonl"


@dataclass(frozen=True)
class Opening:
    """The first line: which round it is, and the record that it follows."""

    predecessor: str
    wall: float
    terms: Terms


@dataclass(frozen=True)
class OpenRound:
    """All that stands in the file."""

    opening: Opening
    accepted: tuple[Taken, ...]
    refused: tuple[Refused, ...]


class Journal:
    def __init__(self, folder: Path) -> None:
        self._file = folder / JOURNAL_FILE

    def begin(self, opening: Opening) -> None:
        """Forget the round before and begin this one, at once."""
        replace_file(self._file, _line("opened", opening))

    def accept(self, taken: Taken) -> None:
        self._append(_line("accepted", taken))

    def refuse(self, refused: Refused) -> None:
        self._append(_line("refused", refused))

    def read(self) -> OpenRound | None:
        """What stands there; the half line of a crash was promised to nobody, and is cut off."""
        try:
            data = self._file.read_bytes()
        except FileNotFoundError:
            return None
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):
            os.truncate(self._file, len(whole))
        opening: Opening | None = None
        accepted: list[Taken] = []
        refused: list[Refused] = []
        for number, line in enumerate(whole.splitlines(), 1):
            where = f"{self._file}:{number}"
            entry = self._entry(line, where)
            if "opened" in entry:
                opening = from_json(Opening, entry["opened"], where)
            elif "accepted" in entry:
                accepted.append(from_json(Taken, entry["accepted"], where))
            else:
                refused.append(from_json(Refused, entry.get("refused"), where))
        return None if opening is None else OpenRound(opening, tuple(accepted), tuple(refused))

    def _entry(self, line: bytes, where: str) -> dict[str, Any]:
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        if not isinstance(entry, dict):
            raise UsageError(
                f"{where}: this is no JSON object", "the file is damaged: remove it to begin the round anew"
            )
        return entry

    def _append(self, line: bytes) -> None:
        descriptor = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        try:
            size_bytes = os.fstat(descriptor).st_size
            try:
                written = os.write(descriptor, line)
                os.fsync(descriptor)
                reason = "" if written == len(line) else "only a part was written"
            except OSError as err:
                reason = err.strerror or str(err)
            if reason:
                os.ftruncate(descriptor, size_bytes)  # half a line would spoil the next one
                raise HostError(f"cannot append to {self._file}: {reason}", "free some space on its disk")
        finally:
            os.close(descriptor)


def _line(kind: str, value: object) -> bytes:
    return json.dumps({kind: to_json(value)}, separators=(",", ":")).encode() + b"\n"
