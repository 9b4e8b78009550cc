"""A whole run whose strategy adds noise; that no two are alike, tests/learning has."""

from __future__ import annotations

import json
from pathlib import Path

from tests.run.test_run import RUN_S, shoal

NOISY = Path(__file__).with_name("noisy.yaml")


def test_dp_takes_all_updates_and_says_that_nobody_can_repeat_it(tmp_path: Path) -> None:
    with shoal("run", str(NOISY), cwd=tmp_path) as process:
        said, _ = process.communicate(timeout=RUN_S)
    assert process.returncode == 0, said
    directory = tmp_path / "runs" / "noisy" / "latest"
    results = json.loads((directory / "results.json").read_text())
    assert (results["repeatable"], results["rounds_completed"]) == (False, 2)
    assert results["repeatable_reason"] == "TFF's noise for differential privacy cannot be seeded"
    events = [json.loads(line) for line in (directory / "history.jsonl").read_text().splitlines()]
    closed = [event["accepted"] for event in events if event["kind"] == "round_closed"]
    assert closed == [["w01", "w02", "w03"]] * 2
