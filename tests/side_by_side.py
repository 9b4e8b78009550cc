"""Runs tests of several folders at the same time, one pytest for each: python -m tests.side_by_side FOLDER… [OPTION…]

A word that is no folder is a target of make. What each says is shown when it has ended, in their order. Ends as the
worst of them does. With --first the first has the processors whenever it wants them, and the others what it leaves.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

FIRST = "--first"
LEAST_URGENT = ("nice", "--adjustment=19")
NO_TESTS = 5  # pytest's own status, of a `-k` that fits nothing in one of the folders


def command(word: str, options: Sequence[str], cache: str) -> list[str]:
    if not Path(word).exists():
        return ["make", "--no-print-directory", word]
    return [sys.executable, "-m", "pytest", word, *options, f"-ocache_dir={cache}"]


def main(arguments: Sequence[str]) -> int:
    words = [argument for argument in arguments if not argument.startswith("-")]
    options = [argument for argument in arguments if argument.startswith("-") and argument != FIRST]
    is_first_urgent = FIRST in arguments
    worst = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        running = []
        for number, word in enumerate(words):
            said = folder / f"{number}.said"  # no pipe: whatever a test leaves behind would keep that open
            with said.open("wb") as out:
                argv = command(word, options, str(folder / str(number)))
                if is_first_urgent and number > 0:
                    argv = [*LEAST_URGENT, *argv]
                running.append((said, subprocess.Popen(argv, stdout=out, stderr=subprocess.STDOUT)))
        for said, one in running:
            status = one.wait()
            print(said.read_text(errors="replace"), end="", flush=True)
            worst = max(worst, status if status >= 0 else 1, key=lambda s: s % NO_TESTS)
    return worst


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
