from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from node.contract import HostError, UsageError
from node.contract.schema import to_json
from orchestrator.boxes import cgroups
from orchestrator.boxes.box import Node
from orchestrator.process import Identity
from orchestrator.runs import living
from orchestrator.runs.living import Living

ENDED = Identity(2**22 + 1, 1)  # beyond what the kernel gives


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "shoal"


def me() -> Identity:
    found = Identity.of(os.getpid())
    assert found
    return found


def record(name: str, directory: Path, **other: Any) -> Path:
    """A run's file, as it would have written it itself."""
    one = replace(Living(name, str(directory), me(), living.pid_namespace()), **other)
    file = living.folder() / f"{name}.{one.orchestrator.pid}.json"
    file.write_text(json.dumps(to_json(one)))
    return file


def secrets_in(place: Path, name: str = "shoal-abc") -> Path:
    made = place / name
    made.mkdir(mode=0o700)
    (made / "token").write_text("x")
    return made


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [sys.executable, "-S", "-c", "print(flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def identity(process: subprocess.Popen[bytes]) -> Identity:
    found = Identity.of(process.pid)
    assert found
    return found


def test_a_run_is_known_from_beginning_to_end(tmp_path: Path, folder: Path) -> None:
    with living.registered("a-1", tmp_path) as registration:
        assert living.choose(None).run == "a-1"
        registration.add(init=me(), secrets="/somewhere")
        found = living.choose("a-1")
        assert (found.init, found.secrets, found.orchestrator) == (me(), "/somewhere", me())
        assert living.choose(str(tmp_path)) == found
    assert list(folder.iterdir()) == []


def test_without_a_living_run_the_cure_is_told() -> None:
    with pytest.raises(UsageError, match="no run is living\n  start one that stays: shoal run"):
        living.choose(None)


def test_of_several_one_must_be_named(tmp_path: Path) -> None:
    for name in ("a-1", "b-2"):
        (tmp_path / name).mkdir()
        record(name, tmp_path / name)
    with pytest.raises(UsageError, match=f"several(.|\n)* a-1  {tmp_path}/a-1\n *b-2  {tmp_path}/b-2$"):
        living.choose(None)
    assert living.choose("b-2").run == "b-2"
    with pytest.raises(UsageError, match="no run 'b-3' is living\n  perhaps you meant b-2"):
        living.choose("b-3")


def test_what_a_killed_run_left_is_removed_with_its_box(
    tmp_path: Path, folder: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    secrets = secrets_in(tmp_path)
    record("a-1", tmp_path, orchestrator=ENDED, secrets=str(secrets), init=identity(sleeper))
    kept = record("b-2", tmp_path)
    assert [one.run for one in living.sweep()] == ["b-2"]
    assert sleeper.wait(10) == -9
    assert not secrets.exists()
    assert list(folder.iterdir()) == [kept]


def test_what_a_killed_run_left_is_removed_with_its_control_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shoal-abc" / "w01").mkdir(parents=True)
    (tmp_path / "shoal-def").mkdir()
    monkeypatch.setattr(cgroups, "look", lambda: {"cpu": cgroups.Place(1, tmp_path, tmp_path)})
    record("a-1", tmp_path, orchestrator=ENDED, secrets="/run/gone/shoal-abc")
    record("b-2", tmp_path, secrets="/run/here/shoal-def")
    living.sweep()
    assert not (tmp_path / "shoal-abc").exists()
    assert (tmp_path / "shoal-def").exists()


def test_what_is_left_on_an_engine_that_is_off_is_told_kept_in_mind_and_stops_nobody(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    secrets = secrets_in(tmp_path)
    gone = f"unix://{tmp_path}/no.sock"
    left = record("a-1", tmp_path, orchestrator=ENDED, secrets=str(secrets), engine=gone)
    record("b-2", tmp_path)
    assert [one.run for one in living.sweep()] == ["b-2"]
    said = capsys.readouterr().err
    assert f"what run a-1 has left is still there: No Docker engine answers at {tmp_path}/no.sock" in said
    assert "start it: sudo systemctl start docker" in said
    assert left.exists()
    assert not secrets.exists()  # keys do not stay, whatever else does
    with pytest.raises(HostError, match="No Docker engine answers"):
        living.remove(left, replace(Living("a-1", "", ENDED, ""), engine=gone, secrets=str(secrets)))


def test_a_pid_that_another_process_has_now_is_no_sign_of_life_and_is_left_alone(
    tmp_path: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    reused = replace(identity(sleeper), start_ticks=1)
    file = record("a-1", tmp_path, orchestrator=reused, init=reused)
    assert living.sweep() == []
    assert not file.exists()
    assert sleeper.poll() is None


def test_a_run_of_another_pid_namespace_is_not_judged(tmp_path: Path) -> None:
    secrets = secrets_in(tmp_path)
    file = record("a-1", tmp_path, orchestrator=ENDED, pid_namespace="pid:[1]", secrets=str(secrets))
    assert living.sweep() == []
    assert file.exists()
    assert secrets.exists()


def test_a_folder_that_is_not_of_our_making_is_never_removed(tmp_path: Path) -> None:
    precious, public = secrets_in(tmp_path, "precious"), secrets_in(tmp_path, "shoal-public")
    public.chmod(0o755)
    (tmp_path / "shoal-link").symlink_to(precious)
    for number, path in enumerate((precious, public, tmp_path / "shoal-link", tmp_path / "shoal-gone")):
        record(f"a-{number}", tmp_path, orchestrator=ENDED, secrets=str(path))
    assert living.sweep() == []
    assert (precious / "token").exists()
    assert (public / "token").exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"run": "a-1"}', '{"run": 1, "unknown": {}}'])
def test_a_file_that_cannot_be_read_hides_no_other(text: str, tmp_path: Path) -> None:
    record("b-2", tmp_path)
    (living.folder() / "a-1.1.json").write_text(text)
    assert living.choose(None).run == "b-2"


def test_a_folder_that_others_can_enter_is_refused(folder: Path) -> None:
    folder.mkdir(mode=0o755)
    with pytest.raises(HostError, match=r"(?s)not a folder of this user alone.*chmod 700"):
        living.sweep()


def test_without_a_runtime_folder_there_is_one_for_each_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert living.folder() == tmp_path / f"shoal-living-{os.geteuid()}"
    assert living.folder().stat().st_mode & 0o777 == 0o700


def test_ending_asks_the_orchestrator_first(tmp_path: Path, folder: Path) -> None:
    obedient = (
        "import signal, sys; signal.signal(15, lambda *_: sys.exit(5)); print(flush=True); signal.pause()"
    )
    with subprocess.Popen([sys.executable, "-c", obedient], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        secrets = secrets_in(tmp_path)
        record("a-1", tmp_path, orchestrator=identity(process), secrets=str(secrets))
        living.end(living.choose("a-1"))
        assert process.wait(10) == 5
    assert not secrets.exists()
    assert list(folder.iterdir()) == []


def test_one_that_does_not_obey_is_ended_by_force(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(living, "ORDERLY_END_S", 0.05)
    deaf = "import signal; signal.signal(15, signal.SIG_IGN); print(flush=True); signal.pause()"
    with subprocess.Popen([sys.executable, "-c", deaf], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        record("a-1", tmp_path, orchestrator=identity(process))
        living.end(living.choose("a-1"))
        assert process.wait(10) == -9


def test_a_node_is_known_by_the_plan_and_entered_only_while_its_box_lives(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text('{"nodes": [{"name": "agg"}, {"name": "w01"}]}')
    one = Living("a-1", str(tmp_path), me(), living.pid_namespace(), init=me())
    assert isinstance(one.node("w01"), Node)
    with pytest.raises(UsageError, match="no node 'w1'\n  perhaps you meant w01; known: agg, w01"):
        one.node("w1")
    with pytest.raises(UsageError, match="are not there yet"):
        replace(one, init=None).node("w01")
    with pytest.raises(UsageError, match="have ended"):
        replace(one, init=ENDED).node("w01")
