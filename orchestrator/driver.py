"""What a run needs of whoever brings its nodes to life, and the choice among those who can."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Protocol

from node.contract import HostError, UsageError
from node.contract.plan import Plan
from orchestrator.faults.fault import PartControl

DriverName = Literal["netns", "compose"]
Choice = Literal["auto", "netns", "compose"]
CHOICES: Final[tuple[Choice, ...]] = ("auto", "netns", "compose")
ENV_DRIVER: Final = "SHOAL_DRIVER"  # what --driver is where it is not given

Say = Callable[[str], None]
Answer = tuple[bytes, Mapping[str, str]]  # body and headers


class Limits(Protocol):
    """Holds nodes to the CPU and memory of their class."""

    def begin(self, node: str) -> None:
        """The node is ready: its CPU is limited from now on."""

    def said(self) -> dict[str, Any] | None:
        """For binding and results; None when none is limited."""

    def close(self) -> None:
        """When all that was limited has ended, or is about to: take the last figures."""


class Registration(Protocol):
    def add(self, **known: Any) -> None:
        """Let other commands know how to find the fleet."""


@dataclass(frozen=True)
class Job:
    """One run, as its driver is told of it."""

    run: str
    plan: Plan  # as `place` gave it
    directory: Path
    hidden: Path  # the folder of secrets; a node's own is in it, by its name
    logs: Path
    say: Say
    registration: Registration
    # A part that could not tell of its end itself: node, exit status, part, and whether it was ordered.
    ended: Callable[[str, int, str, bool], None]


class Fleet(Protocol):
    """The nodes of one plan. The calls come in this order; HostError says what the host refuses."""

    @property
    def limits(self) -> Limits: ...

    @property
    def parts(self) -> PartControl:
        """What faults do to nodes' processes."""

    @property
    def secrets(self) -> Path:
        """Where nodes find the run's token and swarm key."""

    @property
    def trunks(self) -> str | None:
        """Where nodes have to send what goes through a trunk; None: it gets there by itself."""

    def try_links(self, wanted: str) -> str:
        """What node.links.engine answers where the nodes' kernel is."""

    def begin(self) -> None:
        """What may go on while the data are prepared."""

    def prepare(self, request: Path) -> str:
        """What node.prepare answers where the nodes' daemons are."""

    def task(self, file: str | None) -> str | None:
        """Where nodes find the user's own task."""

    def build(self) -> None:
        """Until nodes can be started."""

    def start(self, prometheus: str) -> None:
        """Start Prometheus, configured so, and all nodes: their settings are in `hidden`/NODE.json."""

    def ask(
        self,
        node: str,
        method: str,
        path: str,
        body: bytes | None,
        headers: Mapping[str, str],
        timeout_s: float,
    ) -> Answer:
        """One request to a node's agent; GateError when it does not answer, also before the start."""

    def ask_prometheus(self, path: str, timeout_s: float) -> bytes: ...

    def look(self) -> None:
        """A round was closed: a moment to see what nodes take; returns at once."""

    def memory_bytes(self) -> Mapping[str, float]:
        """The most that was seen so, by node; empty where the agents see their nodes' parts themselves."""

    def pages(self) -> Mapping[str, str]:
        """What a person may look at while the fleet lives: name → URL."""

    def facts(self) -> dict[str, Any]:
        """For binding and results: what of the host the nodes live on."""

    def leave(self) -> None:
        """What ends from now on is meant to."""


class Driver(Protocol):
    """One way to bring nodes to life."""

    name: DriverName

    def place(self, plan: Plan, say: Say) -> Plan:
        """The plan with addresses that are free here; HostError when this host cannot carry it out."""

    def open(self, job: Job) -> AbstractContextManager[Fleet]:
        """A fleet, of which nothing is left afterwards."""


def choose(wanted: str | None, say: Say) -> Driver:
    """Compose where an engine answers, else netns, unless one is wanted."""
    from orchestrator.boxes.boxed import NetnsDriver

    named = wanted or os.environ.get(ENV_DRIVER) or "auto"
    if named not in CHOICES:
        raise UsageError(f"there is no driver {named!r}", f"one of {', '.join(CHOICES)}")
    if named == "netns":
        return NetnsDriver()
    from orchestrator.containers.compose import ComposeDriver

    if named == "compose":
        return ComposeDriver()
    try:
        ComposeDriver().check()
    except HostError as error:
        say(f"driver netns: {error.message}")
        return NetnsDriver()
    say("driver compose: a Docker engine with Compose answers")
    return ComposeDriver()
