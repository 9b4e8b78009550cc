from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.contract import UsageError
from node.contract.plan import LinkPlan, NodePlan, Plan, TrunkPlan
from node.contract.schema import from_json
from node.links.table import tables
from orchestrator.planning import document, links, plan, rules, scenario
from orchestrator.planning.links import Entry, Network
from orchestrator.planning.rules import Rule

GOLDEN = Path(__file__).with_name("golden")
FLEET = """\
summary: small
fleet:
  aggregator: {zone: core}
  workers: [{count: 2, zone: eu, class: big}, {count: 2, zone: asia, class: phone}, {count: 1}]
workload: {dataset: digits, rounds: 3}
checks: [rounds_completed == 3]
"""
PLAIN = FLEET + "classes: {big: {}, phone: {}}\n"
Make = Callable[[str], Plan]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def write_and_plan(text: str) -> Plan:
        (tmp_path / "mine.yaml").write_text(text)
        return plan.make_plan(scenario.load(tmp_path / "mine.yaml", "mine.yaml"))

    return write_and_plan


def by_pair(made: Plan) -> dict[tuple[str, str], LinkPlan]:
    return {(link.from_, link.to): link for link in made.links}


def complaint(make: Make, text: str) -> str:
    with pytest.raises(UsageError) as caught:
        make(text)
    return str(caught.value)


def test_all_that_can_be_said_makes_the_plan_that_was_checked_by_hand() -> None:
    made = plan.make_plan(scenario.load(GOLDEN / "network.yaml"))
    text = plan.plan_bytes(made).decode()
    if os.environ.get("SHOAL_REGENERATE") == "1":
        (GOLDEN / "network.plan.json").write_text(text)
    assert text == (GOLDEN / "network.plan.json").read_text(), (
        "if this is meant: SHOAL_REGENERATE=1 make test-unit"
    )
    assert from_json(Plan, json.loads(text)) == made


def test_every_ordered_pair_that_talks_has_a_link_and_no_other(make: Make) -> None:
    full = by_pair(make(PLAIN))
    names = ["agg", "w01", "w02", "w03", "w04", "w05"]
    assert list(full) == sorted(itertools.permutations(names, 2))
    assert set(full.values()) == {replace(links.UNSHAPED, from_=a, to=b) for a, b in full}
    star = by_pair(make(PLAIN + "network: {topology: star}"))
    assert set(star) == {pair for pair in full if "agg" in pair}


@pytest.mark.parametrize(
    "topology", ["ring", "regular(2)", "[[agg, w01], [w01, w02], [w02, w03], [w03, w04], [w04, w05]]"]
)
def test_workers_talk_with_the_aggregator_in_every_topology(make: Make, topology: str) -> None:
    made = make(PLAIN + f"network: {{topology: {topology}}}")
    edges = {frozenset(edge) for edge in made.network.edges}
    assert {frozenset(pair) for pair in by_pair(made)} == edges | {
        frozenset(("agg", f"w0{number}")) for number in range(1, 6)
    }


def test_the_special_rule_wins_key_by_key(make: Make) -> None:
    rule_of = {
        "default": "latency: 1 ms, jitter: 100 us, loss: 1 %, rate: 10 Mbit",
        "matrix": "latency: {eu: {asia: 2 ms}}, jitter: {eu: {asia: 200 us}}, loss: {eu: {asia: 2 %}}",
        "zones": "latency: 3 ms, jitter: 300 us",
        "phone": "latency: 4 ms, duplicate: 4 %",
        "links": "corrupt: 5 %, duplicate: 5 %",
    }
    made = by_pair(
        make(
            FLEET
            + f"""
classes: {{big: {{}}, phone: {{{rule_of["phone"]}}}}}
network:
  default: {{{rule_of["default"]}}}
  matrix: {{{rule_of["matrix"]}}}
  zones: [{{from: eu, to: asia, {rule_of["zones"]}}}]
  links: [{{from: w01, to: w03, {rule_of["links"]}}}]
"""
        )
    )
    base = LinkPlan("", "", 1.0, 0.1, 0.01, 10_000_000)
    assert made["agg", "w01"] == replace(base, from_="agg", to="w01")
    phones = replace(base, latency_ms=4.0, duplicate=0.04)
    assert made["agg", "w03"] == replace(phones, from_="agg", to="w03")
    assert made["w03", "agg"] == replace(phones, from_="w03", to="agg")
    assert made["w03", "w01"] == replace(phones, from_="w03", to="w01", jitter_ms=0.2, loss=0.02)
    zone = replace(phones, jitter_ms=0.3, loss=0.02)
    assert made["w02", "w03"] == replace(zone, from_="w02", to="w03")
    assert made["w01", "w03"] == replace(zone, from_="w01", to="w03", duplicate=0.05, corrupt=0.05)


