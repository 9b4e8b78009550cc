"""Whose a node's files are on the host."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from orchestrator.containers.sharing import Owner


def test_parts_are_never_root() -> None:
    owner = Owner.of_this_host()
    assert owner.user != 0
    assert owner.agent == f"0:{owner.group}"
    if os.getuid() != 0:
        assert owner.unprivileged == f"{os.getuid()}:{os.getgid()}"


def test_a_folder_is_open_to_the_group_and_to_nobody_else(tmp_path: Path) -> None:
    inner = tmp_path / "w01" / "ipfs"
    inner.mkdir(parents=True)
    (inner / "config").write_text("x")
    (inner / "config").chmod(0o666)
    owner = Owner.of_this_host()
    owner.share(tmp_path / "w01")
    for path, mode in ((tmp_path / "w01", 0o2770), (inner, 0o2770), (inner / "config", 0o640)):
        found = path.stat()
        assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (mode, owner.user, owner.group)
