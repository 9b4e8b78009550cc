"""What tests of whole runs share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.driver import ENV_DRIVER
from tests.run.place import Place

# These look into the box, and want none of the Docker engines that may be here.
os.environ[ENV_DRIVER] = "netns"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """Nothing of a run may be left behind, however it ended."""
    here = Place(tmp_path)
    (tmp_path / "tmp").mkdir()
    yield here
    here.wait_empty()