def test_of_two_classes_the_worse_holds_whatever_the_direction(make: Make) -> None:
    made = by_pair(
        make(
            FLEET
            + "classes: {big: {latency: 1 ms, rate: 9 Mbit, loss: 2 %}, phone: {profile: 4g, rate: 10 Mbit}}"
        )
    )
    there, back = made["w01", "w03"], made["w03", "w01"]
    assert (there.latency_ms, there.rate_bit_s, there.loss, there.profile) == (26.5, 9_000_000, 0.02, "4g")
    assert back == replace(there, from_="w03", to="w01")
    assert (made["w01", "w05"].latency_ms, made["w01", "w05"].rate_bit_s) == (1.0, 9_000_000)


def test_a_classs_line_is_its_nodes_and_not_its_links(make: Make) -> None:
    made = make(FLEET + "classes: {big: {up: 5 Mbit}, phone: {profile: 4g}}")
    lines = {node.name: (node.up_bit_s, node.down_bit_s) for node in made.nodes}
    assert lines["agg"] == lines["w05"] == (None, None)
    assert lines["w01"] == (5_000_000, None)
    assert lines["w03"] == (13_600_000, 14_700_000)
    assert {link.rate_bit_s for link in made.links} == {None}


def test_one_direction_and_both_and_within_a_zone(make: Make) -> None:
    made = by_pair(
        make(
            PLAIN
            + """
network:
  zones:
    - {between: [eu, eu], latency: 1 ms}
    - {between: [core, eu], latency: 2 ms}
    - {from: eu, to: asia, latency: 3 ms}
  links: [{between: [w05, w01], latency: 4 ms}, {from: w05, to: w02, latency: 5 ms}]
"""
        )
    )
    expected = {
        **dict.fromkeys([("w01", "w02"), ("w02", "w01")], 1.0),
        **dict.fromkeys([("agg", "w01"), ("w01", "agg"), ("agg", "w02"), ("w02", "agg")], 2.0),
        **dict.fromkeys([("w01", "w03"), ("w01", "w04"), ("w02", "w03"), ("w02", "w04")], 3.0),
        **dict.fromkeys([("w05", "w01"), ("w01", "w05")], 4.0),
        ("w05", "w02"): 5.0,
    }
    assert {pair: link.latency_ms for pair, link in made.items() if link.latency_ms} == expected


def test_a_cell_without_its_mirror_image_counts_for_both_directions(make: Make) -> None:
    matrix = "network: {matrix: {latency: {eu: {eu: 1 ms, asia: 2 ms, core: 3 ms}, asia: {eu: 4 ms}}, rate: {asia: {core: 1 Mbit}}}}"
    made = by_pair(make(PLAIN + matrix))
    latencies = {
        pair: made[pair].latency_ms for pair in itertools.permutations(["agg", "w01", "w02", "w03"], 2)
    }
    assert latencies["w01", "w02"] == 1.0
    assert (latencies["w01", "w03"], latencies["w03", "w01"]) == (2.0, 4.0)
    assert latencies["agg", "w01"] == latencies["w01", "agg"] == 3.0
    assert made["agg", "w03"].rate_bit_s == made["w03", "agg"].rate_bit_s == 1_000_000


def test_regions_by_name_and_what_stands_beside_them(make: Make) -> None:
    text = PLAIN.replace("zone: core", "zone: us-east")
    made = by_pair(make(text + "network: {matrix: {profile: regions, latency: {eu: {asia: 99 ms}}}}"))
    assert (made["agg", "w01"].latency_ms, made["agg", "w01"].profile) == (40.3, "regions")
    assert made["w01", "w03"].latency_ms == made["w03", "w01"].latency_ms == 99.0
    assert made["agg", "w05"].latency_ms == 0.0  # w05 is in no zone


def test_a_trunk_for_each_direction_and_the_links_that_share_it(make: Make) -> None:
    made = make(
        PLAIN
        + "network: {zones: [{between: [eu, asia], shared_rate: 20 Mbit}, {from: eu, to: core, shared_rate: 1 Mbit}]}"
    )
    assert made.network.trunks == (
        TrunkPlan("asia:eu", "asia", "eu", 20_000_000),
        TrunkPlan("eu:asia", "eu", "asia", 20_000_000),
        TrunkPlan("eu:core", "eu", "core", 1_000_000),
    )
    shared = {pair: link.trunk for pair, link in by_pair(made).items() if link.trunk}
    eu, asia = ("w01", "w02"), ("w03", "w04")
    assert shared == {
        **dict.fromkeys(itertools.product(eu, asia), "eu:asia"),
        **dict.fromkeys(itertools.product(asia, eu), "asia:eu"),
        **{(name, "agg"): "eu:core" for name in eu},
    }
    assert {link.rate_bit_s for link in made.links} == {None}


