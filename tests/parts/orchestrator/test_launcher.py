"""The command line as a person's shell starts it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parents[3]


def test_the_launcher_works_through_a_link_from_any_folder(tmp_path: Path) -> None:
    # What lies where the person stands must not shadow Shoal's own packages.
    (tmp_path / "orchestrator.py").write_text("raise SystemExit('shadowed')")
    link = tmp_path / "shoal"
    link.symlink_to(os.path.relpath(TOP / "orchestrator" / "shoal.sh", tmp_path.resolve()))
    said = subprocess.run(
        [link, "plan", "baseline"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (said.returncode, said.stderr) == (0, "")
    assert json.loads(said.stdout)["scenario"] == "baseline"


def test_a_reader_that_has_enough_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    argv = [sys.executable, "-m", "orchestrator.cli", "plan", "baseline"]
    with os.fdopen(write) as closed:
        said = subprocess.run(argv, cwd=TOP, stdout=closed, stderr=subprocess.PIPE, text=True, check=False)
    assert (said.returncode, said.stderr) == (0, "")
