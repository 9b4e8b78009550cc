"""These tests make network namespaces and start daemons: they run inside a box, never on the host."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from node.contract import ENV_BOX


def pytest_configure() -> None:
    if os.environ.get(ENV_BOX) != "1":
        raise pytest.UsageError("tests/fleet runs inside a box: make test-fleet")


@pytest.fixture(scope="session", autouse=True)
def _in_temporary_folder(temporary_folder: Path) -> None:
    """For all tests here."""
