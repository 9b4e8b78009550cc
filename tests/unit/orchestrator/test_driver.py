"""Which driver is taken."""

from __future__ import annotations

import pytest

from node.contract import HostError, UsageError
from orchestrator import driver
from orchestrator.containers import engine
from tests.unit.orchestrator.test_schedule import plan_of


def refuse() -> None:
    raise HostError("no engine answers")


@pytest.fixture(autouse=True)
def _nothing_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(driver.ENV_DRIVER, raising=False)


def test_without_an_engine_it_is_netns_and_the_reason_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "find", refuse)
    said: list[str] = []
    assert driver.choose(None, said.append).name == "netns"
    assert said == ["driver netns: no engine answers"]


def test_who_wants_compose_gets_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "find", refuse)
    chosen = driver.choose("compose", print)
    assert chosen.name == "compose"
    with pytest.raises(HostError, match="no engine answers"):
        chosen.place(plan_of(), print)


def test_the_environment_is_asked_after_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(driver.ENV_DRIVER, "compose")
    assert driver.choose(None, print).name == "compose"
    assert driver.choose("netns", print).name == "netns"
    monkeypatch.setenv(driver.ENV_DRIVER, "swarm")
    with pytest.raises(UsageError, match="no driver 'swarm'"):
        driver.choose(None, print)
