"""What all tests share."""

from __future__ import annotations

import gc
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[1]
LONGEST_ID = 100


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


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """A test's name has no room for a whole message."""
    return argname if isinstance(val, str | bytes) and len(val) > LONGEST_ID else None


@pytest.fixture(scope="session")
def temporary_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where temporary files go, other processes' too: TensorFlow's forks leave theirs behind."""
    folder = tmp_path_factory.mktemp("temporary")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(folder))
        patch.setattr(tempfile, "tempdir", str(folder))
        yield folder
