"""Prometheus for one run: how it is configured and started, and how its series leave it at the end."""

from __future__ import annotations

import csv
import json
import math
import time
import urllib.parse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import yaml

from node.contract import HostError, ShoalError
from node.contract.plan import Plan
from node.contract.settings import AGENT_PORT, PROMETHEUS_PORT
from orchestrator import prometheus_setup, setup
from orchestrator.prometheus_setup import Prometheus

JOB: Final = "node"
LOOPBACK: Final = "127.0.0.1"
# Of fleets up to this many nodes each is scraped so often: seldom enough to cost next to nothing.
SCRAPE_EVERY: Final = ((6, "1s"), (50, "2s"))
SCRAPE_SELDOM: Final = "5s"
SCRAPED_PROBE_S: Final = 0.1
COLUMNS: Final = ("time", "labels", "value")

Get = Callable[[str], bytes]  # a path of Prometheus' HTTP to what it answers
Format = Literal["parquet", "csv"]


def find() -> Prometheus:
    """The Prometheus that `make setup` found or brought."""
    found = prometheus_setup.find(setup.prometheus_folder())
    if found is None:
        raise HostError("There is no Prometheus here.", "run `make setup`")
    return found


def configuration(plan: Plan) -> str:
    """What Prometheus is told: each node's agent, by its address on `ctl`."""
    interval = scrape_interval(len(plan.nodes))
    scrape = {
        "job_name": JOB,
        "metrics_path": "/metrics",
        "static_configs": [
            {"targets": [f"{node.ctl_address}:{AGENT_PORT}"], "labels": {"node": node.name}}
            for node in plan.nodes
        ],
    }
    timing = {"scrape_interval": interval, "scrape_timeout": interval}
    return yaml.safe_dump({"global": timing, "scrape_configs": [scrape]}, sort_keys=False)


def scrape_interval(nodes: int) -> str:
    """How often each node of so large a fleet is scraped."""
    return next((every for most, every in SCRAPE_EVERY if nodes <= most), SCRAPE_SELDOM)


def argv(
    program: Prometheus, configuration_file: Path, data_folder: Path, *, port: int = PROMETHEUS_PORT
) -> list[str]:
    """The command that starts it on loopback; the APIs that change it stay off, and no page may ask it."""
    command = [
        str(program.binary),
        f"--config.file={configuration_file}",
        f"--storage.tsdb.path={data_folder}",
        f"--web.listen-address={LOOPBACK}:{port}",
        "--web.cors.origin=none",
        "--log.level=warn",
    ]
    if program.assets is not None:
        command.append(f"--web.local-assets={program.assets}")
    return command


def wait_scraped(get: Get, targets: int, since_s: float, timeout_s: float) -> bool:
    """Until every target was scraped, or tried, since then; Prometheus begins seconds after its start."""
    query = urllib.parse.urlencode({"query": f"count(timestamp(up) >= {since_s:.3f})"})
    deadline = time.monotonic() + timeout_s
    while True:
        counted = data_of(get(f"/api/v1/query?{query}"))["result"]
        if counted and int(counted[0]["value"][1]) >= targets:
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(SCRAPED_PROBE_S)


@dataclass(frozen=True)
class Exported:
    """One metric's file."""

    name: str
    file: str
    samples: int


def export(
    get: Get, folder: Path, *, since_s: float = 0.0, until_s: float | None = None, form: Format = "parquet"
) -> list[Exported]:
    """Every sample that was scraped, by default of all time: one file for each metric's name."""
    folder.mkdir(parents=True, exist_ok=True)
    window = since_s, time.time() if until_s is None else until_s
    exported = []
    for name in sorted(data_of(get("/api/v1/label/__name__/values"))):
        rows = _rows(get, name, *window)
        if rows:
            file = f"{urllib.parse.quote(name, safe='')}.{form}"
            WRITERS[form](folder / file, rows)
            exported.append(Exported(name, file, len(rows)))
    return exported


Row = tuple[int, str, float]  # milliseconds since the epoch, labels as JSON, value


def _rows(get: Get, name: str, since_s: float, until_s: float) -> list[Row]:
    """The samples of a metric at the times at which they were scraped, in order of labels and time."""
    # A range selector gives samples as they are; query_range would give them on a grid.
    selector = f"{{__name__={json.dumps(name)}}}[{max(1, math.ceil((until_s - since_s) * 1000))}ms]"
    query = urllib.parse.urlencode({"query": selector, "time": f"{until_s:.3f}"})
    rows = []
    for series in data_of(get(f"/api/v1/query?{query}"))["result"]:
        labels = {key: value for key, value in series["metric"].items() if key != "__name__"}
        text = json.dumps(labels, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        rows += [(round(time_s * 1000), text, float(value)) for time_s, value in series.get("values", [])]
    return sorted(rows, key=lambda row: (row[1], row[0]))


def data_of(answer: bytes) -> Any:
    """What Prometheus answered, without its envelope; ShoalError when it refused."""
    try:
        said = json.loads(answer)
    except ValueError as error:
        raise ShoalError(f"Prometheus did not answer with JSON: {answer[:200]!r}") from error
    if said.get("status") != "success":
        raise ShoalError(f"Prometheus refused a query: {said.get('error', said)}")
    return said["data"]


def _write_csv(file: Path, rows: Sequence[Row]) -> None:
    with file.open("w", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows((f"{time_ms / 1000:.3f}", labels, repr(value)) for time_ms, labels, value in rows)


def _write_parquet(file: Path, rows: Sequence[Row]) -> None:
    import pyarrow as arrow  # heavy: only the end of a run needs it
    from pyarrow import parquet

    times, labels, values = zip(*rows, strict=True) if rows else ((), (), ())
    columns = [
        arrow.array(times, arrow.timestamp("ms", tz="UTC")),
        arrow.array(labels, arrow.string()).dictionary_encode(),
        arrow.array(values, arrow.float64()),
    ]
    parquet.write_table(arrow.table(columns, names=list(COLUMNS)), file)


WRITERS: Final[dict[Format, Callable[[Path, Sequence[Row]], None]]] = {
    "csv": _write_csv,
    "parquet": _write_parquet,
}
