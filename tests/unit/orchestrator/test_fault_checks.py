"""Checks of faults and doubts about the network, on literal histories: six workers, one partition."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from node.contract.plan import (
    AggregationPlan,
    FaultPlan,
    LinkPlan,
    NetworkPlan,
    NodePlan,
    PartitionPlan,
    Plan,
    When,
    WorkloadPlan,
)
from orchestrator.verdict import checks, doubts
from orchestrator.verdict.evidence import Evidence

History = list[dict[str, Any]]
NODES = (
    NodePlan("agg", ("aggregator",), None, None, "10.1.0.1", "10.2.0.1"),
    *(NodePlan(f"w0{n}", ("trainer",), None, None, f"10.1.0.{n + 1}", f"10.2.0.{n + 1}") for n in (1, 2, 3)),
)
ALL = ["w01", "w02", "w03"]
CUT = FaultPlan(
    "partition-1",
    "partition",
    "isolate: w03",
    ("w03",),
    When("round", round=2),
    When("round", round=3),
    deaf={"w03": {"agg": "drop"}, "w01": {"w02": "drop"}},  # w01 and w02 still hear the aggregator
)
PLAN = Plan(
    1,
    "s",
    "",
    7,
    NODES,
    NetworkPlan("10.1.0.0/24", "10.2.0.0/24", "prompt", ()),
    WorkloadPlan("digits", "cnn", PartitionPlan("iid"), 4, 1, 32, 0.1),
    AggregationPlan("mean", "sync", 0.5, 30.0, {}),
    (),
    (),
    (CUT,),
)
LINK = LinkPlan("w01", "agg", 10.0, 0.0, 0.0, None)
SHAPED = replace(PLAN, faults=(), links=(LINK, replace(LINK, from_="agg", to="w01")))
RIGHT: Mapping[str, Any] = {
    "figures": [{}],
    "links": 2,
    "measured_links": 2,
    "seconds": 1.0,
    "outside": [],
    "not_measured": [],
}


def event(kind: str, at_s: float, node: str = "orchestrator", **fields: Any) -> dict[str, Any]:
    return {"kind": kind, "node": node, "wall": 1000 + at_s, "mono_ns": int(at_s * 1e9), **fields}


def fault(kind: str, at_s: float, **more: Any) -> dict[str, Any]:
    """Told 0.2 s after it was asked for, in force 0.1 s after."""
    about: dict[str, Any] = {
        "text": CUT.text,
        "nodes": ["w03"],
        "skew_ms": 1.0,
        "requested_ns": int((at_s - 0.2) * 1e9),
    }
    return event(kind, at_s, fault=CUT.id, effective_ns={"w03": int((at_s - 0.1) * 1e9)}, **about, **more)


def verified(phase: str, at_s: float, yes: bool = True) -> dict[str, Any]:
    return event("fault_verified", at_s, fault=CUT.id, phase=phase, verified=yes, said="w03 hears agg")


def round_(number: int, at_s: float, accepted: list[str]) -> History:
    missing = [name for name in ALL if name not in accepted]
    about = {"completed": True, "accepted": accepted, "refused": 0, "missing": missing, "seconds": 8.0}
    return [
        event("round_opened", at_s, "agg", round=number),
        event("round_closed", at_s + 8, "agg", round=number, **about),
    ]


STARTED, HEALED = fault("fault_started", 19.5), fault("fault_healed", 29.5)
START, HEAL = verified("start", 19.8), verified("heal", 31)
WHOLE: History = [
    *round_(1, 10, ALL),
    STARTED,
    START,
    *round_(2, 20, ["w01", "w02"]),
    HEALED,
    HEAL,
    *round_(3, 30, ALL),
    *round_(4, 40, ALL),
    event("run_finished", 50, "agg", rounds=4, accuracy=0.9),
]


def without(*gone: dict[str, Any]) -> History:
    return [e for e in WHOLE if all(e is not one for one in gone)]


def with_round(number: int, accepted: list[str]) -> History:
    return [
        {**e, "accepted": accepted, "missing": [n for n in ALL if n not in accepted]}
        if e["kind"] == "round_closed" and e["round"] == number
        else e
        for e in WHOLE
    ]


def judged(text: str, history: History, plan: Plan = PLAN, calibration: Any = None) -> checks.Verdict:
    results = {"network_doubts": doubts.network_doubts(plan, history, calibration, None)}
    summary = {**calibration, "figures": len(calibration["figures"])} if calibration else None
    return checks.judge(checks.read(text), plan, history, {**results, "calibration": summary})


def test_who_is_cut_off_does_not_hear_the_aggregator_or_is_not_heard_by_it() -> None:
    evidence = Evidence(PLAN, WHOLE, {})
    assert evidence.cut_off(CUT) == ["w03"]
    assert evidence.cut_off(replace(CUT, deaf={"agg": {"w02": "reject"}})) == ["w02"]


@pytest.mark.parametrize(
    ("history", "text", "state"),
    [
        (WHOLE, "recovered_within: 1 round", "held"),
        (with_round(3, ["w01"]), "recovered_within: 1 round", "violated"),
        (with_round(3, ["w01"]), "recovered_within: 2 rounds", "held"),
        (without(HEALED), "recovered_within: 1 round", "unknown"),
        (without(STARTED, START), "recovered_within: 1 round", "unknown"),
        (without(START), "recovered_within: 1 round", "unknown"),
        (WHOLE[: WHOLE.index(HEAL)], "recovered_within: 1 round", "unknown"),
        (WHOLE, "missing_while_cut", "held"),
        (with_round(2, ALL), "missing_while_cut", "violated"),
        (without(STARTED), "missing_while_cut", "unknown"),
        (WHOLE, "faults_verified", "held"),
        (without(START), "faults_verified", "unknown"),
        (without(HEAL), "faults_verified", "unknown"),
        (without(HEALED), "faults_verified", "unknown"),
        (WHOLE, "emulation_accurate", "held"),
        (without(START), "emulation_accurate", "unknown"),
        (WHOLE, "missing_updates >= 1", "held"),
        (with_round(2, ALL), "missing_updates >= 1", "violated"),
        (WHOLE, "rounds_with_everyone >= 3", "held"),
    ],
)
def test_what_a_partition_shows(history: History, text: str, state: str) -> None:
    verdict = judged(text, history)
    assert (verdict.state, bool(verdict.said)) == (state, True), verdict


def losses(when: str, at_s: float, **lost: int) -> dict[str, Any]:
    return event("losses_counted", at_s, when=when, lost={"w01>agg": 0, "agg>w03": 0, **lost})


@pytest.mark.parametrize(
    ("history", "text", "state"),
    [
        ([losses("before", 1), losses("after", 9, **{"agg>w03": 5})], "lost_packets >= 5", "held"),
        # What the calibration lost before the rounds does not count.
        (
            [losses("before", 1, **{"w01>agg": 9}), losses("after", 9, **{"w01>agg": 9})],
            "lost_packets >= 1",
            "violated",
        ),
        ([losses("before", 1), losses("after", 9, **{"agg>w03": 5})], "lost_packets(w01) >= 1", "violated"),
        ([losses("before", 1), losses("after", 9, **{"agg>w03": 5})], "lost_packets(w03): 5", "held"),
        # A holder that began anew counts from nothing.
        ([losses("before", 1, **{"agg>w03": 7}), losses("after", 9)], "lost_packets >= 0", "unknown"),
        ([losses("before", 1)], "lost_packets >= 0", "unknown"),
        ([], "lost_packets >= 0", "unknown"),
    ],
)
def test_losses_are_those_of_the_rounds(history: History, text: str, state: str) -> None:
    verdict = judged(text, history)
    assert (verdict.state, bool(verdict.said)) == (state, True), verdict


def test_who_never_came_back_is_violated_as_soon_as_it_is_too_late() -> None:
    never = [
        {**e, "accepted": ["w01"]} if e["kind"] == "round_closed" and e["round"] >= 3 else e for e in WHOLE
    ]
    assert judged("recovered_within: 2 rounds", never).state == "violated"
    assert judged("recovered_within: 5 rounds", never).state == "unknown"


def test_a_round_that_is_cut_in_its_middle_shows_nothing() -> None:
    late = [fault("fault_started", 22.0) if e is STARTED else e for e in WHOLE]
    assert judged("missing_while_cut", late).state == "unknown"


def test_a_flapping_cut_counts_only_while_it_is_on() -> None:
    off = fault("fault_flapped", 24.0, is_cut=False)
    on = fault("fault_flapped", 26.0, is_cut=True)
    flapping = [*WHOLE[: WHOLE.index(HEALED)], off, on, *WHOLE[WHOLE.index(HEALED) :]]
    assert Evidence(PLAN, flapping, {}).cuts(CUT) == pytest.approx([(1019.4, 1023.8), (1025.9, 1029.3)])
    assert judged("missing_while_cut", flapping).state == "unknown"


APPLIED = [
    event("links_applied", 1, name, engine="hold", peers=1, applied_ms=1.0, mismatches=[])
    for name in ("agg", "w01")
]


def doubted(*more: dict[str, Any], calibration: Any = RIGHT, lateness: Any = None) -> list[str]:
    return doubts.network_doubts(SHAPED, [*APPLIED, *more], calibration, lateness)


def mismatch(**fields: Any) -> dict[str, Any]:
    return event("link_mismatch", 5, "w01", said="no rate", **fields)


def probed(outside: bool) -> dict[str, Any]:
    return event("link_probed", 5, "w01", peer="agg", rtt_ms=1.0, intended_ms=20.0, outside=outside)


def test_a_network_that_was_verified_leaves_no_doubt() -> None:
    assert doubted() == []
    assert doubted(mismatch(repaired=True, in_fault=True), probed(True), *[probed(False)] * 3) == []
    assert doubted(lateness={"packets": 100, "beyond_tolerance": 5}) == []
    assert doubts.network_doubts(replace(PLAN, faults=()), [], None, None) == []
    assert judged("emulation_accurate", APPLIED, SHAPED, RIGHT).state == "held"


def unanswered(wall: float, node: str = "w01", peer: str = "agg") -> dict[str, Any]:
    return event("link_probed", wall, node, peer=peer, rtt_ms=None, intended_ms=20.0, outside=False)


def test_a_link_that_goes_dark_by_itself_is_a_doubt() -> None:
    (said,) = doubted(unanswered(5), unanswered(15))
    assert said == "2 of 2 probes had no answer, without a fault there: w01-agg"
    assert doubted(unanswered(5)) == []


def test_a_link_that_a_fault_cuts_need_not_answer() -> None:
    at = {"requested_ns": 0, "effective_ns": {}, "skew_ms": 0.0, "fault": CUT.id, "text": "", "nodes": []}
    history = [
        event("fault_started", 100, "orchestrator", **at),
        event("fault_healed", 200, "orchestrator", **{**at, "requested_ns": 200 * 10**9}),
    ]

    def silent(*probes: dict[str, Any]) -> int:
        return len(doubts.unanswered(Evidence(PLAN, [*history, *probes], {})))

    assert silent(unanswered(150, "w03", "agg"), unanswered(150, "agg", "w03")) == 0
    assert silent(unanswered(150, "w01", "agg"), unanswered(50, "w03", "agg")) == 2


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (doubted(calibration=None), "were not measured"),
        (doubted(calibration={**RIGHT, "figures": []}), "no link was measured"),
        (doubted(calibration={**RIGHT, "outside": ["rtt of w01>agg"]}), "rtt of w01>agg"),
        (doubted(mismatch(repaired=False, in_fault=True)), "no rate"),
        (doubted(mismatch(repaired=True, in_fault=False)), "no rate"),
        (doubted(*[probed(True)] * 2), "2 of 2 probes"),
        (doubted(lateness={"packets": 100, "beyond_tolerance": 6}), "6 of 100 held packets"),
        (doubted(event("release_missing", 3, "agg", round=2, waited_s=60)), "round 2"),
        (doubted(event("links_unread", 3, of="w01", message="gone")), "w01 could not be read"),
        (doubted(event("fault_failed", 3, fault="f", phase="start", message="no answer")), "no answer"),
        (doubts.network_doubts(SHAPED, APPLIED[:1], RIGHT, None), "w01 never told"),
        (doubts.network_doubts(PLAN, [], None, None), "partition-1 never began"),
        (doubts.network_doubts(PLAN, without(HEALED), None, None), "never healed"),
        (doubts.network_doubts(PLAN, [*WHOLE, verified("heal", 49, False)], None, None), "w03 hears agg"),
    ],
)
def test_each_reason_for_doubt_is_told(found: list[str], said: str) -> None:
    assert len(found) == 1
    assert said in found[0]


def test_many_alike_are_told_in_few_words() -> None:
    assert len(doubted(*[mismatch(repaired=False, in_fault=False)] * 50)) == 4


def test_an_accurate_emulation_needs_something_to_be_accurate() -> None:
    assert judged("emulation_accurate", [], replace(PLAN, faults=())).state == "unknown"
    assert judged("emulation_accurate", APPLIED, SHAPED, {**RIGHT, "outside": ["x"]}).state == "unknown"
    assert judged("faults_verified", [], replace(PLAN, faults=())).state == "unknown"


# -- processes that are killed and paused

KILL = FaultPlan(
    "kill-1",
    "kill",
    "kill: w03",
    ("w03",),
    When("round", round=2),
    When("round", round=3),
    parts={"w03": ("trainer",)},
)
CRASH = replace(KILL, id="kill-1", targets=("agg",), parts={"agg": ("node",)})


def killed(history: History) -> History:
    """The same, by a kill."""
    return [{**e, "fault": KILL.id} if e.get("fault") == CUT.id else e for e in history]


def with_fault(one: FaultPlan) -> Plan:
    return replace(PLAN, faults=(one,))


@pytest.mark.parametrize(
    ("part", "node", "out"),
    [
        ("trainer", "w03", ["w03"]),
        ("ipfs", "w03", ["w03"]),
        ("node", "w03", ["w03"]),
        ("agent", "w03", []),
        ("aggregator", "agg", ALL),
        ("ipfs", "agg", ALL),
        ("agent", "agg", []),
    ],
)
def test_who_cannot_hand_in_anything(part: str, node: str, out: list[str]) -> None:
    one = replace(KILL, targets=(node,), parts={node: (part,)})
    assert Evidence(with_fault(one), WHOLE, {}).kept_out(one) == out


@pytest.mark.parametrize(
    ("history", "text", "state"),
    [
        (WHOLE, "missing_while_down", "held"),
        (with_round(2, ALL), "missing_while_down", "violated"),
        (without(STARTED), "missing_while_down", "unknown"),
        (WHOLE, "missing_while_cut", "unknown"),
        (WHOLE, "recovered_within: 1 round", "held"),
        (with_round(3, ["w01"]), "recovered_within: 1 round", "violated"),
        (WHOLE, "faults_verified", "held"),
        (without(HEAL), "faults_verified", "unknown"),
        (WHOLE, "interrupted_rounds >= 1", "violated"),
    ],
)
def test_what_a_kill_shows(history: History, text: str, state: str) -> None:
    verdict = judged(text, killed(history), with_fault(KILL))
    assert (verdict.state, bool(verdict.said)) == (state, True), verdict


def crashed(at_s: float) -> History:
    """In round 2, which opens at 20 s and is closed at 28 s, if it is at such a time."""
    crash = {**STARTED, "effective_ns": {"agg": int(at_s * 1e9)}, "mono_ns": int((at_s + 1) * 1e9)}
    crash["wall"] = 1000 + at_s + 1
    return killed([crash if e is STARTED else e for e in WHOLE])


@pytest.mark.parametrize(
    ("history", "state"),
    [
        (crashed(22), "held"),
        (crashed(19), "violated"),  # between the rounds
        (crashed(28.5), "violated"),
        ([e for e in crashed(22) if e["kind"] != "fault_started"], "violated"),
        ([e for e in crashed(22) if e.get("phase") != "start"], "violated"),  # nobody saw that it was dead
    ],
)
def test_a_round_goes_on_after_the_aggregator_died_in_it(history: History, state: str) -> None:
    assert judged("interrupted_rounds == 1", history, with_fault(CRASH)).state == state


def test_links_that_nobody_watches_are_no_doubt_and_are_told() -> None:
    gone = replace(KILL, heal=None, parts={"w03": ("node",)})
    unread = event("links_unread", 50, of="w03", message="")
    probe = event("link_probed", 25, "w01", peer="w03", rtt_ms=None, intended_ms=0.0, outside=False)
    silent = [probe] * 9
    history = [*killed([e for e in WHOLE if e is not HEALED and e is not HEAL]), unread, *silent]
    assert doubts.network_doubts(with_fault(gone), history, None, None) == []
    other = replace(gone, parts={"w03": ("trainer",)})  # its agent is there, and should have answered
    found = doubts.network_doubts(with_fault(other), history, None, None)
    assert "the links of w03 could not be read at the end" in found
    assert any("probes had no answer" in one for one in found)
    assert doubts.unwatched_seconds(with_fault(gone), history) == {"w03": pytest.approx(50 - 19.3)}
    assert doubts.unwatched_seconds(with_fault(other), history) == {}
    back = replace(gone, heal=KILL.heal)
    assert doubts.unwatched_seconds(with_fault(back), killed(WHOLE)) == {"w03": pytest.approx(31 - 19.3)}
