"""Async tests run as those of the node do."""

from __future__ import annotations

from tests.unit.node.conftest import pytest_pyfunc_call

__all__ = ["pytest_pyfunc_call"]
