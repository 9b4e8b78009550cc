from __future__ import annotations

import os
import socket
import threading
from pathlib import Path
from typing import Any, cast

import pytest
import requests
from docker import DockerClient
from docker.errors import APIError

from node.contract import HostError, ShoalError
from orchestrator.containers import containers, dockerd
from orchestrator.containers.container_parts import ContainerParts
from orchestrator.containers.containers import NODE, PART, Containers, Death
from tests.unit.orchestrator.fake_engine import FakeContainer, FakeEngine, refusal

WAIT_S = 10.0


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def mine(engine: FakeEngine) -> Containers:
    return Containers(cast("DockerClient", engine), "tiny-1", "shoal-abc")


def part(engine: FakeEngine, mine: Containers, node: str, name: str, **about: Any) -> FakeContainer:
    return engine.add({**mine.labels, NODE: node, PART: name}, **about)


def foreign(engine: FakeEngine) -> FakeContainer:
    """Of a run that began in the same second, from another folder: its ID is the same."""
    return part(engine, Containers(cast("DockerClient", engine), "tiny-1", "shoal-other"), "w01", "agent")


def test_only_those_of_the_run_are_seen_in_order_of_name(engine: FakeEngine, mine: Containers) -> None:
    part(engine, mine, "w01", "ipfs", status="exited")
    part(engine, mine, "", "gate")
    foreign(engine)
    engine.add({})
    assert [(one.name, one.status) for one in mine.all()] == [("gate", "running"), ("w01-ipfs", "exited")]


def test_a_part_is_what_its_label_says_and_there_is_one(engine: FakeEngine, mine: Containers) -> None:
    part(engine, mine, "w01", "ipfs", status="paused")
    part(engine, mine, "w01", "agent", status="exited")
    part(engine, mine, "w02", "ipfs", status="running")
    parts = ContainerParts(mine)
    assert [parts.state("w01", "ipfs"), parts.state("w01", "agent")] == ["paused", "ended"]
    assert parts.state("w01", "node") == "paused"  # its last part has not ended
    with pytest.raises(ShoalError, match="run tiny-1 has 0 containers of w02-agent, not one"):
        parts.state("w02", "agent")


def test_one_that_has_ended_is_told_with_its_last_words(engine: FakeEngine, mine: Containers) -> None:
    part(engine, mine, "w01", "agent")
    mine.check_alive()
    said = "".join(f"line {number}\n" for number in range(20)).encode()
    part(engine, mine, "w01", "ipfs", status="exited", exit_code=3, said=said)
    with pytest.raises(HostError) as caught:
        mine.check_alive()
    first, *rest = caught.value.message.splitlines()
    assert first == "the container of w01-ipfs ended with 3; it said last:"
    assert rest == [f"line {number}" for number in range(12, 20)]


@pytest.mark.parametrize("about", [{"status": "restarting"}, {"restarts": 3}])
def test_one_that_restarts_in_a_loop_is_told_with_its_last_words(
    about: dict[str, Any], engine: FakeEngine, mine: Containers
) -> None:
    part(engine, mine, "w01", "ipfs", said=b"no such file\n", **about)
    with pytest.raises(HostError, match=r"w01-ipfs is started again and again; it said last:\nno such file$"):
        mine.check_alive()


def test_waiting_for_health_ends_with_it_or_says_who_is_not_ready(
    engine: FakeEngine, mine: Containers
) -> None:
    part(engine, mine, "", "prometheus", health="healthy")
    part(engine, mine, "", "gate", health="starting", said=b"reading the token\n")
    mine.wait_healthy({"prometheus"}, 0)
    with pytest.raises(HostError, match="gate is not ready after 0 s; it said last:\nreading the token"):
        mine.wait_healthy({"prometheus", "gate"}, 0)
    with pytest.raises(HostError, match="grafana is not ready after 0 s; it is not there"):
        mine.wait_healthy({"prometheus", "grafana"}, 0)


def test_what_a_program_says_in_one_of_them(engine: FakeEngine, mine: Containers) -> None:
    part(engine, mine, "", "trunks", answers={"cat a": (0, b"1\n"), "cat b": (1, b"no such file\n")})
    assert mine.ask("", "trunks", ["cat", "a"]) == "1\n"
    with pytest.raises(HostError, match="`cat b` ended with 1: no such file"):
        mine.ask("", "trunks", ["cat", "b"])


def test_removing_leaves_nothing_of_the_run_and_all_of_others(engine: FakeEngine, mine: Containers) -> None:
    other = foreign(engine)
    for name in ("agent", "ipfs"):
        part(engine, mine, "w01", name)
    engine.networks.add("ctl", mine.labels, guests=["of somebody else"])
    engine.volumes.add("v", mine.labels)
    bridge = engine.networks.add("bridge", {})
    mine.remove(0)
    assert engine.kept == [other]
    assert engine.networks.things == [bridge]
    assert engine.volumes.things == []
    mine.remove(0)  # gone already


def test_what_somebody_else_is_removing_is_waited_for_and_what_stays_is_an_error(
    engine: FakeEngine, mine: Containers
) -> None:
    part(engine, mine, "w01", "ipfs", stubborn=refusal(409, "removal is already in progress"))
    with pytest.raises(ShoalError, match=r"of run tiny-1 cannot be removed: w01-ipfs\n.*docker ps --all"):
        mine.remove(0)
    engine.kept[0].stubborn = refusal(500, "device or resource busy")
    with pytest.raises(ShoalError, match="device or resource busy"):
        mine.remove(0)


