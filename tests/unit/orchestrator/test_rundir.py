"""The directory of a run, its history, and the secrets beside it."""

from __future__ import annotations

import json
import stat
import threading
from pathlib import Path

from orchestrator.history import History
from orchestrator.runs.rundir import FILES, RunDirectory, secret_folder


def make(tmp_path: Path) -> RunDirectory:
    source = tmp_path / "tiny.yaml"
    source.write_text("summary: tiny\n")
    return RunDirectory.create(tmp_path / "runs", "tiny", source)


def test_two_runs_in_one_second_do_not_meet(tmp_path: Path) -> None:
    one, two = make(tmp_path), make(tmp_path)
    assert one.path != two.path
    assert one.id != two.id
    assert (tmp_path / "runs" / "tiny" / "latest").resolve() == two.path.resolve()
    assert (one.path / "scenario.yaml").read_text() == "summary: tiny\n"


def test_its_readme_names_what_is_there_and_nothing_else(tmp_path: Path) -> None:
    directory = make(tmp_path)
    directory.write("plan.json", {"seed": 7})
    directory.write_readme("two workers")
    page = (directory.path / "README.md").read_text()
    assert "two workers" in page
    assert {name for name in FILES if f"`{name}`" in page} == {"README.md", "scenario.yaml", "plan.json"}
    assert json.loads((directory.path / "plan.json").read_text()) == {"seed": 7}


def test_secrets_are_their_owners_alone_and_go(tmp_path: Path) -> None:
    with secret_folder() as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert not folder.exists()


def test_who_waits_for_an_event_is_woken(tmp_path: Path) -> None:
    history = History(tmp_path / "history.jsonl")
    waiter_ended = threading.Event()

    def wait() -> None:
        assert history.wait(lambda events: len(events) == 2, 20)
        waiter_ended.set()

    waiter = threading.Thread(target=wait)
    waiter.start()
    history.note("run_started", seed=7)
    history.add({"kind": "ipfs_ready", "node": "w01", "wall": 1.0, "mono_ns": 1})
    assert waiter_ended.wait(20)
    waiter.join()
    assert [event["kind"] for event in history.wait_news(1, 0)] == ["ipfs_ready"]
    assert history.of("ipfs_ready", "w02") == []
    history.close()
    lines = (tmp_path / "history.jsonl").read_text().splitlines()
    assert [json.loads(line)["node"] for line in lines] == ["orchestrator", "w01"]
