from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import pytest

from node.contract import ExitCode
from orchestrator import cli, doctor
from orchestrator.doctor import Finding
from orchestrator.planning import listing, plan

Capture = pytest.CaptureFixture[str]


def test_plan_prints_the_plans_bytes_and_nothing_else(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert cli.main(["plan", "baseline", "--seed", "3"]) == 0
    said = capfdbinary.readouterr()
    assert said.out == plan.plan_bytes(plan.make_plan(listing.load("baseline"), 3))
    assert said.err == b""


def test_list_shows_every_scenario_with_its_summary(capsys: Capture) -> None:
    assert cli.main(["list"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in said] == [path.stem for path in listing.files()]
    assert cli.main(["list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert all(row["summary"] in line for row, line in zip(rows, said, strict=True))


def test_new_then_validate(tmp_path: Path, capsys: Capture) -> None:
    path = str(tmp_path / "mine.yaml")
    assert cli.main(["new", path]) == 0
    assert cli.main(["validate", path]) == 0
    assert "mine: right, 9 nodes, 72 links, 3 checks" in capsys.readouterr().out
    assert cli.main(["validate", "--json", path]) == 0
    assert json.loads(capsys.readouterr().out) == [{"name": "mine", "nodes": 9, "links": 72, "checks": 3}]
    assert cli.main(["new", path]) == ExitCode.USAGE


def test_validate_without_a_name_looks_at_all(capsys: Capture) -> None:
    assert cli.main(["validate"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(listing.files())


def test_a_wrong_scenario_is_told_on_standard_error(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "bad.yaml").write_text("summary: x\nflet: {}\n")
    for command in ("validate", "plan", "run"):
        assert cli.main([command, str(tmp_path / "bad.yaml")]) == ExitCode.USAGE
        said = capsys.readouterr()
        assert said.out == ""
        assert "bad.yaml:2: flet: unknown key\n  perhaps you meant fleet" in said.err


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["paln"], "there is no command 'paln'\n  perhaps you meant plan"),
        (["plan", "basline"], "there is no scenario 'basline'\n  perhaps you meant baseline"),
        (["plan"], "the following arguments are required: SCENARIO\n  see: shoal plan --help"),
        (["plan", "baseline", "--seed", "x"], "invalid int value: 'x'"),
        (["plan", "baseline", "--seed", "-1"], "the seed -1 is out of range"),
        (["run", "baseline", "--driver", "swarm"], "invalid choice: 'swarm'"),
        ([], "usage: shoal"),
    ],
)
def test_a_wrong_call_is_64(argv: list[str], said: str, capsys: Capture) -> None:
    assert cli.main(argv) == ExitCode.USAGE
    assert said in capsys.readouterr().err


def test_help_tells_every_exit_code_and_command(capsys: Capture) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert all(f"\n  {code.value} " in said for code in ExitCode)
    assert all(re.search(rf"^    {name}\b", said, re.MULTILINE) for name in cli.parser()[1])


def test_doctor_ends_with_69_when_something_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    good, bad = Finding("ip", True, "found"), Finding("tc", False, "missing", "apt-get install iproute2")
    monkeypatch.setattr(doctor, "examine", lambda: iter([good]))
    assert cli.main(["doctor"]) == ExitCode.HELD
    monkeypatch.setattr(doctor, "examine", lambda: iter([good, bad]))
    assert cli.main(["doctor"]) == ExitCode.HOST
    assert "cure: apt-get install iproute2" in capsys.readouterr().out
    assert cli.main(["doctor", "--json"]) == ExitCode.HOST
    assert [one["is_good"] for one in json.loads(capsys.readouterr().out)] == [True, False]


def test_run_hands_over_all_that_was_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[argparse.Namespace] = []

    def main(options: argparse.Namespace) -> int:
        asked.append(options)
        return ExitCode.VIOLATED

    monkeypatch.setattr("orchestrator.run.main", main)
    call = ["run", "baseline", "--seed", "5", "--driver", "netns", "--keep", "-v", "--json"]
    assert cli.main(call) == ExitCode.VIOLATED
    (options,) = asked
    assert (options.scenario, options.seed, options.driver) == ("baseline", 5, "netns")
    assert (options.keep, options.verbose, options.json) == (True, True, True)


@pytest.mark.parametrize(
    ("error", "status"), [(KeyboardInterrupt(), 130), (RuntimeError("ours"), ExitCode.BUG)]
)
def test_the_edge_turns_what_comes_into_a_status(
    error: BaseException, status: int, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(listing, "listed", fail)
    assert cli.main(["list"]) == status
    assert ("bug of Shoal's own" in capsys.readouterr().err) == (status == ExitCode.BUG)
