"""Whole runs whose strategy adds noise."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from tests.run.test_run import RUN_S, shoal

NOISY = Path(__file__).with_name("noisy.yaml")


def start(cwd: Path) -> subprocess.Popen[str]:
    cwd.mkdir()
    return shoal("run", str(NOISY), cwd=cwd)


def end(process: subprocess.Popen[str], cwd: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Results and events of one run."""
    with process:
        said, _ = process.communicate(timeout=RUN_S)
    assert process.returncode == 0, said
    directory = cwd / "runs" / "noisy" / "latest"
    lines = (directory / "history.jsonl").read_text().splitlines()
    return json.loads((directory / "results.json").read_text()), [json.loads(line) for line in lines]


def first_updates(history: list[dict[str, Any]]) -> dict[str, str]:
    """Who handed in what in the first round."""
    return {e["node"]: e["update"] for e in history if e["kind"] == "trained" and e["round"] == 1}


def first_model(history: list[dict[str, Any]]) -> str:
    return next(str(e["model"]) for e in history if e["kind"] == "round_closed" and e["round"] == 1)


def test_dp_adds_noise_to_equal_updates_and_says_that_nobody_can_repeat_it(tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    begun = [start(folder) for folder in folders]  # at once: nothing is measured
    (results, history), (_, again) = (end(*one) for one in zip(begun, folders, strict=True))
    assert (results["repeatable"], results["rounds_completed"]) == (False, 2)
    assert results["repeatable_reason"] == "TFF's noise for differential privacy cannot be seeded"
    assert sorted(first_updates(history)) == ["w01", "w02", "w03"]
    assert first_updates(history) == first_updates(again)
    assert first_model(history) != first_model(again)
