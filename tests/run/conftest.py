"""What tests of whole runs share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.run.place import Place


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """Nothing of a run may be left behind, however it ended."""
    here = Place(tmp_path)
    (tmp_path / "tmp").mkdir()
    yield here
    here.wait_empty()
