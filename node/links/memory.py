"""What a node's links were told to be, kept in the node's folder: a restarted agent comes back as told."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from node.contract import HostError, UsageError
from node.contract.links import Cut, LinkTable
from node.contract.schema import canonical, from_json
from node.links import leaf

FILE: Final = "links.json"


@dataclass(frozen=True)
class Remembered:
    table: LinkTable | None = None
    cuts: dict[str, Cut] = field(default_factory=dict)  # by fault
    began_mono_ns: int = 0  # when the first table was put in force, and traces began


class Memory:
    def __init__(self, folder: Path) -> None:
        self.now = Remembered()
        self._folder = folder
        self._known_distributions: set[str] = set()

    def read(self) -> Remembered | None:
        """What an earlier agent of this node was told last; nothing when there was none."""
        try:
            text = (self._folder / FILE).read_text()
        except FileNotFoundError:
            return None
        return from_json(Remembered, json.loads(text), FILE)

    def remember(self, what: Remembered) -> None:
        """On the disk when this returns, whole or not at all."""
        with self._replaced(FILE) as file:
            file.write(canonical(what))
            file.flush()
            os.fsync(file.fileno())
        self.now = what

    def table(self) -> LinkTable:
        if self.now.table is None:
            raise UsageError("this node has no links", "give it a table first: PUT /links")
        return self.now.table

    def addresses(self) -> dict[str, str]:
        return {links.peer: links.address for links in self.table().peers}

    def keep_distributions(self, table: LinkTable) -> None:
        """Where tc finds them: in the folder that it starts in."""
        for distribution in leaf.distributions(table):
            if distribution.file not in self._known_distributions:
                with self._replaced(distribution.file) as file:
                    file.write(distribution.text.encode())
                self._known_distributions.add(distribution.file)

    @contextmanager
    def _replaced(self, name: str) -> Iterator[IO[bytes]]:
        new = self._folder / f"{name}.new"
        try:
            with new.open("wb") as file:
                yield file
            new.replace(self._folder / name)
        except OSError as error:
            raise HostError(
                f"cannot write {self._folder / name}: {error.strerror}", "free some space on its disk"
            ) from error
