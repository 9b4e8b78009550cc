"""What faults ask agents for, and how instants are translated."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from node.contract import ShoalError
from node.contract.faults import FaultNow, FaultsNow
from node.contract.links import Cut, CutDone, InForce
from node.contract.plan import FaultPlan, When
from node.contract.schema import to_json
from orchestrator.faults import agents
from orchestrator.faults.agents import AgentFleet
from tests.unit.orchestrator.test_schedule import plan_of

AHEAD_NS = 5_000_000_000_000
IN_FORCE = InForce("hold", (), (), None, None, "cubic", 1, 0.0)


class Wire:
    """Answers as agents do whose clocks are ahead of ours."""

    def __init__(self, ahead_ns: int = AHEAD_NS) -> None:
        self.ahead_ns = ahead_ns
        self.asked: list[tuple[str, str, str, Any]] = []

    def __call__(
        self, node: str, method: str, path: str, body: Mapping[str, Any] | None, patience_s: float
    ) -> Mapping[str, Any]:
        assert 0 < patience_s < 120
        if path == "/clock":
            return {"mono_ns": time.monotonic_ns() + self.ahead_ns}
        self.asked.append((node, method, path, body))
        match method, path.partition("?")[0]:
            case "PUT", "/cuts":
                assert body is not None
                return self._done("split", body["at_mono_ns"])
            case "DELETE", "/cuts/split":
                return self._done("split", int(path.partition("at_mono_ns=")[2]))
            case (("PUT" | "GET"), "/links"):
                said: Mapping[str, Any] = to_json(IN_FORCE)
                return said
            case "PUT", "/release":
                return {"round": 3}
            case "PUT", "/faults":
                return {"faults": 1}
        raise ShoalError(f"{node} does not know {method} {path}")

    def _done(self, fault: str, at_ns: int) -> Mapping[str, Any]:
        done: Mapping[str, Any] = to_json(CutDone(fault, at_ns, at_ns + 7_000, {"w01": "drop"}))
        return done


def test_instants_are_of_our_clock_on_this_side_and_of_the_nodes_on_the_other() -> None:
    wire = Wire()
    fleet = AgentFleet(plan_of(), wire)
    fleet.read_clocks()
    at_ns = time.monotonic_ns() + 1_000_000
    off_ns = fleet.clock_offset_ns("w01")
    assert abs(off_ns - AHEAD_NS) < 1_000_000_000
    done = fleet.put_cut("w01", Cut("split", {"agg": "drop"}), at_ns)
    assert (done.requested_mono_ns, done.effective_mono_ns) == (at_ns, at_ns + 7_000)
    done = fleet.remove_cut("w01", "split", at_ns)
    assert (done.requested_mono_ns, done.effective_mono_ns) == (at_ns, at_ns + 7_000)
    assert wire.asked == [
        ("w01", "PUT", "/cuts", {"cut": {"fault": "split", "deaf_to": {"agg": "drop"}}, "at_mono_ns": at_ns + off_ns}),
        ("w01", "DELETE", f"/cuts/split?at_mono_ns={at_ns + off_ns}", None),
    ]  # fmt: skip


def test_tables_releases_and_what_is_read_back() -> None:
    wire = Wire()
    plan = plan_of()
    fleet = AgentFleet(plan, wire)
    slow = tuple(replace(link, latency_ms=90.0) for link in plan.links)
    table = fleet.tables(slow)["w02"]
    assert {peer.into.latency_ms for peer in table.peers} == {90.0}
    assert fleet.put_links("w02", table) == IN_FORCE
    assert fleet.get_links("w02") == IN_FORCE
    fleet.release(3)
    fleet.show(FaultsNow({"split": FaultNow("partition", True)}))
    assert wire.asked == [
        ("w02", "PUT", "/links", to_json(table)),
        ("w02", "GET", "/links", None),
        ("agg", "PUT", "/release", {"round": 3}),
        ("agg", "PUT", "/faults", {"faults": {"split": {"kind": "partition", "is_active": True}}}),
    ]


def test_an_agent_that_refuses_is_an_error() -> None:
    with pytest.raises(ShoalError, match="w01 does not know DELETE /cuts/other"):
        AgentFleet(plan_of(), Wire()).remove_cut("w01", "other", 1)


def test_one_clock_is_not_made_two_by_how_it_is_read() -> None:
    assert agents.offset_ns([(100, 180, 200), (300, 301, 310)]) == 0
    assert agents.offset_ns([(100, 900, 1000), (300, 1305, 310)]) == 1000  # the quickest read counts
    with pytest.raises(ShoalError):
        agents.offset_ns([])


def test_probes_wait_for_the_slowest_that_a_link_may_be() -> None:
    change: dict[str, Any] = {"links": [["agg", "w01"]], "set": {"latency_ms": 900.0, "loss": 0.5}}
    plan = plan_of(
        FaultPlan("a", "degrade", "a", ("w01",), When("round", round=1), None, {}, change),
        FaultPlan("b", "degrade", "b", ("w01",), When("round", round=1), None, {}, {**change, "set": {"latency_ms": 1.0}}),
    )  # fmt: skip
    links = {(link.from_, link.to): link for link in agents.slowest(plan).links}
    assert (links["agg", "w01"].latency_ms, links["agg", "w01"].loss) == (900.0, 0.5)
    assert (links["w01", "agg"].latency_ms, links["w01", "agg"].loss) == (5.0, 0.0)
