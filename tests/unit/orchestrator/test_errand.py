"""Errands that do not end, with an engine that keeps them waiting."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import requests

from node.contract import HostError
from orchestrator.containers import errand
from orchestrator.containers.errand import Errand


@pytest.mark.parametrize("error", [requests.exceptions.ReadTimeout, requests.exceptions.ConnectionError])
def test_one_that_takes_too_long_is_told_as_such_and_removed(error: type[Exception]) -> None:
    done: list[str] = []

    def wait(*, timeout: float) -> Any:
        done.append(f"wait {timeout:g}")
        raise error

    def remove(*, force: bool, v: bool) -> None:
        assert force
        assert v
        done.append("remove")

    container = SimpleNamespace(start=lambda: done.append("start"), wait=wait, remove=remove)
    client: Any = SimpleNamespace(containers=SimpleNamespace(create=lambda *_, **__: container))
    with pytest.raises(HostError, match=r"`tc -V` did not end within 300 s"):
        errand.run(client, "image", {}, Errand(["tc", "-V"], user="0:0"))
    assert done == ["start", "wait 300", "remove"]
