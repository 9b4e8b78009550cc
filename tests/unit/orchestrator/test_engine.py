from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from node.contract import HostError
from orchestrator import process
from orchestrator.containers import engine
from orchestrator.containers.engine import Compose, Facts
from orchestrator.process import Completed

COMPOSE = Compose(("docker", "compose"), "2.40.3")
GOOD = Facts(
    "28.1.1", ("name=seccomp,profile=builtin", "name=cgroupns"), 50 << 30, "/var/lib/docker", COMPOSE
)


@pytest.mark.parametrize(
    "facts",
    [
        GOOD,
        replace(GOOD, version="20.10.24+dfsg1"),
        replace(GOOD, free_bytes=None),
        replace(GOOD, compose=Compose(("docker-compose",), "2.6.0")),
    ],
)
def test_what_carries_a_fleet(facts: Facts) -> None:
    assert engine.why_not(facts) is None


@pytest.mark.parametrize(
    ("changed", "named", "cure"),
    [
        ({"version": "19.03.15"}, "is 19.03.15, at least 20.10", "docs.docker.com/engine"),
        ({"version": "dev"}, "is dev, at least", "docs.docker.com/engine"),
        ({"security": ("name=seccomp", "name=rootless")}, "runs without root", "DOCKER_HOST"),
        ({"security": ("name=userns",)}, "users of their own", "DOCKER_HOST"),
        ({"compose": None}, "no Docker Compose 2", "make setup"),
        (
            {"compose": Compose(("docker-compose",), "1.29.2")},
            "`docker-compose` is 1.29.2",
            "docs.docker.com",
        ),
        ({"free_bytes": 300 << 20}, "300 MiB are free in /var/lib/docker", "docker system df"),
    ],
)
def test_what_does_not_is_named_with_its_cure(changed: dict[str, Any], named: str, cure: str) -> None:
    refusal = engine.why_not(replace(GOOD, **changed))
    assert refusal is not None
    assert named in refusal.message
    assert cure in refusal.hint
    assert "--driver netns" in refusal.hint


class FakeClient:
    """An engine that answers one question; any other is an AttributeError."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def info(self) -> dict[str, Any]:
        return {"ServerVersion": "24.0.7", "SecurityOptions": None, "DockerRootDir": str(self._root)}


def test_an_engine_is_asked_what_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "find_compose", lambda url: COMPOSE if url == "unix:///x" else None)
    facts = engine.look(FakeClient(tmp_path), "unix:///x")  # type: ignore[arg-type] # strict fake
    assert facts == Facts("24.0.7", (), facts.free_bytes, str(tmp_path), COMPOSE)
    assert facts.free_bytes is not None
    assert facts.free_bytes > 0


def test_a_disk_that_we_cannot_see_is_unknown_not_full() -> None:
    assert engine.free_bytes("/nowhere/docker") is None


@pytest.mark.parametrize("url", ["tcp://other:2375", "ssh://me:secret@other"])
def test_an_engine_of_another_host_is_refused_without_telling_secrets(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", url)
    with pytest.raises(HostError, match="another host's") as refused:
        engine.find()
    assert "secret" not in refused.value.message
    assert "unset DOCKER_HOST" in refused.value.hint


def program(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host whose programs are in one folder."""
    found = tmp_path / "bin"
    found.mkdir()
    monkeypatch.setattr("orchestrator.host.search_path", lambda: f"{found}:/usr/bin:/bin")
    monkeypatch.setattr(
        "shutil.which", lambda name, **_: str(found / name) if (found / name).exists() else None
    )
    monkeypatch.setenv("SHOAL_CACHE", str(tmp_path / "cache"))
    return found


def test_compose_is_dockers_plugin_before_a_program_of_that_name(programs: Path) -> None:
    program(programs, "docker", '[ "$1" = compose ] && echo 2.30.1')
    program(programs, "docker-compose", "echo v2.20.0")
    assert engine.find_compose("unix:///x") == Compose(("docker", "compose"), "2.30.1")
    program(programs, "docker", "echo 'docker: no such command: compose' >&2; exit 1")
    assert engine.find_compose("unix:///x") == Compose(("docker-compose",), "2.20.0")


def test_a_new_compose_of_set_up_is_better_than_an_old_program(programs: Path, tmp_path: Path) -> None:
    program(programs, "docker-compose", "echo 1.29.2")
    old = engine.find_compose("unix:///x")
    assert old == Compose(("docker-compose",), "1.29.2")
    brought = tmp_path / "cache" / "compose" / "2.40.3"
    brought.mkdir(parents=True)
    program(brought, "docker-compose", 'echo "$DOCKER_HOST" > "$0.asked"; echo 2.40.3')
    found = engine.find_compose("unix:///x")
    assert found == Compose((str(brought / "docker-compose"),), "2.40.3")
    assert (brought / "docker-compose.asked").read_text() == "unix:///x\n"


def test_without_any_compose_there_is_none(programs: Path) -> None:
    assert engine.find_compose("unix:///x") is None


def test_compose_is_told_which_engine_whatever_context_is_chosen() -> None:
    found = engine.Engine(None, "unix:///x", GOOD, COMPOSE)  # type: ignore[arg-type] # not asked
    assert found.environment == {"DOCKER_HOST": "unix:///x", "DOCKER_CONTEXT": ""}


def test_a_version_that_is_none_is_no_compose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "run", lambda argv, **_: Completed(tuple(argv), 0, "unknown\n", ""))
    assert engine.compose_version(["docker", "compose"], "unix:///x") is None
