"""The commands about runs, as far as they go without a fleet."""

from __future__ import annotations

import io
import os
import socket
import struct
from pathlib import Path

import pytest

from node.contract import ExitCode
from orchestrator import cli
from orchestrator.runs import living, logs, packets

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def finished(here: Path, scenario: str = "tiny", stamp: str = "20260101T000000") -> Path:
    """The directory of a run with two nodes."""
    path = here / "runs" / scenario / stamp
    (path / "logs" / "w01").mkdir(parents=True)
    (path / "plan.json").write_text('{"nodes": [{"name": "agg"}, {"name": "w01"}]}')
    (path / "logs" / "gate.log").write_text("of the gate\n")
    (path / "logs" / "w01" / "ipfs.log").write_bytes(b"one\ntw\xffo\nunfinished")
    (path.parent / "latest").symlink_to(stamp)
    return path


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["exec", "w01", "ls"], "the command to run comes after --\n  as in: shoal exec"),
        (["exec", "w01", "--"], "which command shall run in the node?\n  as in: shoal exec w01 -- "),
        (["exec", "--", "ls"], "required: NODE\n  see: shoal exec --help"),
        (["exec", "w01", "--", "ls", "--run", "x"], "no run is living\n  start one that stays"),
        (["exec", "w01", "--run", "x", "--", "ls"], "no run 'x' is living"),
        (["capture", "w01"], "no run is living"),
        (["capture", "w01", "--seconds", "0"], "0 is not a positive number of seconds"),
        (["capture", "w01", "--seconds", "nan"], "nan is not a positive number of seconds"),
        (["capture", "w01", "--seconds", "soon"], "invalid seconds value: 'soon'"),
        (["logs"], "no run is living\n  start one that stays: shoal run SCENARIO --keep\n  or one that has"),
        (["logs", "--run", "tinny"], "'tinny' is neither a run's directory nor a scenario that was run here"),
        (["down", "--all", "--run", "x"], "argument --run: not allowed with argument --all"),
        (["report"], "required: RUN_DIR|SCENARIO"),
        (["report", "tinny"], "run here\n  perhaps you meant tiny; known: tiny"),
        (["report", "tiny"], "runs/tiny/20260101T000000 has no report"),
    ],
)
def test_a_wrong_call_is_told_with_its_cure(argv: list[str], said: str, here: Path, capsys: Capture) -> None:
    finished(here)
    assert cli.main(argv) == ExitCode.USAGE
    told = capsys.readouterr()
    assert said in told.err
    assert told.out == ""


@pytest.mark.parametrize("argv", [["down"], ["down", "--all"]])
def test_down_with_nothing_to_end_is_success(argv: list[str], capsys: Capture) -> None:
    assert cli.main(argv) == ExitCode.HELD
    assert capsys.readouterr().out == "no run is living\n"


def test_down_of_one_that_is_gone_is_success_and_ends_no_other(here: Path, capsys: Capture) -> None:
    with living.registered("b-2", here):
        assert cli.main(["down", "--run", "a-1"]) == ExitCode.HELD
    assert capsys.readouterr().out == f"no run a-1 is living, but:\n    b-2  {here}\n"


def test_report_prints_the_file_of_a_run_or_of_the_latest(here: Path, capsys: Capture) -> None:
    path = finished(here)
    (path / "report.txt").write_text("verdict: held\n")
    (path / "results.json").write_text("{}\n")
    for named in ("tiny", str(path), "runs/tiny/latest"):
        assert cli.main(["report", named]) == ExitCode.HELD
        assert capsys.readouterr().out == "verdict: held\n"
    assert cli.main(["report", "tiny", "--json"]) == ExitCode.HELD
    assert capsys.readouterr().out == "{}\n"


def test_logs_of_a_finished_run_are_whole_and_named(here: Path, capsys: Capture) -> None:
    finished(here)
    nodes = "w01/ipfs | one\nw01/ipfs | tw\N{REPLACEMENT CHARACTER}o\nw01/ipfs | unfinished\n"
    assert cli.main(["logs", "--run", "tiny", "-f"]) == ExitCode.HELD
    assert capsys.readouterr().out == "gate | of the gate\n" + nodes
    assert cli.main(["logs", "w01", "--run", "tiny"]) == ExitCode.HELD
    assert capsys.readouterr().out == nodes
    assert cli.main(["logs", "w1", "--run", "tiny"]) == ExitCode.USAGE
    assert "the run has no node 'w1'\n  perhaps you meant w01" in capsys.readouterr().err


def test_followed_logs_come_in_whole_lines_also_from_files_that_begin_later_or_are_removed(
    here: Path,
) -> None:
    said: list[str] = []
    followed = logs.Logs(lambda: {path.stem: path for path in sorted(here.glob("*.log"))}, said.append)
    with (here / "a.log").open("w", buffering=1) as growing:
        growing.write("one\ntw")
        followed.show(is_last=False)
        assert said == ["a | one"]
        growing.write("o\nthr")
        (here / "b.log").write_text("late\n")
        followed.show(is_last=False)
        assert said[1:] == ["a | two", "b | late"]
        (here / "a.log").unlink()
        growing.write("ee")
    followed.show(is_last=True)
    assert said[3:] == ["a | three"]
    followed.close()


def test_packets_are_written_whole_until_the_lifeline_is_cut() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    read, lifeline = os.pipe()
    out = io.BytesIO()
    with ours, theirs, os.fdopen(read, "rb") as stop:
        theirs.send(b"first")
        theirs.send(b"second one")
        os.close(lifeline)
        assert packets.write_packets(ours, out, stop, None) == 2
    sizes, at = [], 0
    data = out.getvalue()
    while at < len(data):
        _, nanoseconds, kept, whole = struct.unpack_from("<IIII", data, at)
        assert kept == whole
        assert nanoseconds < 1_000_000_000
        sizes.append(data[at + 16 : at + 16 + kept])
        at += 16 + kept
    assert sizes == [b"first", b"second one"]


def test_the_kernels_time_is_taken_where_there_is_one() -> None:
    extra = [
        (socket.SOL_SOCKET, 1, b"other"),
        (socket.SOL_SOCKET, packets.SO_TIMESTAMPNS, packets.TIMESPEC.pack(7, 9)),
    ]
    assert packets.stamp(extra) == (7, 9)
