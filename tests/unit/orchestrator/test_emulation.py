"""The emulated network of a run, with agents that do as they are told: who releases which round, and how often."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from node.contract import ShoalError
from node.contract.links import CutDone
from node.contract.plan import FaultPlan, Plan, TrunkPlan, When
from node.contract.schema import to_json
from orchestrator.emulation import Emulation
from orchestrator.faults import fault as faults
from orchestrator.history import Event, History
from tests.unit.orchestrator.test_schedule import NAMES, cut, plan_of, round_

PATIENCE_S = 20.0


class Agents:
    """Do and answer at once, but for probes, which they cannot make."""

    def __init__(self) -> None:
        self.released: list[int] = []

    def __call__(
        self, node: str, method: str, path: str, body: Mapping[str, Any] | None, patience_s: float
    ) -> Mapping[str, Any]:
        match method, path.partition("?")[0], body:
            case "GET", "/clock", None:
                return {"mono_ns": time.monotonic_ns()}
            case "PUT", "/release", {"round": number}:
                self.released.append(number)
                return {"round": number}
            case "PUT", "/faults", {"faults": faults}:
                return {"faults": len(faults)}
            case "PUT", "/cuts", {"cut": order, "at_mono_ns": at_ns}:
                done: Mapping[str, Any] = to_json(CutDone(order["fault"], at_ns, at_ns, order["deaf_to"]))
                return done
        raise ShoalError(f"{node} was asked {method} {path} {body}")


def unshaped(*faults: FaultPlan) -> Plan:
    plan = plan_of(*faults)
    return replace(plan, links=tuple(replace(link, latency_ms=0.0) for link in plan.links))


def event(kind: str, node: str, **fields: Any) -> dict[str, Any]:
    return {"kind": kind, "node": node, "wall": 0.0, "mono_ns": time.monotonic_ns(), **fields}


@pytest.mark.parametrize(
    ("starts", "rounds"),
    [
        ([round_(1)], (1,)),
        ([round_(3)], (1, 3)),
        ([round_(1), round_(3)], (1, 3)),
        ([When("time", seconds=5.0)], (1,)),
    ],
    ids=["at round 1", "later", "both", "at a time"],
)
def test_every_round_that_waits_is_released_once(
    starts: list[When], rounds: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faults, "LEAD_S", 0.0)
    agents, history = Agents(), History(tmp_path / "history.jsonl")
    planned = [cut(f"fault-{number}", start) for number, start in enumerate(starts)]
    emulation = Emulation(unshaped(*planned), history, lambda _: None, agents)
    assert emulation.pauses == rounds
    try:
        for name in NAMES:
            history.add(event("links_applied", name))
        for number in rounds:
            due = event("round_due", "agg", round=number)
            history.add(due)
            emulation.heard(due)

            def is_released(events: list[Event], number: int = number) -> bool:
                return any(e["kind"] == "round_released" and e["round"] == number for e in events)

            assert history.wait(is_released, PATIENCE_S)
            history.add(event("round_opened", "agg", round=number))
    finally:
        emulation.leave()
        emulation._timeline.stop()
        history.close()
    assert tuple(agents.released) == rounds
    assert tuple(one["round"] for one in history.of("round_released")) == rounds


def test_nothing_waits_where_nothing_is_asked_of_the_network(tmp_path: Path) -> None:
    agents, history = Agents(), History(tmp_path / "history.jsonl")
    emulation = Emulation(unshaped(), history, lambda _: None, agents)
    emulation.heard(event("round_due", "agg", round=1))
    history.close()
    assert (emulation.pauses, emulation.table("agg"), agents.released) == ((), None, [])


def test_every_table_says_where_trunks_are_also_one_of_a_fault(tmp_path: Path) -> None:
    plan, line = plan_of(), TrunkPlan("eu:asia", "eu", "asia", 6_000_000)
    links = tuple(replace(link, trunk=line.name if link.to == "w02" else None) for link in plan.links)
    shared = replace(plan, links=links, network=replace(plan.network, trunks=(line,)))
    history = History(tmp_path / "history.jsonl")
    emulation = Emulation(shared, history, lambda _: None, Agents())
    emulation.bind(lambda _: json.dumps({"engine": "none", "probed": None}), None, "10.77.3.254")
    history.close()
    told = emulation.table("agg")
    assert told is not None
    assert told == emulation._fleet.tables(links)["agg"]
    assert [(links.peer, links.via) for links in told.peers] == [("w01", None), ("w02", "10.77.3.254")]