def test_traces_stand_in_the_plan_once_and_reach_the_nodes(make: Make, tmp_path: Path) -> None:
    (tmp_path / "car.csv").write_text("time,rate\n0,1\n5,2\n")
    made = make(
        PLAIN
        + "network: {default: {trace: car.csv}, links: [{from: w01, to: agg, trace_repeats: false}, {from: w02, to: agg, trace: none}]}"
    )
    assert {name: trace.repeats for name, trace in made.network.traces.items()} == {
        "car.csv": True,
        "car.csv once": False,
    }
    told = {peer.peer: peer.into for peer in tables(made)["agg"].peers}
    assert [point.rate_bit_s for point in told["w01"].trace] == [1_000_000, 2_000_000]
    assert (told["w01"].trace_repeats, told["w03"].trace_repeats, told["w02"].trace) == (False, True, ())


def test_engine_and_congestion_control(make: Make) -> None:
    network = make(PLAIN + "network: {delay_engine: netem, congestion_control: bbr}").network
    assert (network.delay_engine, network.congestion_control) == ("netem", "bbr")
    network = make(PLAIN).network
    assert (network.delay_engine, network.congestion_control) == ("auto", "cubic")


@pytest.mark.parametrize(
    ("network", "said"),
    [
        ("{delay_engine: tc}", "network.delay_engine: 'tc' is not known here\n  known: auto, hold, netem"),
        ("{congestion_control: cubik}", "network.congestion_control: 'cubik' is not known here\n  perhaps you meant cubic"),
        ("{default: {latency: -5 ms}}", "network.default.latency: '-5 ms': a duration cannot be negative"),
        ("{default: {jitter: 2 ms}}", "network.default.jitter: agg to w01: a jitter of 2 ms is more than the latency of 0 ms"),
        ("{default: {up: 1 Mbit}}", "network.default.up: unknown key"),
        ("{zones: [{between: [eu, asa], latency: 5 ms}]}", "network.zones[0].between[1]: no node is in a zone 'asa'\n  perhaps you meant asia; known: asia, core, eu"),
        ("{zones: [{between: [eu], latency: 5 ms}]}", "network.zones[0].between: a pair names two zones, not 1"),
        ("{zones: [{from: eu, latency: 5 ms}]}", "network.zones[0]: it does not say between which zones"),
        ("{zones: [{latency: 5 ms}]}", "network.zones[0]: it does not say between which zones"),
        ("{zones: [{between: [eu, asia], to: eu, latency: 5 ms}]}", "network.zones[0].to: `between` names both ends already"),
        ("{zones: [{between: [eu, asia]}]}", "network.zones[0]: this entry says nothing"),
        ("{zones: [{between: [core, core], latency: 5 ms}]}", "network.zones[0]: no link leads within core"),
        ("{topology: star, zones: [{between: [eu, asia], latency: 5 ms}]}", "network.zones[0]: no link leads from eu to asia\n  remove the entry"),
        ("{zones: [{between: [eu, asia], latency: 5 ms}, {from: asia, to: eu, loss: 1 %}]}", "network.zones[1]: from asia to eu there is an entry already, in line 8"),
        ("{zones: [{between: [eu, asia], shared_rate: 1 kbit}]}", "network.zones[0].shared_rate: 1 kbit is too slow"),
        ("{zones: [{between: [eu, asia], profile: regions}]}", "network.zones[0].profile: regions is a matrix of regions"),
        ("{links: [{between: [w01, w06], latency: 5 ms}]}", "network.links[0].between[1]: there is no node 'w06'"),
        ("{links: [{between: [w01, eu], latency: 5 ms}]}", "network.links[0].between[1]: there is no node 'eu'"),
        ("{links: [{between: [w01, w01], latency: 5 ms}]}", "network.links[0]: w01 has no link to itself"),
        ("{links: [{between: [w01, agg], latency: 5 ms}, {between: [agg, w01], loss: 1 %}]}", "network.links[1]: from agg to w01 there is an entry already, in line 8"),
        ("{links: [{between: [w01, agg], shared_rate: 5 Mbit}]}", "network.links[0].shared_rate: unknown key"),
        ("{topology: star, links: [{between: [w01, w02], latency: 5 ms}]}", "network.links[0]: w01 and w02 do not talk with each other"),
        ("{matrix: {latency: {eu: {afrika: 5 ms}}}}", "network.matrix.latency.eu.afrika: no node is in a zone 'afrika'"),
        ("{matrix: {latency: {afrika: {eu: 5 ms}}}}", "network.matrix.latency.afrika: no node is in a zone 'afrika'"),
        ("{matrix: {latency: {eu: 5 ms}}}", "network.matrix.latency.eu: expected keys with values"),
        ("{matrix: {duplicate: {eu: {eu: 1 %}}}}", "network.matrix.duplicate: unknown key"),
        ("{matrix: {profile: regions}}", "network.matrix.profile: the zone core is no region of regions"),
        ("{matrix: {profile: 4g}}", "network.matrix.profile: 4g says nothing of regions"),
        ("{default: {trace: gone.csv}}", "network.default.trace: gone.csv cannot be read"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_line_path_and_cure(make: Make, network: str, said: str) -> None:
    assert complaint(make, f"{PLAIN}network: {network}\n").startswith(f"mine.yaml:8: {said}")


def test_two_classes_with_different_traces_cannot_share_a_link(make: Make, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.csv").write_text("time,loss\n0,0\n1,1\n")
    classes = "classes: {big: {trace: a.csv}, phone: {trace: b.csv}}\n"
    assert complaint(make, FLEET + classes).startswith(
        "mine.yaml:7: classes.phone.trace: w01 to w03: their classes have"
    )
    same = classes.replace("b.csv", "a.csv")
    assert by_pair(make(FLEET + same))["w01", "w03"].trace == "a.csv"


def test_a_drawn_topology_may_miss_an_entry_with_some_seeds(make: Make) -> None:
    text = PLAIN + "network: {topology: regular(2), links: [{between: [w01, w03], latency: 5 ms}]}\n"
    found = {("w01", "w03") in by_pair(make(f"{text}seed: {seed}\n")) for seed in range(8)}
    assert found == {True, False}


RULE = st.fixed_dictionaries(
    {},
    optional={
        "latency_ms": st.floats(50, 99),
        "loss": st.floats(0, 1),
        "rate_bit_s": st.none() | st.integers(8000, 9000),
    },
).map(Rule)
ZONES = ("x", "y", None)
CLASSES = ("c", "d", None)


@settings(max_examples=40)
@given(
    kinds=st.lists(st.tuples(st.sampled_from(ZONES), st.sampled_from(CLASSES)), min_size=3, max_size=5),
    default=RULE,
    zone=st.dictionaries(st.tuples(st.sampled_from("xy"), st.sampled_from("xy")), RULE),
    matrix=st.dictionaries(st.tuples(st.sampled_from("xy"), st.sampled_from("xy")), RULE),
    classes=st.fixed_dictionaries({"c": RULE, "d": RULE}),
    own=RULE,
)
def test_a_links_shape_depends_on_its_two_ends_alone(
    kinds: list[tuple[str | None, str | None]],
    default: Rule,
    zone: dict[tuple[str, str], Rule],
    matrix: dict[tuple[str, str], Rule],
    classes: dict[str, Rule],
    own: Rule,
) -> None:
    nodes = [NodePlan(f"w{i}", ("trainer",), *kind, "", "") for i, kind in enumerate(kinds)]
    item = document.parse("x: y", "")
    network = Network(
        default=default,
        matrix=matrix,
        zones={pair: Entry(rule, item) for pair, rule in zone.items()},
        links={("w0", "w1"): Entry(own, item)},
    )
    pairs = list(itertools.combinations([node.name for node in nodes], 2))
    found = {(link.from_, link.to): link for link in links.resolve(network, classes, nodes, pairs).links}
    assert list(found) == sorted(itertools.permutations([node.name for node in nodes], 2))
    for (one, other), link in found.items():
        two = [node for node in nodes if node.name in (one, other)]
        alone = links.resolve(network, classes, two, [(other, one)]).links
        assert link in alone
        sender, receiver = (next(node for node in nodes if node.name == name) for name in (one, other))
        zones = (sender.zone or "", receiver.zone or "")
        ends = [classes[node.class_name] for node in (sender, receiver) if node.class_name]
        order = [
            default,
            matrix.get(zones, Rule()),
            zone.get(zones, Rule()),
            rules.worse(ends[0], ends[-1]) if ends else Rule(),
            own if (one, other) == ("w0", "w1") else Rule(),
        ]
        for key, unsaid in (("latency_ms", 0.0), ("loss", 0.0), ("rate_bit_s", None)):
            said = [rule.values[key] for rule in order if key in rule.values]
            assert getattr(link, key) == (said[-1] if said else unsaid)
