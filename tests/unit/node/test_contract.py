from __future__ import annotations

import pytest

from node.contract import ExitCode, HostError, ShoalError, UsageError


@pytest.mark.parametrize(
    ("kind", "code"),
    [(ShoalError, ExitCode.BUG), (UsageError, ExitCode.USAGE), (HostError, ExitCode.HOST)],
)
def test_each_error_knows_its_exit_code(kind: type[ShoalError], code: ExitCode) -> None:
    assert kind("x").exit_code == code


def test_the_cure_is_apart_from_the_complaint() -> None:
    error = HostError("no tc", "install iproute2")
    assert (error.message, error.hint) == ("no tc", "install iproute2")
    assert str(error) == "no tc\n  install iproute2"
    assert str(HostError("no tc")) == "no tc"


def test_the_published_exit_codes() -> None:
    assert {code.name: int(code) for code in ExitCode} == {
        "HELD": 0,
        "VIOLATED": 1,
        "UNKNOWN": 2,
        "USAGE": 64,
        "HOST": 69,
        "BUG": 70,
    }
