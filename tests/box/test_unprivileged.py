"""The box's tests once more as a user without any rights, when we are root."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
NOBODY = 65534
AS_NOBODY = [
    "setpriv",
    f"--reuid={NOBODY}",
    f"--regid={NOBODY}",
    "--clear-groups",
    "--inh-caps=-all",
    "--",
    "env",
]


def environment(folder: Path) -> dict[str, str]:
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "PYTHONPATH": packages,
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def usable_python(folder: Path) -> str | None:
    """A Python that nobody may run: ours may stand in a folder that is closed to others."""
    for python in (sys.executable, "/usr/bin/python3.11", "/usr/local/bin/python3.11"):
        asked = [*AS_NOBODY, python, "-c", "import pytest, sys; sys.exit(sys.version_info[:2] != (3, 11))"]
        if (
            subprocess.run(
                asked, cwd=TOP, env=environment(folder), capture_output=True, check=False
            ).returncode
            == 0
        ):
            return python
    return None


@pytest.mark.skipif(os.geteuid() != 0, reason="this is an unprivileged user already")
def test_all_of_it_holds_for_an_unprivileged_user() -> None:
    # Not in pytest's own folder, which is closed to others.
    folder = Path(tempfile.mkdtemp(prefix="shoal-nobody-"))

    os.chown(folder, NOBODY, NOBODY)
    try:
        python = usable_python(folder)
        if python is None:
            pytest.skip(
                "NOT TESTED as an unprivileged user: no Python 3.11 with our packages is open to others"
            )
        run = subprocess.run(
            [*AS_NOBODY, python, "-m", "pytest", "-p", "no:cacheprovider", "tests/box/test_box.py"],
            cwd=TOP,
            env=environment(folder),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert run.returncode == 0, run.stdout + run.stderr
        assert " passed" in run.stdout
    finally:
        shutil.rmtree(folder)
