"""The command line, of a run that a test meddles in: python -m tests.run.meddling ROUND NODE WORD…

This round waits until the test releases it. This node, if any is named, has a disk of its own that is soon full; for
it we must be in a mount namespace of our own.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from orchestrator import cli
from orchestrator.emulation import Emulation
from orchestrator.runs.rundir import secret_folder

SMALL_DISK = "size=12m"


def main(arguments: Sequence[str]) -> int:
    round_, small, *words = arguments

    @contextmanager
    def folder_of_secrets() -> Iterator[Path]:
        with secret_folder() as folder:
            if small:
                (folder / small).mkdir()
                subprocess.run(["mount", "-t", "tmpfs", "-o", SMALL_DISK, "none", folder / small], check=True)
            yield folder

    with (
        patch.object(Emulation, "pauses", (int(round_),)),
        patch("orchestrator.run.secret_folder", folder_of_secrets),
    ):
        return cli.main(words)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
