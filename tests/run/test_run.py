"""Whole runs from the command line that are ended from outside: nothing of them stays."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.run.place import TOP, Place, wait_said

RUN_S = 240.0
TINY = TOP / "tests" / "run" / "tiny.yaml"


def shoal(*words: str, cwd: Path) -> subprocess.Popen[str]:
    """The command line in a folder of its own, so that its runs go there."""
    return subprocess.Popen(
        [sys.executable, "-m", "orchestrator.cli", *words],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(TOP)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


# A box ends with whatever is in it: test_living kills a run that has all its parts.
LATER = ("IPFS daemons are up", "round 1/3")


@pytest.mark.parametrize(
    "moment", ["preparing", "starting", *(pytest.param(one, marks=pytest.mark.long) for one in LATER)]
)
def test_a_killed_orchestrator_leaves_nothing(place: Place, moment: str) -> None:
    with place.start(TINY) as process:
        wait_said(process, moment)
        process.kill()
    place.wait_empty()


def test_an_interrupted_run_says_so_and_leaves_nothing(place: Place) -> None:
    with place.start(TINY) as process:
        wait_said(process, "round 1/3")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        assert process.returncode == 130
    place.wait_empty()
    found = json.loads((place.folder / "runs" / "tiny" / "latest" / "results.json").read_text())
    assert (found["verdict"], found["failure"]) == ("unknown", "interrupted")
