"""An agent that dies comes back, and others wait until its links are in force."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from node import agent
from node.contract import HostError
from node.contract.links import LinkTable
from node.events import Events
from node.fork import Signals
from node.part import AGENT_RESTARTS, Agent, Forked, Part
from node.supervisor import supervise
from tests.unit.node.test_agent import settings_in

LINKS = LinkTable("w1", "10.77.0.1", "10.77.0.0/24", None, None, ())


def told(folder: Path, kind: str) -> list[dict[str, object]]:
    lines = (folder / "events.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["kind"] == kind]


def parts(folder: Path, *, has_links: bool = True) -> tuple[list[Part], Events]:
    """An agent, and a role that ends at once."""
    events = Events(folder / "events.jsonl", "w1")
    settings = settings_in(folder)
    if has_links:
        settings = type(settings)(**{**vars(settings), "links": LINKS})
    role = Forked("trainer", lambda: 0, events, is_role=True)
    return [Agent(settings, events), role], events


def ends(monkeypatch: pytest.MonkeyPatch, number: int | None, *, ready: bool = True) -> None:
    """The agent ends by this signal, or by a ShoalError, as soon as it is ready, or before."""

    def run(_: object, tell: object) -> int:
        if ready:
            assert callable(tell)
            tell()
        if number is None:
            raise HostError("no network")
        os.kill(os.getpid(), number)
        signal.pause()
        return 0

    monkeypatch.setattr(agent, "run", run)


def test_a_killed_agent_is_started_again_a_bounded_number_of_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends(monkeypatch, signal.SIGKILL)
    made, events = parts(tmp_path)
    assert supervise(made, events) != 0
    started = [event for event in told(tmp_path, "part_started") if event["part"] == "agent"]
    ended = [event for event in told(tmp_path, "part_ended") if event["part"] == "agent"]
    assert len(started) == len(ended) == 1 + AGENT_RESTARTS
    assert [event["expected"] for event in ended] == [False] * len(ended)


def test_what_an_agent_refuses_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ends(monkeypatch, None)
    made, events = parts(tmp_path)
    assert supervise(made, events) == 69
    assert len(told(tmp_path, "part_started")) <= 2


def test_nobody_starts_on_links_that_are_not_in_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends(monkeypatch, None, ready=False)
    made, events = parts(tmp_path)
    assert supervise(made, events) == 69
    assert [event["part"] for event in told(tmp_path, "part_started")] == ["agent"]
    (failed,) = told(tmp_path, "failed")
    assert failed["message"] == "no network"


def test_without_links_nobody_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(_: object, __: object) -> int:
        signal.pause()
        return 0

    monkeypatch.setattr(agent, "run", run)
    (part, _), _ = parts(tmp_path, has_links=False)
    with Signals(signal.SIGTERM, signal.SIGCHLD) as signals:
        started = part.start()
        try:
            assert part.wait_ready(signals, 0.0)
        finally:
            started.signal(signal.SIGKILL)
            part.stop(signals)


def test_links_that_take_too_long_are_not_in_force(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(_: object, __: object) -> int:
        signal.pause()
        return 0

    monkeypatch.setattr(agent, "run", run)
    (part, _), _ = parts(tmp_path)
    with Signals(signal.SIGTERM, signal.SIGCHLD) as signals:
        started = part.start()
        try:
            assert not part.wait_ready(signals, 0.01)
        finally:
            started.signal(signal.SIGKILL)
            part.stop(signals)
