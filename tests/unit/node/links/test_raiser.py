"""Whom the raiser takes for a holder of packets."""

from __future__ import annotations

from pathlib import Path

from node.links import raiser
from node.links.priority import HOLDER_NAME


def test_only_roots_processes_of_the_name_are_raised(tmp_path: Path) -> None:
    known = {1: ("tini", 0), 7: ("python3", 0), 8: (HOLDER_NAME, 0), 9: (HOLDER_NAME, 1000)}
    for pid, (name, uid) in known.items():
        (tmp_path / str(pid)).mkdir()
        status = f"Name:\t{name}\nUmask:\t0022\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n"
        (tmp_path / str(pid) / "status").write_text(status)
    (tmp_path / "6").mkdir()
    (tmp_path / "6" / "status").write_bytes(b"Name:\t\xff\x85\nUid:\t0\t0\t0\t0\n")
    (tmp_path / "10").mkdir()  # it has just ended
    (tmp_path / "uptime").write_text("1.0 2.0")
    assert list(raiser.holders(tmp_path)) == [8]


def test_whoever_has_ended_is_not_waited_for() -> None:
    raiser.raise_until_ended(1 << 30)  # beyond all that a kernel gives
