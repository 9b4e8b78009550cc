"""Trunks in a real box: flows between different nodes share one line."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from node.contract import ShoalError
from node.contract.plan import (
    AggregationPlan,
    LinkPlan,
    NetworkPlan,
    NodePlan,
    PartitionPlan,
    Plan,
    TrunkPlan,
    WorkloadPlan,
)
from node.links.probes import Probes
from node.namespace import enter
from orchestrator.boxes import trunks
from orchestrator.boxes.box import Box
from orchestrator.boxes.netns import lay_trunks

WAIT_S = 60.0
NONCE = "ef" * 8
RATE_BIT_S = 6_000_000
TRIES = 3


def plan() -> Plan:
    """Two nodes in each of two zones; from the first zone to the second there is a trunk."""
    zones = {"trk1": "eu", "trk2": "eu", "trk3": "asia", "trk4": "asia"}
    links = tuple(
        LinkPlan(
            a, b, 0.0, 0.0, 0.0, None, trunk="eu-asia" if (zones[a], zones[b]) == ("eu", "asia") else None
        )
        for a in zones
        for b in zones
        if a != b
    )
    return Plan(
        version=1,
        scenario="trunks",
        summary="",
        seed=1,
        nodes=tuple(
            NodePlan(name, ("trainer",), zone, None, f"10.77.44.{n}", f"10.77.45.{n}")
            for n, (name, zone) in enumerate(zones.items(), 1)
        ),
        network=NetworkPlan(
            data_subnet="10.77.44.0/24",
            ctl_subnet="10.77.45.0/24",
            transport="prompt",
            edges=(),
            trunks=(TrunkPlan("eu-asia", "eu", "asia", RATE_BIT_S),),
        ),
        workload=WorkloadPlan("digits", "cnn", PartitionPlan("iid"), 1, 1, 1, 0.1),
        aggregation=AggregationPlan("mean", "sync", 1.0, 30.0, {}),
        checks=(),
        links=links,
    )


class End:
    """Probes of one node."""

    def __init__(self, name: str, address: str) -> None:
        self.address = address
        self._probes = Probes(address)
        self._threads = ThreadPoolExecutor(4, initializer=enter, initargs=(name,))

    def ask(self, do: str, **fields: Any) -> dict[str, Any]:
        return vars(self._threads.submit(self._probes.make, {"do": do, **fields}).result(WAIT_S))


@pytest.fixture(scope="module")
def ends() -> dict[str, End]:
    box = Box.current()
    if box.run(["ip", "link", "show", "data"], timeout_s=WAIT_S, check=False).status != 0:
        box.add_bridge("data")
    made = {}
    for node in plan().nodes:
        there = box.add_node(node.name, {"data": f"{node.data_address}/24"})
        there.run(["ip", "link", "set", "dev", "data", "gso_max_segs", "1"], timeout_s=WAIT_S)
        made[node.name] = End(node.name, node.data_address)
    lay_trunks(box, plan())
    return made


def bit_s(sender: End, receiver: End) -> float:
    sink = receiver.ask("open", carrier="tcp", nonce=NONCE, warm_up_s=0.5, window_s=1.0)
    sender.ask(
        "send", carrier="tcp", nonce=NONCE, peer_address=receiver.address, port=sink["port"], lasts_s=30
    )
    told = receiver.ask("close", sink=sink["sink"], wait_ms=20_000)
    return float(told["rate_bytes"]) * 8 / float(told["rate_s"])


def is_soon(condition: Callable[[], bool]) -> bool:
    return any(condition() for _ in range(TRIES))


def test_two_flows_share_a_trunk_and_the_way_back_is_free(ends: dict[str, End]) -> None:
    def shared() -> bool:
        with ThreadPoolExecutor(2) as pool:
            flows = [pool.submit(bit_s, ends[a], ends[b]) for a, b in (("trk1", "trk3"), ("trk2", "trk4"))]
            rates = [flow.result() for flow in flows]
        return sum(rates) == pytest.approx(RATE_BIT_S * 1448 / 1514, rel=0.06) and min(rates) > 0.2 * sum(
            rates
        )

    assert is_soon(shared)
    assert bit_s(ends["trk3"], ends["trk1"]) > 1.5 * RATE_BIT_S
    assert bit_s(ends["trk1"], ends["trk2"]) > 1.5 * RATE_BIT_S


def test_what_is_not_as_asked_is_said(ends: dict[str, End]) -> None:
    box = Box.current()

    def said() -> list[str]:
        answer = box.run(["sh"], input_text=trunks.question(plan(), "data"), timeout_s=WAIT_S).stdout
        return trunks.differences(plan(), answer)

    assert said() == []
    change = "tc class change dev trunk0 parent 1: classid 1:1 htb rate 7mbit quantum 1514"
    box.run(["sh", "-ec", change], timeout_s=WAIT_S)
    assert said() == ["trunk eu-asia has 7000000 bit/s instead of 6000000"]
    box.run(["sh", "-ec", "tc qdisc delete dev data-trk1 ingress"], timeout_s=WAIT_S)
    assert len(said()) == 2
    with pytest.raises(ShoalError, match="trk1"):
        trunks.check(
            plan(), box.run(["sh"], input_text=trunks.question(plan(), "data"), timeout_s=WAIT_S).stdout
        )
