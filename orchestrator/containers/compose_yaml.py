"""Pieces of a Compose file, as text that is made to be read. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

# What all containers have in common is written once, and named here by YAML's anchors.
ANCHORS: Final = """\
x-bind: &bind {type: bind, bind: {create_host_path: false}}
x-health: &health {interval: 60s, timeout: 10s, start_period: 120s}
x-health-soon: &health-soon {interval: 2s, timeout: 10s, start_period: 60s}
"""


def quoted(value: str | Sequence[Any] | Mapping[str, Any]) -> str:
    """JSON is YAML; a dollar would begin a variable."""
    return json.dumps(value, ensure_ascii=False).replace("$", "$$")


def labels(node: str, part: str) -> str:
    return f"    labels: {{<<: *labels, shoal.node: {quoted(node)}, shoal.part: {quoted(part)}}}"


def healthcheck(host: str, port: int, *, soon: bool = False) -> str:
    """Whether somebody listens; the engine asks again and again, so it costs 2 ms and not a Python."""
    test = quoted(["CMD", "bash", "-c", f"</dev/tcp/{host}/{port}"])
    return f"    healthcheck: {{<<: *health{'-soon' if soon else ''}, test: {test}}}"


def volumes(*bound: tuple[Path, Path, bool]) -> list[str]:
    """Source, target, and whether it may be written; nothing is made where it is missing."""
    return [
        "    volumes:",
        *(
            f"      - {{<<: *bind, source: {quoted(str(source))}, target: {quoted(str(target))}"
            + ("}" if is_writable else ", read_only: true}")
            for source, target, is_writable in bound
        ),
    ]


def same(path: Path, *, writable: bool = False) -> tuple[Path, Path, bool]:
    """At the same place inside, so that settings mean the same on every driver."""
    return path, path, writable
