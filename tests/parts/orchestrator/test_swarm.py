from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from node.contract import ExitCode, HostError, ShoalError, UsageError
from orchestrator import process, swarm
from orchestrator.member import MemberFailedError
from orchestrator.process import Process, Stream
from orchestrator.swarm import Order, Row

FAKE = Path(__file__).with_name("fake_member.py")


class Here:
    """Starts members without a box."""

    def __init__(self) -> None:
        self.started: list[Process] = []

    def start(
        self,
        argv: Sequence[str],
        *,
        stdin: Stream,
        stdout: Stream,
        stderr: Stream,
        env: Mapping[str, str] | None,
    ) -> Process:
        self.started.append(process.start(argv, stdin=stdin, stdout=stdout, stderr=stderr, env=env))
        return self.started[-1]


def play(folder: Path, wrong: str) -> list[Row]:
    here = Here()
    try:
        return swarm.exercise(
            {f"w{i}": here for i in (1, 2, 3)},
            Order(nodes=3, object_bytes=1000),
            folder,
            [sys.executable, str(FAKE), wrong],
        )
    finally:
        assert all(started.returncode is not None for started in here.started)


def test_every_member_is_led_through_the_protocol(tmp_path: Path) -> None:
    rows = play(tmp_path, "nothing")
    assert [row.name for row in rows] == ["w1", "w2", "w3"]
    assert {(row.engine, row.fetched, row.tunnelled) for row in rows} == {("fake 1", 2, 2)}
    assert {(row.fetch_ms, row.round_trip_ms, row.resident_bytes) for row in rows} == {(2.0, 3.0, 4096)}


@pytest.mark.parametrize(
    ("wrong", "kind", "complaint"),
    [
        ("host", HostError, r"w2: no engine\n  make ipfs"),
        ("dies", ShoalError, r"w2 ended early with 3\.\n  a last word"),
        ("babbles", MemberFailedError, r"w2: said something that is no event: hello"),
        ("cid", MemberFailedError, r"w2 did not fetch the object of w1"),
        ("tunnel", MemberFailedError, r"w2 was not recognised through its tunnel to w1"),
        ("stranger", MemberFailedError, r"w1 was not recognised through its tunnel to w2"),
        ("late", MemberFailedError, r"w2 ended with 4"),
    ],
)
def test_what_goes_wrong_is_named(tmp_path: Path, wrong: str, kind: type[ShoalError], complaint: str) -> None:
    with pytest.raises(kind, match=complaint) as caught:
        play(tmp_path, wrong)
    assert caught.value.exit_code == kind.exit_code


def test_a_silent_member_is_not_waited_for_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swarm, "ADD_TIMEOUT_S", 0.5)
    with pytest.raises(MemberFailedError, match=r"No `added` from .*w2.* within 0\.5 s"):
        play(tmp_path, "silent")


@pytest.mark.parametrize(
    "argv", [["--nodes", "1"], ["--nodes", "101"], ["--bytes", "0"], ["--engine", "mine"], ["--speed"]]
)
def test_a_wrong_call_is_refused_with_64(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert swarm.main(argv) == ExitCode.USAGE
    assert argv[0] in capsys.readouterr().err


def test_help_tells_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        swarm.parse(["--help"])
    assert end.value.code == 0
    said = capsys.readouterr().out
    assert all(f"{code} " in said for code in (0, 1, 64, 69, 70))


ROW = Row("w1", "fake 1", 1.0, 2.0, 1, 3.0, 1, 4.0, swarm.MIB, 0, 30 * swarm.MIB)


def test_the_last_line_is_the_verdict(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(swarm, "run", lambda _: [ROW])
    assert swarm.main([]) == ExitCode.HELD
    *_, row, verdict = capsys.readouterr().out.splitlines()
    assert row.split()[0] == "w1"
    assert verdict.startswith("verdict: held")


def test_json_is_all_of_standard_output(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(swarm, "run", lambda _: [ROW])
    assert swarm.main(["--json", "--nodes", "2"]) == ExitCode.HELD
    answer = json.loads(capsys.readouterr().out)
    assert (answer["verdict"], answer["order"]["nodes"], answer["members"][0]["name"]) == ("held", 2, "w1")


@pytest.mark.parametrize(
    ("error", "status", "verdict"),
    [
        (MemberFailedError("w1 failed"), ExitCode.VIOLATED, "verdict: violated"),
        (HostError("no tc", "make setup"), ExitCode.HOST, "verdict: not run"),
        (UsageError("no"), ExitCode.USAGE, "verdict: not run"),
        (KeyError("x"), ExitCode.BUG, "verdict: not run"),
    ],
)
def test_exit_codes(
    error: Exception,
    status: ExitCode,
    verdict: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(order: Order) -> list[Row]:
        raise error

    monkeypatch.setattr(swarm, "run", fail)
    assert swarm.main([]) == status
    assert capsys.readouterr().out.splitlines()[-1] == verdict
