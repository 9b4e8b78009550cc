"""A full disk is the host's fault, wherever it was met."""

from __future__ import annotations

import errno
from pathlib import Path
from types import SimpleNamespace

import pytest

from node.contract import HostError, ShoalError
from orchestrator import disk
from orchestrator.vigil import FleetFailedError


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> set[Path]:
    """Folders in which there is no room."""
    folders: set[Path] = set()

    def usage(folder: Path) -> SimpleNamespace:
        return SimpleNamespace(free=4096 if folder in folders else 1 << 30)

    monkeypatch.setattr("orchestrator.disk.shutil.disk_usage", usage)
    return folders


def test_a_fleet_that_failed_for_want_of_room_says_where(full: set[Path]) -> None:
    full.add(Path("/run/agg"))
    with (
        pytest.raises(HostError, match=r"No space is left .*: /run/agg") as told,
        disk.full_nodes_told([Path("/run/w01"), Path("/run/agg")]),
    ):
        raise FleetFailedError("the aggregator's node was lost")
    assert "df -h" in told.value.hint


def test_what_has_another_reason_keeps_it(full: set[Path]) -> None:
    with pytest.raises(FleetFailedError, match="lost"), disk.full_nodes_told([Path("/run/w01")]):
        raise FleetFailedError("the aggregator's node was lost")
    full.add(Path("/run/w01"))
    with pytest.raises(ShoalError, match="mistake") as told, disk.full_nodes_told([Path("/run/w01")]):
        raise ShoalError("a mistake of ours")
    assert not isinstance(told.value, HostError)


def test_no_room_is_told_as_such_and_other_trouble_as_itself() -> None:
    with pytest.raises(HostError, match="No space is left"), disk.full_disk_told():
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(OSError, match="denied"), disk.full_disk_told():
        raise OSError(errno.EACCES, "denied")
