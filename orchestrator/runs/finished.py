"""Runs that have left their directory: found by path, or the latest of a scenario; and their report."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

from node.contract import ExitCode, UsageError
from orchestrator.planning import listing
from orchestrator import nearest

RUNS: Final = Path("runs")  # below the folder where the person stands, as `shoal run` has it


def find(named: str) -> Path:
    """The directory of a run: a path, or a scenario's name for the latest."""
    for path in (Path(named), RUNS / named / "latest"):
        if (path / "plan.json").is_file():
            return path.resolve()
    known = [path.parent.name for path in RUNS.glob("*/latest")]
    raise UsageError(
        f"{named!r} is neither a run's directory nor a scenario that was run here", nearest.hint(named, known)
    )


def report(options: argparse.Namespace) -> int:
    """Print the report of a run that has one."""
    directory = find(options.finished)
    file = directory / ("results.json" if options.json else "report.txt")
    try:
        sys.stdout.write(file.read_text())
    except FileNotFoundError as error:
        raise UsageError(
            f"{listing.shown(directory)} has no report",
            "the run is not at its verdict yet, or was killed before; "
            "what was heard until then is in its history.jsonl",
        ) from error
    return ExitCode.HELD
