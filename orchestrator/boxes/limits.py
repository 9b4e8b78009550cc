"""Limits of CPU and memory: the control groups of one run in a box, or why this host does not enforce them.

A node's parts are born in its groups (node/cgroup.py), its agent is not. Memory is limited from the
beginning: the kernel charges a forked part nothing for pages that it shares with its parent, so the limit
is on top of the shared runtime by itself. CPU is limited from the moment at which the node is ready.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from node.contract.plan import NodePlan
from orchestrator.boxes import cgroups
from orchestrator.boxes.cgroups import KINDS, MEMBERS, Found, Kind, Place, Refused

PERIOD_US: Final = 100_000  # the kernel's own, and Docker's
LEAST_QUOTA_US: Final = 1_000  # the kernel takes no less


@dataclass(frozen=True)
class Setting:
    """What a file of a group is to hold; where it is optional the kernel may have no such file."""

    file: str
    value: str
    is_optional: bool = False


def cpu_settings(version: int, cores: float) -> tuple[Setting, ...]:
    quota_us = max(LEAST_QUOTA_US, round(cores * PERIOD_US))
    if version == 1:
        return (Setting("cpu.cfs_period_us", str(PERIOD_US)), Setting("cpu.cfs_quota_us", str(quota_us)))
    return (Setting("cpu.max", f"{quota_us} {PERIOD_US}"),)


def memory_settings(version: int, limit_bytes: int) -> tuple[Setting, ...]:
    """Swap is no way around the limit, where the kernel counts it."""
    pages = limit_bytes - limit_bytes % os.sysconf("SC_PAGE_SIZE")  # as the kernel rounds it
    if version == 1:
        swap = Setting("memory.memsw.limit_in_bytes", str(pages), is_optional=True)
        return (Setting("memory.limit_in_bytes", str(pages)), swap)
    return (Setting("memory.max", str(pages)), Setting("memory.swap.max", "0", is_optional=True))


def counted(files: Mapping[str, str]) -> dict[str, float]:
    """What the kernel says of a group, from the text of its files, in either version's words."""
    words = {
        file: dict(line.split(maxsplit=1) for line in text.splitlines() if len(line.split()) == 2)
        for file, text in files.items()
    }
    cpu, events = words.get("cpu.stat", {}), words.get("memory.events") or words.get("memory.oom_control", {})
    figures: dict[str, float] = {}
    if "throttled_usec" in cpu:
        figures["throttled_seconds"] = int(cpu["throttled_usec"]) / 1e6
    elif "throttled_time" in cpu:
        figures["throttled_seconds"] = int(cpu["throttled_time"]) / 1e9
    if "oom_kill" in events:
        figures["killed_for_memory"] = int(events["oom_kill"])
    for file in ("memory.peak", "memory.max_usage_in_bytes"):
        if file in files:
            figures["memory_peak_bytes"] = int(files[file])
    return figures


COUNTED: Final = (
    "cpu.stat",
    "memory.events",
    "memory.oom_control",
    "memory.peak",
    "memory.max_usage_in_bytes",
)


class Limits:
    """The groups of one run, made when it is; `name` is unique on this host."""

    def __init__(
        self, nodes: Sequence[NodePlan], name: str, found: Mapping[Kind, Found] | None = None
    ) -> None:
        self._name = name
        self._nodes = {n.name: n for n in nodes if n.cpu is not None or n.memory_bytes is not None}
        self._found: dict[Kind, Found] = {}
        if self._nodes:
            self._found = dict(cgroups.look() if found is None else found)
        self._places = {kind: place for kind, place in self._found.items() if isinstance(place, Place)}
        self._begun: set[str] = set()
        self._counted: dict[str, dict[str, float]] = {}
        for node in self._nodes:
            for kind in KINDS:
                self._prepare(node, kind)

    def groups(self, node: str) -> list[dict[str, str]]:
        """Which groups a node's parts are to be started in, as node/cgroup.py wants it told."""
        homes = {str(self._folder(place, node)): str(place.home) for _, place, _ in self._enforced(node)}
        return [{"folder": folder, "home": home} for folder, home in homes.items()]

    def begin(self, node: str) -> None:
        """The node is ready: its parts must be where they belong, and its CPU is limited from now on."""
        if node in self._begun:
            return
        self._begun.add(node)
        for kind, place, limit in self._enforced(node):
            folder = self._folder(place, node)
            try:
                if not (folder / MEMBERS).read_text().strip():
                    self._found[kind] = Refused(f"no part of {node} is in {folder}")
                elif kind == "cpu":
                    write(folder, cpu_settings(place.version, limit))
            except OSError as error:
                self._found[kind] = Refused.by(error)

    def said(self) -> dict[str, Any] | None:
        """For binding and results: which nodes, how much, and whether it is so; None when none is limited."""
        if not self._nodes:
            return None
        self._count()
        limits = {n.name: {"cpu": n.cpu, "memory_bytes": n.memory_bytes} for n in self._nodes.values()}
        states: dict[str, str] = {
            kind: cgroups.told(found)
            for kind, found in self._found.items()
            if any(self._limit(node, kind) is not None for node in self._nodes)
        }
        return {"nodes": limits, **states, "counted": self._counted}

    def close(self) -> None:
        """When all that was limited has ended: take the last figures, and remove the groups."""
        self._count()
        for node in sorted(self._nodes.keys() - self._begun):
            if self._limit(node, "cpu") is not None and isinstance(self._found["cpu"], Place):
                self._found["cpu"] = Refused(f"{node} was never ready")
        for place in self._places.values():
            cgroups.remove(place.folder / self._name)

    def _enforced(self, node: str) -> list[tuple[Kind, Place, float]]:
        return [
            (kind, found, limit)
            for kind, found in self._found.items()
            if isinstance(found, Place) and (limit := self._limit(node, kind)) is not None
        ]

    def _limit(self, node: str, kind: Kind) -> float | None:
        planned = self._nodes.get(node)
        return None if planned is None else planned.cpu if kind == "cpu" else planned.memory_bytes

    def _folder(self, place: Place, node: str) -> Path:
        return place.folder / self._name / node

    def _prepare(self, node: str, kind: Kind) -> None:
        place, limit = self._found[kind], self._limit(node, kind)
        if isinstance(place, Refused) or limit is None:
            return
        folder = self._folder(place, node)
        try:
            cgroups.make(place, kind, folder)
            if kind == "memory":
                write(folder, memory_settings(place.version, int(limit)))
        except OSError as error:
            self._found[kind] = Refused.by(error)

    def _count(self) -> None:
        for node in self._nodes:
            for place in self._places.values():
                files = {}
                for name in COUNTED:
                    with contextlib.suppress(OSError):  # another version's, or removed already
                        files[name] = (self._folder(place, node) / name).read_text()
                self._counted.setdefault(node, {}).update(counted(files))


def write(folder: Path, settings: Sequence[Setting]) -> None:
    """Write settings and read them back; OSError when the kernel does not hold what it was told."""
    for setting in settings:
        file = folder / setting.file
        if setting.is_optional and not file.exists():
            continue
        file.write_text(setting.value)
        if (held := file.read_text().strip()) != setting.value:
            raise OSError(0, f"holds {held} instead of {setting.value}", str(file))
