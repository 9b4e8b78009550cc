"""The Compose file of a run, byte for byte, and what nobody may change in it by accident."""

from __future__ import annotations

import os
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from node.contract.plan import Plan
from orchestrator.containers import trunks
from orchestrator.containers.addresses import readdress
from orchestrator.containers.compose_file import Images, PartLimit, RealTime, Site, Way, parts, text
from orchestrator.planning import listing
from orchestrator.planning.plan import make_plan

GOLDEN: Final = Path(__file__).with_name("golden") / "compose.yaml"
TRUNKS_GOLDEN: Final = GOLDEN.with_name("trunks.txt")
AGENT_MAY: Final = ["NET_ADMIN", "NET_RAW"]


def plan() -> Plan:
    return make_plan(listing.load(str(Path(__file__).parents[2] / "run" / "tiny.yaml")))


def site(**more: Any) -> Site:
    return Site(
        run="tiny-20260101t000000",
        fleet="shoal-secret",
        project="tiny-20260101t000000-shoal-secret",
        hidden=Path("/tmp/shoal-secret"),
        data_folder=Path("/tmp/shoal-secret/data"),
        images=Images("shoal-node:1", "shoal-prometheus:1", more.pop("grafana", None)),
        user=1000,
        group=1001,
        sysctls={"tcp_retries2": "8"},
        threads=1,
        **more,
    )


def services(**more: Any) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(text(plan(), site(**more)))["services"]
    return found


def test_it_is_as_it_was() -> None:
    made = text(
        plan(),
        site(
            real_time=RealTime("raised"),
            limits={("w01", "trainer"): PartLimit(1 << 30, "/docker/shoal-x/w01")},
        ),
    )
    if os.environ.get("SHOAL_REGENERATE") == "1":
        GOLDEN.write_text(made)
    assert made == GOLDEN.read_text(), "if this is meant: SHOAL_REGENERATE=1 make test-unit"


def test_every_part_of_every_node_is_a_container_in_the_holders_namespaces() -> None:
    found = services()
    for node in plan().nodes:
        assert found[node.name]["networks"]["data"]["ipv4_address"] == node.data_address
        for part in parts(node):
            one = found[f"{node.name}-{part}"]
            assert one["network_mode"] == one["pid"] == f"service:{node.name}"
            assert one["labels"]["shoal.part"] == part


@pytest.mark.parametrize("way", ["asked", "raised"])
def test_only_agents_are_root_and_nobody_may_more_than_he_needs(way: Way) -> None:
    nodes = {node.name for node in plan().nodes}
    for name, one in services(grafana="grafana:1", real_time=RealTime(way)).items():
        is_agent, is_raiser = name.endswith("-agent"), name in nodes and way == "raised"
        assert one["user"] == ("0:1001" if is_agent else "0:0" if is_raiser else "1000:1001"), name
        assert one.get("cap_add", []) == (AGENT_MAY if is_agent else ["SYS_NICE"] if is_raiser else []), name
        assert one["cap_drop"] == ["ALL"], name
        assert one["security_opt"] == ["no-new-privileges"], name
        assert one["read_only"], name
        assert not one.get("privileged"), name


def test_no_secret_is_given_to_whom_it_is_not_for() -> None:
    kinds = {"agent": ["token"], "ipfs": ["swarm-key"], "gate": ["gate-token"]}
    for name, one in services().items():
        assert one.get("secrets", []) == kinds.get(name.rpartition("-")[2], []), name


def test_only_the_web_is_published_and_on_loopback() -> None:
    for name, one in services(grafana="grafana:1").items():
        is_open = name in ("gate", "prometheus", "grafana")
        assert bool(one.get("ports")) == is_open, name
        assert all(port.startswith("127.0.0.1::") for port in one.get("ports", []))
    networks = yaml.safe_load(text(plan(), site()))["networks"]
    assert {name for name, one in networks.items() if not one.get("internal")} == {"web"}


def test_without_an_image_of_it_there_is_no_grafana() -> None:
    assert "grafana" not in services()
    assert services(grafana="grafana:1")["grafana"]["environment"]["SHOAL_PROMETHEUS_URL"]


def test_real_time_is_asked_for_only_where_it_is_given() -> None:
    asked = [
        {"ulimits", "cpu_rt_runtime", "cpu_rt_period"} & services(real_time=found)["w01-agent"].keys()
        for found in (None, RealTime("asked"), RealTime("asked", 18_000), RealTime("raised"))
    ]
    shares = {"cpu_rt_runtime", "cpu_rt_period"}
    assert asked == [set(), {"ulimits"}, {"ulimits", *shares}, set()]


def test_namespaces_outlive_whoever_raises_in_them() -> None:
    raising, keeping = (services(real_time=found)["w01"] for found in (RealTime("raised"), None))
    assert raising["entrypoint"] == ["sh", "-c"]
    assert raising["command"] == ["python3 -m node.links.raiser; exec sleep infinity"]
    assert keeping["entrypoint"] + keeping["command"] == ["sleep", "infinity"]


def test_what_zones_share_is_a_container_that_may_only_shape_and_forward() -> None:
    assert "trunks" not in services()
    wan = make_plan(listing.load("wan"))
    found = yaml.safe_load(text(wan, site()))["services"]
    one = found["trunks"]
    assert (one["user"], one["cap_drop"], one["cap_add"]) == ("0:1001", ["ALL"], ["NET_ADMIN"])
    assert (one["security_opt"], one["read_only"]) == (["no-new-privileges"], True)
    assert one["sysctls"] == {"net.ipv4.ip_forward": "1"}
    assert one["labels"] == {**found["agg"]["labels"], "shoal.node": "", "shoal.part": "trunks"}
    # Where no node and not the bridge is, and the nodes' routes lead.
    assert one["networks"] == {"data": {"ipv4_address": "10.77.3.254"}}
    assert trunks.address(wan) == "10.77.3.254"
    assert "10.77.3.254" not in {node.data_address for node in wan.nodes}
    assert trunks.address(plan()) is None


def test_what_it_lays_moves_with_the_subnets_and_is_as_it_was() -> None:
    wan = readdress(make_plan(listing.load("wan")), IPv4Network("10.80.0.0/22"), IPv4Network("10.80.4.0/22"))
    made = "\n".join([*trunks.service(wan, Path("/tmp/shoal-secret"), 1001), *trunks.traffic_lines(wan), ""])
    if os.environ.get("SHOAL_REGENERATE") == "1":
        TRUNKS_GOLDEN.write_text(made)
    assert made == TRUNKS_GOLDEN.read_text(), "if this is meant: SHOAL_REGENERATE=1 make test-unit"


def test_a_dollar_is_no_variable() -> None:
    made = text(plan(), site(task="/tmp/shoal-secret/task/a$HOME.py"))
    assert '"/tmp/shoal-secret/task/a$$HOME.py"' in made
