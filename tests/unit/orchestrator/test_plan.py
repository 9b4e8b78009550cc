from __future__ import annotations

import dataclasses
import ipaddress
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.contract import UsageError
from node.contract.plan import Plan
from node.contract.schema import from_json
from orchestrator.planning import listing, plan, scenario
from orchestrator.planning.links import Network
from orchestrator.planning.scenario import Group, Scenario
from orchestrator.planning.topology import Topology

TOP = Path(__file__).resolve().parents[3]
GOLDEN = Path(__file__).with_name("golden") / "template.plan.json"
GATE = (plan.DATA_SUBNET[-2], plan.CTL_SUBNET[-2])


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Scenario:
    path = tmp_path_factory.mktemp("scenarios") / "template.yaml"
    path.write_text(listing.TEMPLATE)
    return scenario.load(path)


def with_workers(template: Scenario, *groups: Group) -> Scenario:
    return dataclasses.replace(template, workers=groups)


def test_the_plan_is_the_same_bytes_on_every_host(template: Scenario) -> None:
    made = plan.plan_bytes(plan.make_plan(template))
    if os.environ.get("SHOAL_REGENERATE") == "1":
        GOLDEN.write_bytes(made)
    assert made.decode() == GOLDEN.read_text(), "if this is meant: SHOAL_REGENERATE=1 make test-unit"


def test_the_plan_is_the_same_bytes_in_another_process() -> None:
    code = (
        "import sys; from orchestrator.planning import listing, plan; "
        "sys.stdout.buffer.write(plan.plan_bytes(plan.make_plan(listing.load('baseline'), 3)))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "12345", "LC_ALL": "C", "TZ": "Asia/Tokyo"}
    said = subprocess.run(
        [sys.executable, "-c", code], cwd=TOP, env=environment, capture_output=True, check=True
    ).stdout
    assert said == plan.plan_bytes(plan.make_plan(listing.load("baseline"), 3))


def test_the_plan_is_read_back(template: Scenario) -> None:
    made = plan.make_plan(template)
    assert from_json(Plan, json.loads(plan.plan_bytes(made))) == made


def test_nothing_of_the_host_is_in_the_plan(template: Scenario) -> None:
    assert str(template.file.parent).encode() not in plan.plan_bytes(plan.make_plan(template))


def test_classes_zones_and_engines_reach_the_nodes(template: Scenario) -> None:
    nodes = {node.name: node for node in plan.make_plan(template).nodes}
    assert list(nodes) == ["agg", *(f"w{number:02}" for number in range(1, 9))]
    assert (nodes["agg"].roles, nodes["agg"].zone) == (("aggregator",), "core")
    assert (nodes["w06"].class_name, nodes["w06"].cpu, nodes["w06"].memory_bytes) == ("laptop", 1.0, 1 << 30)
    assert (nodes["w07"].roles, nodes["w07"].zone, nodes["w07"].cpu) == (("trainer",), "away", 0.25)
    phones = {**template.classes, "phone": dataclasses.replace(template.classes["phone"], ipfs="kubo")}
    mixed = dataclasses.replace(template, classes=phones, ipfs="embedded")
    engines = [node.ipfs for node in plan.make_plan(mixed).nodes]
    assert engines == ["embedded"] * 7 + ["kubo"] * 2


def test_the_seed_of_the_call_takes_the_place_of_the_scenarios(template: Scenario) -> None:
    assert plan.make_plan(template).seed == 7
    assert plan.make_plan(template, 0).seed == 0
    for seed in (-1, 2**32):
        with pytest.raises(UsageError, match=r"the seed .* is out of range"):
            plan.make_plan(template, seed)


@given(count=st.integers(1, 16))
def test_one_more_worker_changes_none_of_the_others(template: Scenario, count: int) -> None:
    away = Group(2, "phone", "away")
    fewer = plan.make_plan(with_workers(template, away, Group(count, "laptop", "home")))
    more = plan.make_plan(with_workers(template, away, Group(count + 1, "laptop", "home")))
    assert set(fewer.nodes) < set(more.nodes)
    assert set(fewer.network.edges) < set(more.network.edges)
    assert set(fewer.links) < set(more.links)
    assert [node.name for node in more.nodes] == sorted(node.name for node in more.nodes)


def test_the_largest_fleet_has_addresses_of_its_own_and_leaves_the_gates(template: Scenario) -> None:
    star = dataclasses.replace(template, topology=Topology("star"), network=Network())
    nodes = plan.make_plan(with_workers(star, Group(scenario.MOST_WORKERS))).nodes
    for subnet, own, gate in (
        (plan.DATA_SUBNET, {node.data_address for node in nodes}, GATE[0]),
        (plan.CTL_SUBNET, {node.ctl_address for node in nodes}, GATE[1]),
    ):
        addresses = {ipaddress.IPv4Address(address) for address in own}
        assert len(addresses) == len(nodes)
        assert addresses <= set(subnet.hosts()) - {gate}
        assert subnet.is_private
    assert not plan.DATA_SUBNET.overlaps(plan.CTL_SUBNET)


def test_no_line_of_the_plan_is_long_where_it_can_be_cut(template: Scenario) -> None:
    lines = plan.plan_bytes(plan.make_plan(template)).decode().splitlines()
    assert max(map(len, lines)) <= plan.LINE_WIDTH + 20
