"""The series of a finished run as one text that Prometheus can take in again."""

from __future__ import annotations

import csv
import json
import math
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Final

from orchestrator.monitoring.prometheus import Row

END: Final = "# EOF\n"
ESCAPED: Final = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})


@dataclass(frozen=True)
class Written:
    """What was written, and the time of the first and last sample."""

    samples: int
    since_s: float
    until_s: float


def write(series: Path, out: IO[str]) -> Written:
    """Every exported sample of a folder."""
    count, first_ms, last_ms = 0, math.inf, -math.inf
    for file in sorted(series.iterdir()):
        name = urllib.parse.unquote(file.stem)
        for row in rows(file):
            out.write(line(name, row))
            count += 1
            first_ms, last_ms = min(first_ms, row[0]), max(last_ms, row[0])
    out.write(END)
    return Written(count, first_ms / 1000, last_ms / 1000)


def line(name: str, row: Row) -> str:
    """One sample; seconds with all the milliseconds that there are."""
    time_ms, labels, value = row
    pairs = ",".join(f'{key}="{said.translate(ESCAPED)}"' for key, said in json.loads(labels).items())
    return f"{name}{{{pairs}}} {value!r} {time_ms / 1000:.3f}\n"


def rows(file: Path) -> Iterator[Row]:
    """The samples of one exported file."""
    if file.suffix == ".csv":
        with file.open(newline="") as opened:
            for row in csv.DictReader(opened):
                yield round(float(row["time"]) * 1000), row["labels"], float(row["value"])
        return
    from pyarrow import parquet  # heavy, and only this command needs it

    table: dict[str, list[Any]] = parquet.read_table(file).to_pydict()
    for time, labels, value in zip(table["time"], table["labels"], table["value"], strict=True):
        assert isinstance(time, datetime)
        yield round(time.timestamp() * 1000), labels, value
