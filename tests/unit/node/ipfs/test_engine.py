from __future__ import annotations

from pathlib import Path

import pytest

from node.contract import HostError, UsageError
from node.ipfs import build, engine, fetch_kubo

KUBO = "ipfs version 0.43.1"
EMBEDDED = "shoal-ipfsd version 0.1.0"


def program(path: Path, says: str) -> Path:
    """A program that answers `version`, and only outside of any repository."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/sh\n[ "$*:$IPFS_PATH" = version:/nonexistent ] && echo "{says}"\n')
    path.chmod(0o755)
    return path


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing on PATH but sh, nothing fetched; the embedded daemon can be built."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}")
    monkeypatch.setenv("SHOAL_CACHE", str(tmp_path / "cache"))
    for name in ("SHOAL_KUBO", "SHOAL_IPFSD"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(build, "build", lambda: program(tmp_path / "built" / "ipfs", EMBEDDED))
    return tmp_path


def test_auto_takes_the_embedded_one_where_there_is_no_kubo(host: Path) -> None:
    found = engine.find("auto")
    assert (found.name, found.version, found.path) == ("embedded", "0.1.0", host / "built" / "ipfs")


def test_auto_takes_kubo_on_path(host: Path) -> None:
    program(host / "bin" / "ipfs", KUBO)
    found = engine.find("auto")
    assert (found.name, found.version, found.path) == ("kubo", "0.43.1", host / "bin" / "ipfs")
    assert engine.find("embedded").name == "embedded"


def test_a_fetched_kubo_is_found(host: Path) -> None:
    program(fetch_kubo.binary_path(), KUBO)
    assert engine.find("kubo").path == fetch_kubo.binary_path()


def test_a_named_kubo_comes_first(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(host / "bin" / "ipfs", KUBO)
    monkeypatch.setenv("SHOAL_KUBO", str(program(host / "mine", "ipfs version 0.44.0-dev")))
    assert engine.find("auto").version == "0.44.0-dev"


@pytest.mark.parametrize("says", [EMBEDDED, "ipfs version 0.39.0", "ipfs", ""])
def test_what_is_on_path_and_no_kubo_of_today_is_passed_over(host: Path, says: str) -> None:
    program(host / "bin" / "ipfs", says)
    assert engine.find("auto").name == "embedded"
    with pytest.raises(HostError, match="bin/ipfs") as caught:
        engine.find("kubo")
    assert "make kubo" in caught.value.hint


@pytest.mark.parametrize("says", [EMBEDDED, "ipfs version 0.39.0"])
@pytest.mark.parametrize("choice", ["auto", "kubo"])
def test_a_named_kubo_that_is_none_is_refused(
    host: Path, monkeypatch: pytest.MonkeyPatch, says: str, choice: str
) -> None:
    monkeypatch.setenv("SHOAL_KUBO", str(program(host / "mine", says)))
    with pytest.raises(UsageError, match="SHOAL_KUBO"):
        engine.find(choice)


def test_a_named_kubo_that_is_missing_is_refused(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOAL_KUBO", str(host / "nothing"))
    with pytest.raises(UsageError, match="nothing"):
        engine.find("auto")


def test_a_finished_embedded_daemon_may_be_named(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOAL_IPFSD", str(program(host / "mine", "shoal-ipfsd version 9")))
    assert engine.find("embedded").version == "9"
    monkeypatch.setenv("SHOAL_IPFSD", str(program(host / "mine", KUBO)))
    with pytest.raises(UsageError, match="not the embedded daemon"):
        engine.find("embedded")


def test_no_kubo_at_all(host: Path) -> None:
    with pytest.raises(HostError, match="no Kubo at hand"):
        engine.find("kubo")


def test_a_choice_that_does_not_exist(host: Path) -> None:
    with pytest.raises(UsageError, match="rust"):
        engine.find("rust")


def test_what_each_can_do(host: Path) -> None:
    embedded = engine.find("embedded")
    program(host / "bin" / "ipfs", KUBO)
    kubo = engine.find("kubo")
    assert (kubo.capabilities.needs_dialler, embedded.capabilities.needs_dialler) == (True, False)
    for transport in engine.TRANSPORTS:
        embedded.check_transport(transport)
    kubo.check_transport("prompt")
    kubo.check_transport("stock")
    with pytest.raises(UsageError, match="kubo cannot do transport patient") as caught:
        kubo.check_transport("patient")
    assert "embedded" in caught.value.hint
    with pytest.raises(UsageError, match="hasty"):
        embedded.check_transport("hasty")
