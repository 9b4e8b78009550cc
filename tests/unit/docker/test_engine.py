from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from node.contract import ExitCode, HostError
from orchestrator.containers import engine as host_engine
from tests.docker import engine

MOUNTINFO = """\
30 1 254:0 / / rw - ext4 /dev/vda rw
31 30 254:0 /x /cache/docker rw - ext4 /dev/vda rw
32 31 0:40 / /cache/docker/overlay2/abc/merged rw - overlay overlay rw
33 30 0:41 / /tmp/a\\040folder/netns/1 rw - nsfs nsfs rw
34 30 0:42 / /cache/docker-engine rw - ext4 /dev/vda rw
"""


def test_what_an_engine_has_mounted_is_unmounted_from_within() -> None:
    folders = [Path("/cache/docker"), Path("/tmp/a folder")]
    assert engine.mounted_in(MOUNTINFO, folders) == [
        "/cache/docker/overlay2/abc/merged",
        "/tmp/a folder/netns/1",
        "/cache/docker",
    ]


def test_an_engine_of_ours_keeps_apart_from_what_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "REAL_TIME", tmp_path / "no-such-control-group")
    words = engine.command(Path("/cache/docker"), tmp_path)
    places = [
        word.partition("=")[2] for word in words if word.startswith(("--exec", "--pid", "--host", "--conf"))
    ]
    assert len(places) == 4
    assert all(str(tmp_path) in place for place in places)
    assert not [word for word in words if "cpu-rt" in word]
    (tmp_path / "cpu.rt_runtime_us").touch()
    monkeypatch.setattr(engine, "REAL_TIME", tmp_path / "cpu.rt_runtime_us")
    assert "--cpu-rt-runtime=950000" in engine.command(Path("/cache/docker"), tmp_path)


def test_the_last_words_of_an_engine_that_does_not_start(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("first\nfailed to mount overlay\n")
    with subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"]) as ended:
        ended.wait()
        with pytest.raises(HostError, match=r"ended with 3:\n.*\n  failed to mount overlay"):
            engine.wait_answer(ended, f"unix://{tmp_path}/docker.sock", tmp_path / "log", 1.0)  # type: ignore[arg-type] # a Popen will do


def test_no_second_engine_is_started_beside_one_that_will_not_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise HostError("The Docker engine is 19.03.", "renew it")

    def never() -> None:
        raise AssertionError("a second engine was started")

    monkeypatch.setattr(host_engine, "found", refuse)
    monkeypatch.setattr(engine, "PID_FILE", tmp_path / "docker.pid")
    (tmp_path / "docker.pid").write_text(str(os.getpid()))
    monkeypatch.setattr(engine, "own_engine", never)
    with pytest.raises(HostError, match=r"19\.03"):
        engine.an_engine().__enter__()
    (tmp_path / "docker.pid").write_text("0")
    assert not engine.is_running()


@pytest.fixture
def no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise HostError("No Docker engine answers.", "start it")

    monkeypatch.setattr(host_engine, "found", refuse)
    monkeypatch.setattr(engine, "is_running", lambda: False)
    monkeypatch.setattr("os.geteuid", lambda: 1000)


@pytest.mark.usefixtures("no_engine")
def test_where_no_engine_is_to_be_had_it_is_said_aloud(capsys: pytest.CaptureFixture[str]) -> None:
    assert engine.main([]) == ExitCode.HOST
    assert "Only root can start" in capsys.readouterr().err
    assert engine.main(["--or-skip"]) == ExitCode.HELD
    assert "SKIPPED the tests on a Docker engine: Only root can start" in capsys.readouterr().err


def test_the_tests_run_on_the_engine_that_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def found() -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(url="unix:///here")

    called: list[object] = []

    def run_tests(arguments: list[str], url: str) -> int:
        called.append((arguments, url))
        return 5

    monkeypatch.setattr(host_engine, "found", found)
    monkeypatch.setattr(engine, "run_tests", run_tests)
    assert engine.main(["--or-skip", "-k", "images"]) == 5
    assert called == [(["tests/docker", "-k", "images"], "unix:///here")]
