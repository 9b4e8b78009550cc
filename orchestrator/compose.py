"""The `compose` driver (being written)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from node.contract import HostError
from node.contract.plan import Plan
from orchestrator.driver import DriverName, Fleet, Job, Say


class ComposeDriver:
    name: DriverName = "compose"

    def check(self, plan: Plan) -> None:
        raise HostError("the compose driver is not there yet")

    def place(self, plan: Plan, say: Say) -> Plan:
        raise HostError("the compose driver is not there yet")

    @contextmanager
    def open(self, job: Job) -> Iterator[Fleet]:
        raise HostError("the compose driver is not there yet")
        yield
