"""What a run takes from its fleet before the fleet ends: counters, series, logs."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from node.contract.plan import Plan
from orchestrator.driver import Fleet
from orchestrator.gate import GateError
from orchestrator.history import History
from orchestrator.monitoring import prometheus

SCRAPED_S: Final = 15.0  # two of the longest intervals, and Prometheus' own start
PAGE_S: Final = 15.0
EXPORT_S: Final = 60.0
CHAIN_FILES: Final = ("head", "open-round.jsonl")
RECEIVED: Final = "shoal_interface_received_bytes_total"
PEAKS: Final = "shoal_part_proportional_peak_bytes"
IPFS: Final = "ipfs"

Counters = dict[str, dict[str, float]]  # what → node → figure


def counters(plan: Plan, fleet: Fleet) -> Counters:
    """What the agents count at the end of the rounds; no memory where they may not look into others."""
    pages = _pages(plan, fleet)
    received = {name: _figures(page, RECEIVED, "interface") for name, page in pages.items()}
    peaks = {name: _figures(page, PEAKS, "part") for name, page in pages.items()}
    # The daemon lives as long as the agent: who does not know its memory may not look, and part of a sum is
    # none. A role may have ended before anybody asked.
    known = {name: sum(found.values()) for name, found in peaks.items() if IPFS in found}
    return {
        "end": {name: found["data"] for name, found in received.items() if "data" in found},
        **({"memory": known} if known else {}),
        **({"containers": dict(containers)} if (containers := fleet.memory_bytes()) else {}),
    }


def _pages(plan: Plan, fleet: Fleet) -> dict[str, str]:
    """Every agent's metrics; nodes that do not answer are left out."""
    found = {}
    for node in plan.nodes:
        try:
            page, _ = fleet.ask(node.name, "GET", "/metrics", None, {}, PAGE_S)
        except GateError:
            continue
        found[node.name] = page.decode()
    return found


def _figures(page: str, series: str, label: str) -> dict[str, float]:
    """A series' figures by its one label."""
    lines = re.finditer(rf'^{series}{{{label}="([^"]+)"}} (\S+)$', page, re.MULTILINE)
    return {line[1]: float(line[2]) for line in lines}


def export(plan: Plan, fleet: Fleet, history: History, say: Callable[[str], None], into: Path) -> None:
    """Every sample that Prometheus has."""

    def get(path: str) -> bytes:
        return fleet.ask_prometheus(path, EXPORT_S)

    try:
        if not prometheus.wait_scraped(get, len(plan.nodes), time.time(), SCRAPED_S):
            say(f"not every node was scraped within the last {SCRAPED_S:g} s; the series end before")
        prometheus.export(get, into)
    except GateError as err:
        history.note("export_failed", message=str(err))
        say(f"the series were not exported: {err}")


def logs(plan: Plan, hidden: Path, directory: Path) -> None:
    """What the nodes said, and the aggregator's durable state; keys and repositories stay behind."""
    for node in plan.nodes:
        folder = hidden / node.name
        for log in sorted(folder.glob("*.log")):
            into = directory / "logs" / node.name
            into.mkdir(exist_ok=True)
            shutil.copyfile(log, into / log.name)
        for name in CHAIN_FILES:
            if (folder / "aggregator" / name).exists():
                chain = directory / "chain"
                chain.mkdir(exist_ok=True)
                shutil.copyfile(folder / "aggregator" / name, chain / name)
