"""These tests make network namespaces and shape them: they run inside a box, never on the host."""

from __future__ import annotations

import os

import pytest

from node.contract import ENV_BOX


def pytest_configure() -> None:
    if os.environ.get(ENV_BOX) != "1":
        raise pytest.UsageError("tests/links runs inside a box: python -m orchestrator.box run -- COMMAND")
