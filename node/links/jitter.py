"""Jitter as netem draws it: a table of deviations, by the same law as the holder's. Pure.

The kernel draws an entry at random and adds it to the latency, in units of the jitter / 8192; it has 16 bits
for it. So a table that goes far is stretched: smaller entries, and more jitter to multiply them with.
"""

from __future__ import annotations

import itertools
import math
import statistics
import zlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from node.contract.links import JitterKind, Shape
from node.links.delays import PARETO_POWER

UNIT: Final = 8192
FARTHEST: Final = 32767
ENTRIES: Final = 4096
# tc joins a name to a folder of its own and cuts the whole at 127 characters, so its way leads over the root
# to wherever tc was started: there the files are.
TO_WHERE_TC_STARTS: Final = "../" * 8 + "proc/self/cwd"


@dataclass(frozen=True)
class Distribution:
    """What tc reads from a file."""

    name: str
    entries: tuple[int, ...]
    stretch: float  # by which the jitter is multiplied

    @property
    def words(self) -> str:
        return f"{TO_WHERE_TC_STARTS}/{self.name}"

    @property
    def file(self) -> str:
        return f"{self.name}.dist"

    @property
    def text(self) -> str:
        return "\n".join(map(str, self.entries)) + "\n"


def distribution(shape: Shape) -> Distribution | None:
    """None: the kernel's tools bring it."""
    if not shape.jitter_ms or shape.jitter_kind == "normal":
        return None
    return _made(shape.jitter_kind, shape.jitter_table)


@lru_cache(maxsize=64)
def _made(kind: JitterKind, table: tuple[float, ...]) -> Distribution:
    deviations = _pareto() if kind == "pareto" else _between(table)
    stretch = max(1.0, UNIT * max(map(abs, deviations)) / FARTHEST)
    name = f"jitter-{zlib.crc32(repr((kind, table)).encode()):08x}"
    return Distribution(name, tuple(round(UNIT * value / stretch) for value in deviations), stretch)


def _pareto() -> list[float]:
    """The mean of each of equally likely parts of the law; what is lost of its deviation is given back."""
    power = 1.0 - 1.0 / PARETO_POWER
    upto = [(index / ENTRIES) ** power / power for index in range(ENTRIES + 1)]
    means = [ENTRIES * (end - start) for start, end in itertools.pairwise(upto)]
    mean, deviation = statistics.fmean(means), statistics.pstdev(means)
    return [(value - mean) / deviation for value in means]


def _between(table: tuple[float, ...]) -> list[float]:
    """Along the straight lines between the quantiles."""
    found = []
    for index in range(ENTRIES):
        part, low = math.modf((index + 0.5) / ENTRIES * (len(table) - 1))
        first, second = table[int(low)], table[min(int(low) + 1, len(table) - 1)]
        found.append(first + part * (second - first))
    return found
