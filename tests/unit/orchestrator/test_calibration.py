"""A calibration of literal plans, by a fleet that behaves exactly as it is told."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from node.contract import ShoalError
from node.contract.links import TracePoint
from node.contract.plan import (
    AggregationPlan,
    LinkPlan,
    NetworkPlan,
    NodePlan,
    PartitionPlan,
    Plan,
    Role,
    TracePlan,
    TrunkPlan,
    WorkloadPlan,
)
from node.contract.probes import TCP_SEGMENT_SHARE, UDP_HEADERS_BYTES
from orchestrator.measuring.calibrator import Calibrator
from orchestrator.measuring.measurements import BUDGET_S, Job, Network, jobs, waves, within
from orchestrator.measuring.probing import Prober

TRAINER: tuple[Role, ...] = ("trainer",)
AGGREGATOR: tuple[Role, ...] = ("aggregator",)
NAMES = ("agg", "w01", "w02", "w03", "w04", "w05")


def link(source: str, target: str, **more: Any) -> LinkPlan:
    bare = LinkPlan(source, target, latency_ms=0.0, jitter_ms=0.0, loss=0.0, rate_bit_s=None)
    return replace(bare, **more)


def plan(
    every: Mapping[str, Any] | None = None, some: Mapping[tuple[str, str], Any] | None = None, **network: Any
) -> Plan:
    """A full mesh; `some` links are different."""
    links = tuple(
        link(a, b, **{**(every or {}), **(some or {}).get((a, b), {})})
        for a, b in itertools.permutations(NAMES, 2)
    )
    nodes = tuple(
        NodePlan(n, TRAINER if n != "agg" else AGGREGATOR, None, None, f"10.1.0.{i}", f"10.2.0.{i}")
        for i, n in enumerate(NAMES, start=1)
    )
    return Plan(
        1,
        "s",
        "",
        7,
        nodes,
        NetworkPlan("10.1.0.0/24", "10.2.0.0/24", "prompt", (), **network),
        WorkloadPlan("digits", "cnn", PartitionPlan("iid"), 3, 1, 32, 0.1),
        AggregationPlan("mean", "sync", 0.5, 30.0, {}),
        (),
        links,
    )


class FakeFleet:
    """Agents on links that are exactly as planned, unless told otherwise."""

    def __init__(self, plan: Plan) -> None:
        self.network = Network(plan)
        self.names = {node.data_address: node.name for node in plan.nodes}
        self.asked: list[tuple[str, str]] = []
        self.sinks: dict[tuple[str, int], dict[str, Any]] = {}
        self.slow: dict[str, list[float]] = {}  # by link: what the next echoes take beyond the intended
        self.rate_factor = 1.0
        self.loss: float | None = None

    def post(self, node: str, path: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        assert path == "/probes"
        self.asked.append((node, body["do"]))
        return getattr(self, f"_{body['do']}")(node, body)  # type: ignore[no-any-return]

    def _echo(self, node: str, body: Mapping[str, Any]) -> dict[str, Any]:
        peer = self.names[body["peer_address"]]
        there, back = self.network.links[node, peer], self.network.links[peer, node]
        late = self.slow.get(f"{node}>{peer}", [])
        rtt = there.latency_ms + back.latency_ms + 0.3 + (late.pop(0) if late else 0.0)
        return {"sent": body["count"], "rtt_ms": [rtt] * body["count"]}

    def _open(self, node: str, body: Mapping[str, Any]) -> dict[str, Any]:
        number = len(self.sinks) + 1
        self.sinks[node, number] = dict(body)
        return {"sink": number, "port": 1000 + number}

    def _send(self, node: str, body: Mapping[str, Any]) -> dict[str, Any]:
        target = self.names[body["peer_address"]]
        self.sinks[target, body["port"] - 1000] |= {"source": node, "sent": dict(body)}
        return {"packets": body["packets"], "bytes": 0, "seconds": 0.0}

    def _close(self, node: str, body: Mapping[str, Any]) -> dict[str, Any]:
        sink = self.sinks[node, body["sink"]]
        way = self.network.links[sink["source"], node]
        payload = sink["sent"]["payload_bytes"]
        sent = sink["sent"]["packets"]
        cap = (self.network.cap_bit_s(way) or 0) * self.rate_factor
        loss = way.loss if self.loss is None else self.loss
        came = round(sent * (1 - loss))
        share = (
            TCP_SEGMENT_SHARE
            if sink["carrier"] == "tcp"
            else payload / (payload + UDP_HEADERS_BYTES) * (1 - loss)
        )
        return {
            "packets": came,
            "duplicates": round(came * way.duplicate),
            "overtaken": 0,
            "bytes": came * payload,
            "overflowed": 0,
            "rate_bytes": round(cap * share / 8 * sink["window_s"]),
            "rate_s": sink["window_s"],
        }


def test_a_fleet_without_shaped_links_is_not_measured() -> None:
    fleet = FakeFleet(plan())
    found = Calibrator(fleet.post).measure(plan(), everything=True)
    assert (fleet.asked, found.figures) == ([], ())


def test_one_link_of_each_kind_is_measured() -> None:
    some = {("w01", "w02"): {"latency_ms": 100.0}, ("w02", "w01"): {"latency_ms": 100.0}}
    made = jobs(plan({"latency_ms": 5.0, "rate_bit_s": 10_000_000}, some), everything=False)
    trips = [job for job in made if job.what == "round_trip_ms"]
    goodputs = [job for job in made if job.what == "goodput_bit_s"]
    assert {job.link for job in trips} & {"w01>w02"}
    assert (len(trips), len(goodputs)) == (2, 2)
    assert not [job for job in made if job.what == "loss"]


def test_another_seed_draws_other_links() -> None:
    drawn = {
        tuple(job.link for job in jobs(replace(plan({"latency_ms": 5.0}), seed=s), False)) for s in range(30)
    }
    assert len(drawn) > 5
    assert jobs(plan({"latency_ms": 5.0}), False) == jobs(plan({"latency_ms": 5.0}), False)


def test_everything_is_every_link() -> None:
    made = jobs(
        plan({"latency_ms": 5.0, "loss": 0.01, "rate_bit_s": 10**7, "duplicate": 0.01}), everything=True
    )
    count = {
        what: sum(job.what == what for job in made)
        for what in ("round_trip_ms", "loss", "duplicates", "goodput_bit_s")
    }
    assert count == {"round_trip_ms": 15, "loss": 30, "duplicates": 30, "goodput_bit_s": 30}


def test_lines_and_trunks_bound_a_link_as_its_rate_does() -> None:
    whole = plan({"trunk": "eu-asia"}, trunks=(TrunkPlan("eu-asia", "eu", "asia", 8_000_000),))
    narrow = replace(
        whole, nodes=tuple(replace(n, up_bit_s=2_000_000 if n.name == "w01" else None) for n in whole.nodes)
    )
    network = Network(narrow)
    assert network.cap_bit_s(network.links["w01", "w02"]) == 2_000_000
    assert network.cap_bit_s(network.links["w02", "w01"]) == 8_000_000
    assert network.is_shaped()


def test_side_by_side_only_what_shares_neither_node_nor_trunk() -> None:
    made = waves(jobs(plan({"latency_ms": 5.0}), everything=True))
    for wave in made:
        names = [name for job in wave for name in job.busy]
        assert len(names) == len(set(names))
    assert sum(len(wave) for wave in made) == 15
    assert len(made) < 15
    shared = plan({"rate_bit_s": 10**6, "trunk": "t"}, trunks=(TrunkPlan("t", "a", "b", 10**7),))
    assert {len(wave) for wave in waves(jobs(shared, everything=True))} == {1}


def test_the_host_is_not_asked_to_carry_too_much_at_once() -> None:
    fast = [job for job in jobs(plan({"rate_bit_s": 150_000_000}), True) if job.what == "goodput_bit_s"]
    assert {len(wave) for wave in waves(fast)} == {1}


def test_what_does_not_fit_into_the_time_is_left_and_told() -> None:
    kinds = {
        pair: {"latency_ms": 1.0 + i, "loss": 0.01} for i, pair in enumerate(itertools.permutations(NAMES, 2))
    }
    slow = plan({"rate_bit_s": 100_000}, kinds)
    taken, left = within(waves(jobs(slow, False)), BUDGET_S)
    assert sum(max(job.seconds for job in wave) for wave in taken) <= BUDGET_S
    assert left
    found = Calibrator(FakeFleet(slow).post).measure(slow, everything=False)
    assert f"{left[0].what} of {left[0].link}: no time for it" in found.not_measured
    assert not Calibrator(FakeFleet(slow).post).measure(slow, everything=True).not_measured


def job_of(what: str, **shape: Any) -> Job:
    (found,) = [job for job in jobs(plan(shape), False) if job.what == what]
    return found


def test_long_lossy_or_slow_links_are_measured_by_packets() -> None:
    assert job_of("goodput_bit_s", rate_bit_s=10**7).carrier == "tcp"
    for shape in ({"latency_ms": 60.0}, {"loss": 0.01}, {"reorder": 0.1}):
        assert job_of("goodput_bit_s", rate_bit_s=10**7, **shape).carrier == "udp"
    slow = job_of("goodput_bit_s", rate_bit_s=64_000)
    assert slow.carrier == "udp"
    assert slow.window_s * 64_000 / 8 >= 50 * (slow.payload_bytes + UDP_HEADERS_BYTES)
    assert slow.window_s <= 4


def test_losses_are_counted_over_enough_packets_and_below_the_rate() -> None:
    assert job_of("loss", loss=0.01).packets == 10_000
    slow = job_of("loss", loss=0.01, rate_bit_s=100_000)
    assert slow.packets < 10_000
    assert "instead of 10000" in slow.how
    assert slow.per_s * 8 * 62 <= 50_000


def test_a_right_network_is_inside() -> None:
    right = plan({"latency_ms": 60.0, "loss": 0.01, "rate_bit_s": 5_000_000, "duplicate": 0.02})
    found = Calibrator(FakeFleet(right).post).measure(right, everything=False)
    assert {figure.what for figure in found.figures} == {
        "round_trip_ms",
        "loss",
        "duplicates",
        "goodput_bit_s",
    }
    assert found.outside == ()
    assert all(figure.ok and figure.attempts == 1 for figure in found.figures)
    assert found.links == 30
    assert found.measured_links < 30
    assert any("asked for alike" in said for said in found.not_measured)


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        ({"loss": 0.0}, "loss"),
        ({"loss": 0.02}, "loss"),
        ({"rate_factor": 1.05}, "goodput_bit_s"),
        ({"rate_factor": 0.96}, "goodput_bit_s"),
    ],
)
def test_a_wrong_network_is_outside(wrong: Mapping[str, float], what: str) -> None:
    intended = plan({"latency_ms": 60.0, "loss": 0.01, "rate_bit_s": 50_000_000})
    fleet = FakeFleet(intended)
    for name, value in wrong.items():
        setattr(fleet, name, value)
    found = Calibrator(fleet.post).measure(intended, everything=False)
    outside = [figure for figure in found.figures if not figure.ok]
    assert what in {figure.what for figure in outside}
    assert all(figure.attempts == 2 for figure in outside)
    assert len(found.outside) == len(outside)


def test_a_link_outside_is_measured_once_more() -> None:
    intended = plan({"latency_ms": 20.0})
    (job,) = jobs(intended, False)
    for late, ok in (([9.0], True), ([9.0, 9.0], False), ([-9.0, -9.0], False)):
        fleet = FakeFleet(intended)
        fleet.slow[job.link] = late
        (figure,) = Calibrator(fleet.post).measure(intended, everything=False).figures
        assert (figure.ok, figure.attempts) == (ok, 2)


def test_what_cannot_be_measured_is_outside() -> None:
    intended = plan({"latency_ms": 20.0})

    def dead(node: str, path: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        raise ShoalError(f"{node} does not answer")

    def refused(node: str, path: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"error": "no such interface"}

    def silent(node: str, path: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"sent": 20, "rtt_ms": [40.0] * 4}

    for post, said in ((dead, "does not answer"), (refused, "no such interface"), (silent, "4 of 20 echoes")):
        found = Calibrator(post).measure(intended, everything=False)
        assert [figure.measured for figure in found.figures] == [None]
        assert said in found.outside[0]


def test_a_link_with_a_trace_may_be_anywhere_between_its_extremes() -> None:
    points = (TracePoint(0.0, latency_ms=10.0), TracePoint(5.0, latency_ms=50.0))
    intended = plan(
        {"latency_ms": 20.0, "trace": "t", "rate_bit_s": 10**7},
        traces={"t": TracePlan("t.csv", "0", True, points)},
    )
    found = Calibrator(FakeFleet(intended).post).measure(intended, everything=False)
    assert [(f.what, f.low, f.high) for f in found.figures] == [("round_trip_ms", 19.0, 102.0)]
    assert any("follows a trace" in said for said in found.not_measured)


def test_hearing_is_of_one_direction() -> None:
    cut = plan(None, {("w01", "w02"): {"loss": 1.0}})
    prober = Prober(FakeFleet(cut).post, cut)
    assert not prober.hears("w02", "w01")
    assert prober.hears("w01", "w02")
    assert prober.rtt_ms("w01", "w02") == pytest.approx(0.3)
