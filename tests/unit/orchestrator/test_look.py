"""How agents' holders of packets may come first: what is tried, in which order, and what is made of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from node.contract import HostError
from orchestrator.containers import errand
from orchestrator.containers.compose_file import RT_PERIOD_US, RealTime
from orchestrator.containers.errand import Done, Errand
from orchestrator.containers.look import NARROW_US, ROOMY_US, Look


class Host:
    """An engine and its kernel, as far as they let a container have real time."""

    def __init__(self, *, limits: bool = True, nice: bool = True, left_us: int | None = None) -> None:
        self.limits, self.nice, self.left_us = limits, nice, left_us

    def run(self, _: Any, image: str, labels: Mapping[str, str], asked: Errand) -> Done:
        assert (image, labels, asked.user) == ("node:1", {"a": "b"}, "0:0")
        more = dict(asked.more or {})
        is_limit = [(one.name, one.hard) for one in more.pop("ulimits")] == [("rtprio", 1)]
        shared_us = more.pop("cpu_rt_runtime", 0)
        if shared_us:
            assert more.pop("cpu_rt_period") == RT_PERIOD_US
        assert more == {}
        if (is_limit and not self.limits) or shared_us > (self.left_us or 0):
            raise HostError("the engine does not start it")
        if "lend" in asked.argv[-1]:  # whose share of real time does not matter
            return Done(0 if self.nice and asked.capabilities == ("SYS_NICE",) else 1, "", "")
        assert asked.capabilities == ()
        return Done(0 if is_limit and (self.left_us is None or shared_us > 0) else 1, "", "")


@pytest.mark.parametrize(
    ("host", "found"),
    [
        (Host(), RealTime("asked")),
        (Host(limits=False), RealTime("raised")),
        (Host(nice=False), RealTime("asked")),
        (Host(left_us=95_000), RealTime("raised")),
        (Host(limits=False, left_us=95_000), RealTime("raised")),
        (Host(nice=False, left_us=95_000), RealTime("asked", ROOMY_US // 6)),
        (Host(nice=False, left_us=50_000), RealTime("asked", NARROW_US // 6)),
        (Host(nice=False, left_us=10_000), None),
        (Host(limits=False, nice=False), None),
    ],
)
def test_agents_ask_themselves_where_they_may_else_their_holders_are_raised(
    host: Host, found: RealTime | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(errand, "run", host.run)
    client: Any = object()
    assert Look(client, "node:1", {"a": "b"}).real_time(6) == found
