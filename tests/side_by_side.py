"""Runs tests of several folders at the same time, one pytest for each: python -m tests.side_by_side FOLDER… [OPTION…]

What each says is shown when it has ended. Ends as the worst of them does.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence

NO_TESTS = 5  # pytest's own status, of a `-k` that fits nothing in one of the folders


def main(arguments: Sequence[str]) -> int:
    folders = [argument for argument in arguments if not argument.startswith("-")]
    options = [argument for argument in arguments if argument.startswith("-")]
    with tempfile.TemporaryDirectory() as cache:
        running = []
        for number, folder in enumerate(folders):
            others = [f"--ignore={other}" for other in folders if other.startswith(f"{folder}/")]
            argv = [
                sys.executable,
                "-m",
                "pytest",
                folder,
                *others,
                *options,
                f"-ocache_dir={cache}/{number}",
            ]
            running.append(
                subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            )
        worst = 0
        for one in running:
            said, _ = one.communicate()
            print(said, end="", flush=True)
            worst = max(worst, one.returncode if one.returncode >= 0 else 1, key=lambda s: s % NO_TESTS)
    return worst


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
