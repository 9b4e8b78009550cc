"""What all tests share."""

from __future__ import annotations

import gc
import signal
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]


def pytest_configure() -> None:
    # Started in the background, a shell's children ignore Ctrl-C and hand that on; some tests send it to theirs.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if sys.dont_write_bytecode:
        # Without any bytecode every run would rewrite the asserts of every test anew: it goes beside the sources then.
        sys.pycache_prefix = str(TOP / ".cache" / "bytecode")
        sys.dont_write_bytecode = False


def pytest_collection_finish() -> None:
    # What collecting has made stays until the end: the collector need not look at it after each test.
    gc.collect()
    gc.freeze()