def test_a_network_that_the_engine_has_miscounted_is_told_with_its_cure_and_not_waited_for(
    engine: FakeEngine, mine: Containers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(containers, "EMPTY_NETWORK_S", 0)
    engine.networks.add("tiny_data", mine.labels, is_miscounted=True)
    with pytest.raises(
        HostError, match=r"cannot be removed: network tiny_data\n(.|\n)*systemctl restart docker"
    ):
        mine.remove(timeout_s=1e9)


def event(action: str, mine: Containers, container: str, node: str, **about: str) -> dict[str, Any]:
    labels = {**mine.labels, NODE: node, PART: "trainer", **about}
    return {"Action": action, "Actor": {"ID": container, "Attributes": labels}}


def test_deaths_are_heard_with_what_killed(engine: FakeEngine, mine: Containers) -> None:
    engine.happened.append(event("oom", mine, "c1", "w01"))
    engine.happened.append(event("die", mine, "c2", "w02", exitCode="137"))
    engine.happened.append(event("die", mine, "c1", "w01", exitCode="137"))
    heard: list[Death] = []
    ended = threading.Event()
    watch = mine.watch(heard.append, ended.set)
    assert ended.wait(WAIT_S)  # the engine has said all and hangs up
    watch.close()
    assert heard == [Death("w02", "trainer", 137, False), Death("w01", "trainer", 137, True)]


@pytest.mark.parametrize("idle", ["total_inactive_file", "inactive_file"])  # cgroup v1, v2
def test_memory_that_the_kernel_may_drop_is_not_taken(idle: str) -> None:
    stats = {"memory_stats": {"usage": 5000, "stats": {idle: 2000, "cache": 4000}}}
    assert containers.memory_bytes(stats) == 3000


def test_of_one_that_has_ended_there_are_no_figures_of_memory() -> None:
    assert containers.memory_bytes({"memory_stats": {}}) == 0


def test_subnets_are_told_with_their_networks(engine: FakeEngine) -> None:
    engine.networks.add("bridge", {}, attrs={"IPAM": {"Config": [{"Subnet": "172.17.0.0/16"}]}})
    engine.networks.add("host", {}, attrs={"IPAM": {"Config": None}})
    engine.networks.add(
        "both", {}, attrs={"IPAM": {"Config": [{"Subnet": "10.1.0.0/24"}, {"Subnet": "fd00::/64"}]}}
    )
    found = dockerd.networks(cast("DockerClient", engine))
    assert found == {"172.17.0.0/16": "bridge", "10.1.0.0/24": "both", "fd00::/64": "both"}


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (refusal(409, "is not running"), ShoalError, r"Docker refused \(w01-ipfs\): is not running"),
        (
            refusal(500, "write /x: no space left on device"),
            HostError,
            "no room on its disk(.|\n)*docker system df",
        ),
        (
            refusal(404, "No such image: shoal-node:x"),
            HostError,
            "lacks an image: .*shoal-node:x\n.*make images",
        ),
        (requests.exceptions.ReadTimeout("late"), HostError, "does not answer(.|\n)*docker info"),
    ],
)
def test_what_the_engine_refuses_is_told_with_its_cure(
    error: Exception, kind: type[ShoalError], said: str
) -> None:
    with pytest.raises(kind, match=said), dockerd.told("w01-ipfs"):
        raise error


@pytest.mark.parametrize(
    ("said", "cure"),
    [  # as Compose 2.40 and engine 20.10 say it
        ("failed to create network x: Error response from daemon: Pool overlaps with other one on this address space", "docker network prune"),
        ("Bind for 127.0.0.1:9090 failed: port is already allocated", "run it again; see who"),
        ("permission denied while trying to connect to the Docker daemon socket", "groups docker"),
        ("Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?", "docker info"),
    ],
)  # fmt: skip
def test_what_compose_says_has_its_cure(said: str, cure: str) -> None:
    found = dockerd.complaint(said, "Compose failed")
    assert isinstance(found, HostError)
    assert said in found.message
    assert cure in found.hint


def test_what_is_not_known_is_told_as_it_was_said() -> None:
    found = dockerd.complaint("bananas", "Compose failed")
    assert (type(found), found.message) == (ShoalError, "Compose failed: bananas")


def test_no_engine_and_no_right_to_speak_to_it_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(HostError, match=f"No Docker engine answers at {tmp_path}/none(.|\n)*--driver netns"):
        dockerd.connect(f"unix://{tmp_path}/none")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/left")
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "left"))  # nobody listens, as after a crash of the engine
        with pytest.raises(HostError, match="/left: Connection refused"):
            dockerd.connect()
    if os.geteuid() != 0:  # root may always
        (tmp_path / "left").chmod(0)
        with pytest.raises(HostError, match=r"This user may not speak(.|\n)*groups docker"):
            dockerd.connect()


def test_gone_is_fine_but_trouble_is_not() -> None:
    for status in (404, 409, 403):
        with dockerd.gone_is_fine():
            raise refusal(status, "x")
    with pytest.raises(APIError), dockerd.gone_is_fine():
        raise refusal(500, "x")
