from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.contract import UsageError
from node.contract.plan import LinkPlan, TracePlan
from orchestrator.planning import document, keys, rules
from orchestrator.planning.rules import Rule, combine, worse


def read(text: str, folder: Path = Path("/nowhere")) -> Rule:
    return rules.read(document.parse(text, "mine.yaml").section(keys.RULE), folder)


def complaint(text: str) -> str:
    with pytest.raises(UsageError) as caught:
        rules.check(read(text), "w01 to w02")
    return str(caught.value)


def test_every_key_of_a_rule_becomes_a_field_of_a_link(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("time,loss\n0,0\n1,1\n")
    said = {
        "latency": "110 ms",
        "jitter": "8 ms",
        "jitter_kind": "pareto",
        "in_order": "false",
        "loss": "0.1 %",
        "loss_burst": "4",
        "rate": "20 Mbit",
        "duplicate": "1 %",
        "corrupt": "0.02",
        "reorder": "3 %",
        "trace": "a.csv",
        "trace_repeats": "false",
    }
    values = read("{" + ", ".join(f"{key}: {value}" for key, value in said.items()) + "}", tmp_path).values
    trace = values["trace"]
    assert isinstance(trace, TracePlan)
    assert len(trace.points) == 2
    assert {key: value for key, value in values.items() if key != "trace"} == {
        "latency_ms": 110.0,
        "jitter_ms": 8.0,
        "jitter_kind": "pareto",
        "jitter_table": (),
        "in_order": False,
        "loss": 0.001,
        "loss_burst": 4.0,
        "rate_bit_s": 20_000_000,
        "duplicate": 0.01,
        "corrupt": 0.02,
        "reorder": 0.03,
        "trace_repeats": False,
    }
    # Of the keys that there are only these two are missing: they have tests of their own.
    assert set(keys.RULE) - set(said) == {"jitter_table", "profile"}
    assert set(values) - {"trace_repeats"} <= LinkPlan.__dataclass_fields__.keys()


def test_what_takes_back_a_broader_rule() -> None:
    broad = Rule({"rate_bit_s": 1, "trace": "a trace", "jitter_kind": "table", "jitter_table": (1.0,)})
    narrow = read("{rate: unlimited, trace: none, jitter_kind: normal}")
    taken = {"rate_bit_s": None, "trace": None, "jitter_kind": "normal", "jitter_table": ()}
    assert combine(broad, narrow).values == taken


def test_a_table_is_a_kind_of_jitter() -> None:
    even = (-1.732051, 1.732051)  # anything between the two: the deviation of that is 1
    assert read("{jitter_table: [1, 3]}").values == {"jitter_kind": "table", "jitter_table": even}


def test_a_profile_is_written_out_and_what_stands_beside_it_wins() -> None:
    shipped = read("{profile: 5g-d2d-direct}").values
    assert shipped == {
        "latency_ms": 10.0,
        "jitter_ms": 1.0,
        "loss": 0.0001,
        "rate_bit_s": 65_000_000,
        "profile": "5g-d2d-direct",
    }
    assert read("{profile: 5g-d2d-direct, loss: 5 %}").values == {**shipped, "loss": 0.05}


def test_a_nodes_line_belongs_into_a_class_and_is_a_rate_elsewhere() -> None:
    assert read("{profile: 4g}").values["rate_bit_s"] == 13_600_000
    assert read("{profile: 4g, rate: 1 Mbit}").values["rate_bit_s"] == 1_000_000
    phone = document.parse(
        "classes: {phone: {profile: 4g}, slow: {profile: 4g, up: 1 Mbit, down: unlimited}}", "a"
    )
    classes = phone.mapping()["classes"].mapping()
    assert "rate_bit_s" not in rules.read(classes["phone"].mapping(), Path(), has_line=True).values
    lines = {
        name: tuple(rules.read_line(one.mapping(), which) for which in ("up", "down"))
        for name, one in classes.items()
    }
    assert lines == {"phone": (13_600_000, 14_700_000), "slow": (1_000_000, None)}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{latency: -5 ms}", "latency: '-5 ms': a duration cannot be negative"),
        ("{latency: 5}", "latency: '5': a duration needs a unit"),
        ("{latency: 61 s}", "latency: 61 s is out of range\n  at least 0 us, at most 1 min"),
        ("{jitter: -1 ms}", "jitter: '-1 ms': a duration cannot be negative"),
        ("{rate: 7 kbit}", "rate: 7 kbit is too slow for two peers to shake hands\n  at least 8 kbit"),
        ("{rate: 0 bit}", "rate: 0 bit is too slow for two peers to shake hands"),
        ("{rate: fast}", "rate: 'fast' is no rate"),
        ("{loss: 101 %}", "loss: 101 % is out of range\n  at least 0 %, at most 100 %"),
        ("{loss: -1 %}", "loss: '-1 %': a share cannot be negative"),
        ("{duplicate: 2}", "duplicate: 2 is out of range"),
        ("{corrupt: 2}", "corrupt: 2 is out of range"),
        ("{reorder: 2}", "reorder: 2 is out of range"),
        ("{loss_burst: 0.5}", "loss_burst: 0.5 is out of range\n  from 1 to 1e+06"),
        ("{in_order: yes}", "in_order: 'yes' is not known here\n  known: false, true"),
        ("{jitter_kind: gauss}", "jitter_kind: 'gauss' is not known here\n  known: normal, pareto, table"),
        ("{jitter_kind: table}", "jitter_kind: the table is missing\n  write for example: jitter_table: delays.txt"),
        ("{jitter_kind: pareto, jitter_table: [1, 2]}", "jitter_table: a jitter of kind pareto takes no table"),
        ("{jitter_table: [1, 1]}", "jitter_table: these numbers have no form"),
        ("{lateny: 1 ms}", "lateny: unknown key\n  perhaps you meant latency"),
        ("{profile: 3g}", "profile: '3g' is not known here"),
        ("{jitter: 6 ms, latency: 5 ms}", "jitter: w01 to w02: a jitter of 6 ms is more than the latency of 5 ms"),
        ("{jitter: 1 ms}", "jitter: w01 to w02: a jitter of 1 ms is more than the latency of 0 ms"),
        ("{profile: 4g, latency: 1 ms}", "profile: w01 to w02: a jitter of 5 ms is more than the latency of 1 ms"),
        ("{loss: 80 %, loss_burst: 2}", "loss_burst: w01 to w02: 0.8 of all packets cannot get lost in bursts of 2\n  between bursts one packet at least arrives: take bursts of 4 or more"),
        ("{loss: 1, loss_burst: 2}", "loss_burst: w01 to w02: 1 of all packets cannot get lost in bursts of 2"),
        ("{reorder: 1 %}", "reorder: w01 to w02: without latency no packet overtakes another"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_line_key_and_cure(text: str, said: str) -> None:
    assert complaint(text).startswith(f"mine.yaml:1: {said}")
    assert "\n  " in complaint(text)


def test_a_trace_may_not_fall_below_the_jitter(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("time,latency\n0,20\n1,5\n")
    with pytest.raises(UsageError, match="a jitter of 8 ms is more than the latency of 5 ms"):
        rules.check(read("{latency: 20 ms, jitter: 8 ms, trace: a.csv}", tmp_path), "a to b")


@pytest.mark.parametrize(
    "text", ["{}", "{jitter: 5 ms, latency: 5 ms}", "{loss: 1}", "{loss: 80 %, loss_burst: 4}"]
)
def test_what_is_at_the_edge_is_taken(text: str) -> None:
    rules.check(read(text), "a to b")


VALUES = {
    "latency_ms": st.floats(0, 100),
    "jitter_ms": st.floats(0, 100),
    "loss": st.floats(0, 1),
    "loss_burst": st.floats(1, 9),
    "rate_bit_s": st.none() | st.integers(8000, 10**9),
    "in_order": st.booleans(),
    "jitter_kind": st.sampled_from(keys.JITTER_KINDS),
    "profile": st.sampled_from(["4g", "lan", "satellite"]),
    "trace": st.none()
    | st.builds(TracePlan, st.sampled_from("ab"), st.just("00"), st.just(True), st.just(())),
}
RULES = st.fixed_dictionaries({}, optional=VALUES).map(Rule)


@given(RULES, RULES, RULES)
def test_rules_combine_key_by_key_and_in_any_grouping(one: Rule, two: Rule, three: Rule) -> None:
    both = combine(one, two)
    for key in VALUES:
        last: Any = next((rule for rule in (two, one) if key in rule.values), None)
        assert (key in both.values) == (last is not None)
        assert last is None or both.values[key] == last.values[key]
    assert combine(both, three) == combine(one, combine(two, three)) == combine(one, two, three)
    assert combine(one, one) == combine(Rule(), one) == combine(one, Rule()) == one


@given(RULES, RULES, RULES)
def test_the_worse_of_two_rules_asks_for_no_order(one: Rule, two: Rule, three: Rule) -> None:
    assert worse(one, two) == worse(two, one)
    assert worse(worse(one, two), three) == worse(one, worse(two, three))
    assert worse(one, one) == worse(one, Rule()) == one


def test_the_worse_of_each_key() -> None:
    phone = read("{latency: 30 ms, loss: 1 %, rate: 5 Mbit, in_order: false, profile: 5g-embb}")
    plane = read(
        "{latency: 300 ms, jitter: 9 ms, jitter_kind: pareto, rate: unlimited, in_order: true, loss: 0, profile: lan}"
    )
    assert worse(phone, plane).values == {
        "latency_ms": 300.0,
        "jitter_ms": 9.0,
        "jitter_kind": "pareto",
        "jitter_table": (),
        "loss": 0.01,
        "rate_bit_s": 5_000_000,
        "in_order": False,
        "profile": "5g-embb+lan",
    }
