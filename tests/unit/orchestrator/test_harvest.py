"""What is taken from the agents' pages before a fleet ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from orchestrator import harvest
from orchestrator.driver import Answer, Fleet
from orchestrator.gate import GateError
from tests.unit.orchestrator.test_schedule import plan_of

PAGE = """
shoal_interface_received_bytes_total{interface="ctl"} 7.0
shoal_interface_received_bytes_total{interface="data"} 5.5e+06
shoal_part_proportional_peak_bytes{part="agent"} 1.0e+06
"""
ROLES = "".join(
    f'shoal_part_proportional_peak_bytes{{part="{part}"}} 2.0e+06\n'
    for part in ("ipfs", "trainer", "aggregator")
)


class Pages:
    """A fleet of whom only the agents' metrics are asked."""

    def __init__(self, pages: Mapping[str, str], containers: Mapping[str, float]) -> None:
        self._pages, self._containers = pages, containers

    def memory_bytes(self) -> Mapping[str, float]:
        return self._containers

    def ask(self, node: str, method: str, path: str, body: None, headers: object, timeout_s: float) -> Answer:
        assert (method, path, body) == ("GET", "/metrics", None)
        if node not in self._pages:
            raise GateError("gone")
        return self._pages[node].encode(), {}


def counted(pages: Mapping[str, str], **containers: float) -> harvest.Counters:
    return harvest.counters(plan_of(), cast(Fleet, Pages(pages, containers)))


def test_memory_is_summed_only_where_the_agent_may_look() -> None:
    names = [node.name for node in plan_of().nodes]
    first, *others = names
    found = counted({first: PAGE + ROLES, **dict.fromkeys(others, PAGE)})
    assert found["end"] == dict.fromkeys(names, 5.5e6)
    assert found["memory"] == {first: 7e6}


def test_where_no_agent_may_look_no_memory_is_known() -> None:
    assert "memory" not in counted({node.name: PAGE for node in plan_of().nodes})


def test_what_the_driver_saw_is_taken_along() -> None:
    assert counted({}, w01=3e8) == {"end": {}, "containers": {"w01": 3e8}}


def test_who_does_not_answer_is_left_out() -> None:
    assert counted({}) == {"end": {}}
