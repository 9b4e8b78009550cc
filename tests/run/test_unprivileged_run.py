"""One whole run as a user without any rights, when we are root; an ordinary user's tests are that already."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
TINY = TOP / "tests" / "run" / "tiny.yaml"
NOBODY = 65534
RUN_S = 240.0
ENDED_S = 20.0
AS_NOBODY = (
    *("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--inh-caps=-all"),
    *("--", "env", "-i"),
)
TRIAL = "import sys, yaml, numpy; sys.exit(sys.version_info[:2] != (3, 11))"


@pytest.fixture
def folder() -> Iterator[Path]:
    """Nobody's own; not in pytest's folder, which is closed to others."""
    made = Path(tempfile.mkdtemp(prefix="shoal-nobody-"))
    os.chown(made, NOBODY, NOBODY)
    yield made
    shutil.rmtree(made)


def environment(folder: Path) -> list[str]:
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    built = subprocess.run(
        [sys.executable, TOP / "node" / "ipfs" / "build.py"], stdout=subprocess.PIPE, text=True, check=True
    ).stdout.split()[-1]
    return [
        f"PATH={os.environ['PATH']}",
        f"HOME={folder}",
        f"TMPDIR={folder}",
        f"PYTHONPATH={TOP}{os.pathsep}{packages}",
        "PYTHONDONTWRITEBYTECODE=1",
        f"SHOAL_IPFSD={built}",
        "SHOAL_DRIVER=netns",
    ]


def usable_python(folder: Path, env: list[str]) -> str:
    """A Python that nobody may run: ours may stand in a folder that is closed to others."""
    said = b""
    for python in (sys.executable, "/usr/bin/python3.11", "/usr/local/bin/python3.11"):
        tried = subprocess.run(
            [*AS_NOBODY, *env, python, "-c", TRIAL], cwd=folder, capture_output=True, check=False
        )
        if tried.returncode == 0:
            return python
        said = tried.stderr
    pytest.skip(
        f"NOT TESTED as an unprivileged user: no Python 3.11 with our packages is open to them: {said!r}"
    )


def of_nobody(folder: Path) -> list[int]:
    """Every process that works for the run in this folder, found by its environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if f"TMPDIR={folder}".encode() in words:
                found.append(int(entry.name))
    return found


@pytest.mark.skipif(os.geteuid() != 0, reason="this is an unprivileged user already")
def test_a_whole_run_needs_no_rights_and_leaves_nothing(folder: Path) -> None:
    env = environment(folder)
    run = subprocess.run(
        [*AS_NOBODY, *env, usable_python(folder, env), "-m", "orchestrator.cli", "run", str(TINY)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=RUN_S,
        check=False,
    )
    assert run.returncode == 0, run.stdout
    directory = folder / "runs" / "tiny" / "latest"
    assert json.loads((directory / "results.json").read_text())["verdict"] == "held"
    assert directory.stat().st_uid == NOBODY
    deadline = time.monotonic() + ENDED_S
    while left := of_nobody(folder):
        assert time.monotonic() < deadline, f"left behind: {left}"
        time.sleep(0.05)
    # The empty folder where living runs are listed may stay.
    assert [path for top in folder.glob("shoal-*") for path in top.iterdir()] == [], "secrets were left"
