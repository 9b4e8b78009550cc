"""Faults of a scenario: what is read, what it becomes in the plan, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.contract import UsageError
from node.contract.plan import FaultPlan, Plan, When
from node.contract.schema import from_json
from orchestrator.faults import resolving, schedule
from orchestrator.planning import keys, plan, scenario

TOP = Path(__file__).resolve().parents[3]
SMALL = """\
summary: small
fleet: {{aggregator: {{zone: core}}, workers: [{{count: 4, zone: eu}}, {{count: 2, zone: asia}}]}}
workload: {{dataset: digits, rounds: 6}}
network: {{default: {{latency: 20 ms, jitter: 2 ms}}}}
checks: [rounds_completed == 6]
faults:
{faults}
"""
Load = Callable[..., Plan]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def write_and_plan(*faults: str, seed: int = 3, replacing: tuple[str, str] = ("", "")) -> Plan:
        text = SMALL.format(faults="\n".join(f"  - {{{one}}}" for one in faults))
        (tmp_path / "mine.yaml").write_text(text.replace(*replacing))
        return plan.make_plan(scenario.load(tmp_path / "mine.yaml", "mine.yaml"), seed)

    return write_and_plan


def only(made: Plan) -> FaultPlan:
    (fault,) = made.faults
    return fault


def test_a_partition_with_all_that_it_says(load: Load) -> None:
    fault = only(
        load("partition: {isolate: [w02, agg]}, how: reject, at: round 3, heal: round 5, name: split")
    )
    assert (fault.id, fault.kind, fault.targets) == ("split", "partition", ("agg", "w02"))
    assert (
        fault.text == "partition: {isolate: [w02, agg]}, how: reject, at: round 3, heal: round 5, name: split"
    )
    assert (fault.start, fault.heal) == (When("round", round=3), When("round", round=5))
    near, far = ("agg", "w02"), ("w01", "w03", "w04", "w05", "w06")
    assert fault.deaf == {
        **{name: dict.fromkeys(far, "reject") for name in near},
        **{name: dict.fromkeys(near, "reject") for name in far},
    }
    assert fault.change == {}


@pytest.mark.parametrize(
    ("said", "start", "heal"),
    [
        ("at: 20 s", When("time", 20.0), None),
        ("at: 1.5 min, heal: never", When("time", 90.0), None),
        ("at: 20 s, heal: 50 s", When("time", 20.0), When("time", 50.0)),
        ("at: round 1, for: 500 ms", When("round", round=1), When("lasting", 0.5)),
        ("at: after other, heal: round 6", When("after", fault="other"), When("round", round=6)),
        ("at: after other+2 s, for: 1 s", When("after", 2.0, fault="other"), When("lasting", 1.0)),
        (
            "at: round 1, heal: after other + 1 min",
            When("round", round=1),
            When("after", 60.0, fault="other"),
        ),
    ],
)
def test_moments(load: Load, said: str, start: When, heal: When | None) -> None:
    made = load(f"partition: halves, {said}", "name: other, partition: halves, at: round 2, heal: round 3")
    assert (made.faults[0].start, made.faults[0].heal) == (start, heal)
    assert [fault.id for fault in made.faults] == ["partition-1", "other"]


@pytest.mark.parametrize(
    ("body", "targets"),
    [
        ("halves", None),
        ("{halves}", None),
        ("majorities_ring", "agg w01 w02 w03 w04 w05 w06"),
        ("aggregator", "agg"),
        ("{aggregator}", "agg"),
        ("{zone: asia}", "w05 w06"),
        ("{zone: core}", "agg"),
        ("{bridge: w03}", "w03"),
        ("{one_way: {from: asia, to: agg}}", "agg w05 w06"),
        ("{pairs: [[agg, w01], [w02, agg]]}", "agg w01 w02"),
        ("{isolate: third}", None),
    ],
)
def test_every_kind_of_partition(load: Load, body: str, targets: str | None) -> None:
    made = load(f"partition: {body}, at: round 2")
    fault = only(made)
    if targets is not None:
        assert fault.targets == tuple(targets.split())
    talking = {(link.to, link.from_) for link in made.links}
    assert {(node, peer) for node, peers in fault.deaf.items() for peer in peers} <= talking
    assert fault.deaf


def test_the_tests_know_every_kind_of_partition() -> None:
    bodies = str(test_every_kind_of_partition.pytestmark[0].args)  # type: ignore[attr-defined]
    assert [kind for kind in keys.KEYS[resolving.PARTITION] if kind not in bodies] == []


def test_one_way_is_one_way(load: Load) -> None:
    fault = only(load("partition: {one_way: {from: asia, to: agg}}, at: round 2"))
    assert fault.deaf == {"agg": {"w05": "drop", "w06": "drop"}}


def test_only_links_that_there_are_can_be_cut(load: Load) -> None:
    ring = ("network: {", "network: {topology: ring, ")
    fault = only(load("partition: {isolate: w02}, at: round 2", replacing=ring))
    assert fault.deaf["w02"] == {"agg": "drop", "w01": "drop", "w03": "drop"}
    with pytest.raises(UsageError, match=r"mine.yaml:7: faults\[0\].partition.pairs: nothing is cut by this"):
        load("partition: {pairs: [[w02, w05]]}, at: round 2", replacing=ring)


def test_flapping(load: Load) -> None:
    fault = only(load("flapping: {isolate: one, period: 4 s, down: 1500 ms}, at: 1 s, for: 20 s"))
    assert fault.change == {"period_s": 4.0, "down_s": 1.5}
    (target,) = fault.targets
    assert len(fault.deaf[target]) == 6


def test_degrade(load: Load) -> None:
    fault = only(load("degrade: {between: [asia, agg], latency: 200 ms, rate: 1 Mbit}, at: round 2"))
    assert fault.change == {
        "links": [["agg", "w05"], ["agg", "w06"], ["w05", "agg"], ["w06", "agg"]],
        "set": {"latency_ms": 200.0, "rate_bit_s": 1_000_000},
    }
    assert fault.deaf == {}
    fault = only(load("degrade: {from: asia, to: agg, loss: 5 %}, at: round 2"))
    assert fault.change == {"links": [["w05", "agg"], ["w06", "agg"]], "set": {"loss": 0.05}}
    fault = only(load("degrade: {targets: w05, loss: 5 %}, at: round 2"))
    assert len(fault.change["links"]) == 12


def test_the_changed_links_and_whose_word_is_last(load: Load) -> None:
    made = load(
        "degrade: {from: w01, to: agg, latency: 200 ms}, at: round 2",
        "degrade: {targets: w01, latency: 90 ms, jitter_table: [1, 2, 4], jitter: 9 ms}, at: round 2",
    )
    first, second = made.faults
    links = {(link.from_, link.to): link for link in schedule.changed(made.links, [first])}
    assert links["w01", "agg"].latency_ms == 200.0
    assert links["agg", "w01"].latency_ms == 20.0
    links = {(link.from_, link.to): link for link in schedule.changed(made.links, [first, second])}
    changed = links["w01", "agg"]
    assert (changed.latency_ms, changed.jitter_ms, changed.jitter_kind) == (90.0, 9.0, "table")
    assert isinstance(changed.jitter_table, tuple)
    assert schedule.changed(made.links, []) == made.links


def test_the_plan_comes_back_from_its_bytes(load: Load) -> None:
    made = load(
        "flapping: {isolate: one, period: 4 s, down: 1 s}, at: 1 s",
        "degrade: {targets: w01, jitter_table: [1, 2, 4], jitter: 9 ms}, at: round 2",
    )
    assert from_json(Plan, json.loads(plan.plan_bytes(made))) == made


def test_the_seed_decides_and_a_further_worker_changes_little(load: Load) -> None:
    def away(**how: object) -> tuple[str, ...]:
        return only(load("partition: {isolate: third}, at: round 2", **how)).targets

    assert away() == away()
    assert len({away(seed=seed) for seed in range(8)}) > 1
    before, after = set(away()), set(away(replacing=("count: 4", "count: 5")))
    assert len(before - after) <= 1


def test_faults_draw_apart_unless_they_are_told(load: Load) -> None:
    made = load(*(f"partition: {{isolate: one}}, at: round {n}" for n in (1, 2, 3, 4, 5, 6)))
    assert len({fault.targets for fault in made.faults}) > 1


@pytest.mark.parametrize(
    ("faults", "said"),
    [
        (["partition: halves"], "faults[0]: the key at is missing"),
        (["at: round 2"], "faults[0]: there is no fault in this entry\n  one entry, one fault: partition, degrade"),
        (["partition: halves, degrade: {}, at: 1 s"], "faults[0]: partition and degrade in one entry"),
        (["partiton: halves, at: 1 s"], "faults[0].partiton: unknown key\n  perhaps you meant partition"),
        (["partition: halfs, at: 1 s"], "faults[0].partition: 'halfs' is not known here\n  perhaps you meant halves"),
        (["partition: {}, at: 1 s"], "faults[0].partition: it does not say what is cut"),
        (["partition: {zone: eu, halves}, at: 1 s"], "faults[0].partition: zone and halves in one fault"),
        (["partition: {halves: w01}, at: 1 s"], "faults[0].partition.halves: halves takes no value"),
        (["partition: {isolate: w07}, at: 1 s"], "faults[0].partition.isolate: 'w07' is no target of this fleet"),
        (["partition: {isolate: [all, agg]}, at: 1 s"], "faults[0].partition.isolate: nothing is cut by this"),
        (["partition: {zone: eur}, at: 1 s"], "faults[0].partition.zone: 'eur' is not known here\n  perhaps you meant eu"),
        (["partition: {bridge: eu}, at: 1 s"], "faults[0].partition.bridge: eu means 4 nodes\n  name a single one"),
        (["partition: {one_way: {from: w01}}, at: 1 s"], "faults[0].partition.one_way: the key to is missing"),
        (["partition: {one_way: {from: w01, to: w01}}, at: 1 s"], "nothing is cut by this"),
        (["partition: {pairs: [[w01]]}, at: 1 s"], "faults[0].partition.pairs[0]: a pair names two nodes"),
        (["partition: {pairs: [[w01, w1]]}, at: 1 s"], "pairs[0][1]: there is no node 'w1'\n  perhaps you meant w01"),
        (["partition: halves, at: 1 s, how: drp"], "faults[0].how: 'drp' is not known here\n  perhaps you meant drop"),
        (["partition: halves, at: round 7"], "faults[0].at: there is no round 7\n  this workload has rounds 1 to 6"),
        (["partition: halves, at: round 0"], "faults[0].at: there is no round 0"),
        (
            ["partition: halves, at: soon"],
            "faults[0].at: 'soon' is no moment of a run\n  write \"round 3\", \"round 3 + 2 s\", \"20 s\"",
        ),
        (["partition: halves, at: 20"], "faults[0].at: '20': a duration needs a unit"),
        (["partition: halves, at: 2 days"], "faults[0].at: '2 days': days is no unit of a duration"),
        (["partition: halves, at: 25 h"], "faults[0].at: 25 h is out of range"),
        (["partition: halves, at: round 3, heal: round 3"], "faults[0].heal: it would be healed in round 3, and it does not begin before round 3"),
        (["partition: halves, at: 10 s, heal: round 1"], "faults[0].heal: it would be healed in round 1, and round 1 has opened"),
        (["partition: halves, at: 20 s, heal: 20 s"], "faults[0].heal: it would be healed at 20 s, and begins at 20 s"),
        (["partition: halves, at: 1 s, heal: 2 s, for: 1 s"], "faults[0].for: heal says already when it ends"),
        (["partition: halves, at: 1 s, for: 0 s"], "faults[0].for: 0 s is out of range"),
        (["partition: halves, at: after other"], "faults[0].at: there is no other fault 'other'\n  there is none yet"),
        (["name: me, partition: halves, at: after me, for: 1 s"], "faults[0].at: there is no other fault 'me'"),
        (["name: a, partition: halves, at: 1 s", "partition: halves, at: after a"], "faults[1].at: a never ends"),
        (["name: a, partition: halves, at: 1 s, for: 1 s", "name: a, partition: halves, at: 1 s"], "faults[1]: two faults are called 'a'"),
        (["name: A, partition: halves, at: 1 s"], "faults[0].name: 'A' cannot be the name of a fault"),
        (
            ["name: a, partition: halves, at: after b, for: 1 s", "name: b, partition: halves, at: 1 s, heal: after a"],
            "faults[0].at: a and b wait for each other",
        ),
        (
            [
                "partition: halves, at: after b, heal: round 2",
                "name: b, partition: halves, at: after c, for: 1 s",
                "name: c, partition: halves, at: after b, for: 1 s",
            ],
            "faults[1].at: b and c wait for each other",
        ),
        (
            ["name: a, partition: halves, at: round 2, heal: round 4", "partition: halves, at: after a, heal: round 4"],
            "faults[1].heal: it would be healed in round 4, and it does not begin before round 4",
        ),
        (["flapping: {isolate: one, period: 4 s}, at: 1 s"], "faults[0].flapping: the key down is missing"),
        (["flapping: {isolate: one, period: 4 s, down: 4 s}, at: 1 s"], "faults[0].flapping.down: 4 s of every 4 s: it would not come back"),
        (["flapping: {isolate: one, period: 4 s, down: 1 ms}, at: 1 s"], "faults[0].flapping.down: 1 ms is out of range"),
        (["flapping: {period: 4 s, down: 1 s}, at: 1 s"], "faults[0].flapping: it does not say what is cut"),
        (["flapping: {isolat: one, period: 4 s, down: 1 s}, at: 1 s"], "faults[0].flapping.isolat: unknown key\n  perhaps you meant isolate"),
        (["degrade: {latency: 1 s}, at: 1 s"], "faults[0].degrade: it does not say which links"),
        (["degrade: {targets: one, to: agg, latency: 1 s}, at: 1 s"], "faults[0].degrade: targets and to do not go together"),
        (["degrade: {from: one, latency: 1 s}, at: 1 s"], "faults[0].degrade: from alone does not say which links"),
        (["degrade: {between: [eu], latency: 1 s}, at: 1 s"], "faults[0].degrade.between: links lead between two targets, not 1"),
        (["degrade: {between: [w01, w01], latency: 1 s}, at: 1 s"], "faults[0].degrade: no link is hit by this"),
        (["degrade: {targets: one}, at: 1 s"], "faults[0].degrade: this fault changes nothing"),
        (["degrade: {targets: one, trace: a.csv}, at: 1 s"], "faults[0].degrade.trace: a fault changes a link once"),
        (["degrade: {targets: w02, latency: 1 ms}, at: 1 s"], "faults[0].degrade: agg to w02: a jitter of 2 ms is more than the latency of 1 ms"),
        (["degrade: {targets: one, jitter: 30 ms}, at: 1 s"], "a jitter of 30 ms is more than the latency of 20 ms"),
        (["degrade: {targets: one, loss: 1 s}, at: 1 s"], "faults[0].degrade.loss: '1 s': s is no unit of a share"),
        (["degrade: {targets: one, loss: 1 %}, how: drop, at: 1 s"], "faults[0].how: nothing is cut by degrade"),
    ],
)  # fmt: skip
def test_what_is_refused(load: Load, faults: list[str], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(*faults)
    assert said in str(caught.value)
    assert str(caught.value).startswith(("mine.yaml:7: faults[0]", "mine.yaml:8: faults[1]"))


def test_three_nodes_make_no_ring(load: Load) -> None:
    small = ("[{count: 4, zone: eu}, {count: 2, zone: asia}]", "[{count: 2, zone: eu}]")
    with pytest.raises(UsageError, match=r"majorities_ring.*needs 4 nodes, these are 3"):
        load("partition: {majorities_ring}, at: 1 s", replacing=small)


def test_a_traced_link_cannot_be_degraded(load: Load, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("time,latency\n0,10 ms\n5,20 ms\n")
    traced = ("{latency: 20 ms, jitter: 2 ms}", "{trace: a.csv}")
    with pytest.raises(UsageError, match="follows a trace, which would have the last word"):
        load("degrade: {targets: one, latency: 1 s}, at: 1 s", replacing=traced)


def test_every_kind_has_its_file() -> None:
    assert set(keys.FAULTS) == set(resolving._RESOLVE)
    for kind in keys.FAULTS:
        assert (TOP / "orchestrator" / "faults" / f"{kind}.py").is_file()


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=5))
def test_rounds_wait_where_faults_begin_or_end(
    tmp_path_factory: pytest.TempPathFactory, rounds: list[tuple[int, int]]
) -> None:
    ordered = [(min(pair), max(pair)) for pair in rounds if pair[0] != pair[1]]
    faults = [f"partition: halves, at: round {one}, heal: round {two}" for one, two in ordered]
    faults.append("partition: halves, at: 1 s, for: 1 s")
    file = tmp_path_factory.mktemp("faults") / "mine.yaml"
    file.write_text(SMALL.format(faults="\n".join(f"  - {{{one}}}" for one in faults)))
    made = plan.make_plan(scenario.load(file))
    assert schedule.pauses(made) == tuple(sorted({number for pair in ordered for number in pair}))
