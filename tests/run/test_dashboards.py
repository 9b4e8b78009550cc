"""Every query of every panel, asked of the real Prometheus of a real run that has something of everything."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.monitoring import dashboards, panels
from orchestrator.monitoring.panels import Asked
from tests.run.place import TOP, Place, wait_said

SCENARIO = TOP / "tests" / "run" / "dashboards.yaml"
SHOWN_S = 120.0

# Where a kernel has netem no packet is held; tests/links has the series itself.
ONLY_HELD = "Held packets' lateness"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run for all of this file. Whether its links came out as asked is not the question here."""
    folder = tmp_path_factory.mktemp("dashboards")
    place = Place(folder)
    place.temporary.mkdir()
    status, said = place.run(SCENARIO)
    place.wait_empty()
    assert status in (0, 2), said
    return folder / "runs" / "dashboards" / "latest"


@pytest.fixture(scope="module")
def answers(run: Path, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Asked, bool]]:
    folder = tmp_path_factory.mktemp("prometheus")
    window = dashboards.take_in(run, folder)
    with dashboards.served(folder) as server:
        return list(dashboards.answers(server, window))


def test_the_run_has_all_that_the_dashboards_are_about(run: Path) -> None:
    """Else a panel could be empty for want of anything to show."""
    results = json.loads((run / "results.json").read_text())
    events = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    kinds = {event["kind"] for event in events}
    assert {"fault_started", "fault_healed", "update_refused", "control_answered"} <= kinds
    assert results["rounds_completed"] == 6
    plan = json.loads((run / "plan.json").read_text())
    assert any(link.get("loss") for link in plan["links"])
    assert any(link.get("rate_bit_s") for link in plan["links"])


def test_what_its_links_did_is_judged(run: Path) -> None:
    """Rates, losses and a link that got slower come from the nodes' kernels to the verdict."""
    checks = json.loads((run / "results.json").read_text())["checks"]
    assert {one["check"]: one["state"] for one in checks} == {
        "rounds_completed == 6": "held",
        "upload_rate(far) <= 10 Mbit": "held",
        "lost_packets(far) >= 1": "held",
    }
    events = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    verified = [event for event in events if event["kind"] == "fault_verified" and event["fault"] == "rain"]
    assert [(event["phase"], event["verified"]) for event in verified] == [("start", True), ("heal", True)]


@pytest.mark.parametrize("name", panels.NAMES)
def test_every_query_of_a_dashboard_has_data(name: str, run: Path, answers: list[tuple[Asked, bool]]) -> None:
    title = panels.dashboards()[name]["title"]
    of_this = [(asked, found) for asked, found in answers if asked.dashboard == title]
    assert len(of_this) > 10
    engine = json.loads((run / "results.json").read_text())["delay_engine"]
    excused = {ONLY_HELD} if engine == "netem" else set()
    assert [str(asked) for asked, found in of_this if not found and asked.panel not in excused] == []


def test_the_command_shows_it(run: Path, tmp_path: Path) -> None:
    """As a person would call it, by the scenario's name, until Ctrl-C."""
    place = Place(tmp_path)
    argv = [sys.executable, "-m", "orchestrator.cli", "dashboards", "dashboards"]
    env = {**os.environ, "PYTHONPATH": str(TOP), "SHOAL_TEST_MARK": str(tmp_path)}
    with subprocess.Popen(
        argv, cwd=run.parents[2], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        wait_said(process, "Ctrl-C ends it")
        process.send_signal(signal.SIGINT)
        assert process.wait(SHOWN_S) == 0
    place.wait_empty()
