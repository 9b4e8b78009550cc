"""The directory of a run, which describes it completely; others may see it, so no key or token is in it."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

FILES: Final = {
    "README.md": "this page",
    "scenario.yaml": "the scenario as it was written",
    "plan.json": "scenario and seed resolved, and nothing of the host",
    "binding.json": "what host and run added: driver, engines, peer IDs, CIDs of the shards, limits",
    "compose.yaml": "the fleet as Docker Compose was told of it, when it was one of containers",
    ".env": "what Compose reads beside it: the services of the profile observability are on",
    "facts.json": "the host: kernel, CPU, versions",
    "history.jsonl": "every event of every node, one JSON object in a line",
    "results.json": "the verdict, the checks and the figures; orchestrator/verdict/results.py says what each means",
    "report.txt": "the same for people",
    "calibration.json": "links measured before round 1 against what was asked",
    "links.json": "what each node read back of its links at the end: engine, how its holder wakes, counters",
    "series": "every scraped metric, a file for each",
    "logs": "what every part of every node said",
    "chain": "the aggregator's durable state: the newest record's name and the open round",
}


class RunDirectory:
    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, runs: Path, scenario: str, source: Path) -> RunDirectory:
        """`runs/<scenario>/<UTC time>/`, and `latest` beside it points there."""
        parent = runs / scenario
        parent.mkdir(parents=True, exist_ok=True)
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        for attempt in range(100):
            path = parent / (stamp if not attempt else f"{stamp}-{attempt}")
            try:
                path.mkdir()
                break
            except FileExistsError:
                continue  # another run of this scenario began in the same second
        shutil.copyfile(source, path / "scenario.yaml")
        link = parent / f".latest-{os.getpid()}"
        link.symlink_to(path.name)
        link.replace(parent / "latest")
        return cls(path)

    @property
    def id(self) -> str:
        return f"{self.path.parent.name}-{self.path.name}".lower()

    def write(self, name: str, value: Any) -> None:
        """A file of JSON, replaced whole."""
        self.write_bytes(name, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())

    def write_bytes(self, name: str, data: bytes) -> None:
        part = self.path / f"{name}.part"
        part.write_bytes(data)
        part.replace(self.path / name)

    def write_readme(self, summary: str) -> None:
        present = [name for name in FILES if name == "README.md" or (self.path / name).exists()]
        lines = [
            f"# {self.path.parent.name}, {self.path.name}",
            "",
            summary,
            "",
            "| file | what it is |",
            "| --- | --- |",
        ]
        lines += [f"| `{name}` | {FILES[name]} |" for name in present]
        self.write_bytes("README.md", ("\n".join(lines) + "\n").encode())


@contextmanager
def secret_folder() -> Iterator[Path]:
    """A folder that only its owner can enter, outside of the run's, and gone at the end."""
    place = os.environ.get("XDG_RUNTIME_DIR")
    parent = (
        place if place and os.access(place, os.W_OK) and shutil.disk_usage(place).free > 1 << 32 else None
    )
    with tempfile.TemporaryDirectory(prefix="shoal-", dir=parent, ignore_cleanup_errors=True) as folder:
        yield Path(folder)
