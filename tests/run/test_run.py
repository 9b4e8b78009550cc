"""Whole runs from the command line: real TFF, real daemons, a real Prometheus, in a box of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from node.contract import events
from orchestrator.verdict import results
from tests.run.place import TOP, Place, wait_said

RUN_S = 240.0
TINY = TOP / "tests" / "run" / "tiny.yaml"


@dataclass(frozen=True)
class Ran:
    status: int
    said: str
    directory: Path
    results: dict[str, Any]

    def history(self, kind: str) -> list[dict[str, Any]]:
        lines = (self.directory / "history.jsonl").read_text().splitlines()
        return [event for event in map(json.loads, lines) if event["kind"] == kind]


def shoal(*words: str, cwd: Path) -> subprocess.Popen[str]:
    """The command line in a folder of its own, so that its runs go there."""
    return subprocess.Popen(
        [sys.executable, "-m", "orchestrator.cli", *words],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(TOP)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def ended(process: subprocess.Popen[str], cwd: Path) -> Ran:
    with process:
        said, _ = process.communicate(timeout=RUN_S)
    directory = (cwd / "runs" / "tiny" / "latest").resolve()
    return Ran(process.returncode, said, directory, json.loads((directory / "results.json").read_text()))


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    cwd = tmp_path_factory.mktemp("ran")
    return ended(shoal("run", str(TINY), cwd=cwd), cwd)


def test_it_trains_and_holds(ran: Ran) -> None:
    assert ran.status == 0, ran.said
    assert ran.said.splitlines()[-1] == "verdict: held"
    assert ran.results["rounds_completed"] == 3
    assert ran.results["final_model_cid"].startswith("baf")
    assert ran.results["driver"] == "netns"
    assert ran.results["transport"] == "prompt"
    assert ran.results["repeatable"] is True


def test_every_key_of_the_results_is_explained_and_known(ran: Ran) -> None:
    assert set(ran.results) == set(results.KEYS)
    assert [
        key for key, value in ran.results.items() if value is None and key not in results.MAY_BE_NULL
    ] == []


def test_every_event_is_of_the_table(ran: Ran) -> None:
    for line in (ran.directory / "history.jsonl").read_text().splitlines():
        event = json.loads(line)
        if event["node"] != "orchestrator":
            assert set(event) - {"kind", "node", "wall", "mono_ns"} == set(
                events.EVENTS[event["kind"]].split()
            )


def test_the_directory_describes_the_run_and_holds_no_secret(ran: Ran) -> None:
    for name in ("scenario.yaml", "plan.json", "binding.json", "facts.json", "report.txt", "README.md"):
        assert (ran.directory / name).is_file(), name
    assert any((ran.directory / "series").iterdir())
    assert (ran.directory / "chain" / "head").is_file()
    everything = b"".join(file.read_bytes() for file in ran.directory.rglob("*") if file.is_file())
    for secret in (b"/key/swarm/psk", b"PrivKey", b"Bearer "):
        assert secret not in everything


def test_each_round_counts_both_workers(ran: Ran) -> None:
    assert [event["accepted"] for event in ran.history("round_closed")] == [["w01", "w02"]] * 3
    assert [round_["missing"] for round_ in ran.results["rounds"]] == [[], [], []]


def test_the_same_seed_gives_the_same_model_and_another_one_another(ran: Ran, tmp_path: Path) -> None:
    seeds = {"again": "7", "other": "8"}
    for name in seeds:
        (tmp_path / name).mkdir()
    # At once: nothing is measured, and each has a network of its own.
    begun = {
        name: shoal("run", str(TINY), "--seed", seed, cwd=tmp_path / name) for name, seed in seeds.items()
    }
    again, other = (ended(process, tmp_path / name) for name, process in begun.items())
    assert again.results["final_model_cid"] == ran.results["final_model_cid"]
    assert other.results["final_model_cid"] != ran.results["final_model_cid"]


@pytest.mark.parametrize("moment", ["preparing", "starting", "IPFS daemons are up", "round 1/3"])
def test_a_killed_orchestrator_leaves_nothing(place: Place, moment: str) -> None:
    with place.start(TINY) as process:
        wait_said(process, moment)
        process.kill()
    place.wait_empty()


def test_an_interrupted_run_says_so_and_leaves_nothing(place: Place) -> None:
    with place.start(TINY) as process:
        wait_said(process, "round 1/3")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        assert process.returncode == 130
    place.wait_empty()
    found = json.loads((place.folder / "runs" / "tiny" / "latest" / "results.json").read_text())
    assert (found["verdict"], found["failure"]) == ("unknown", "interrupted")
