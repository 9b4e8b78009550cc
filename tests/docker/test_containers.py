"""A run's containers on the real engine: seen, acted upon, heard of, removed."""

from __future__ import annotations

import json
import queue
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import docker
import pytest
from docker.models.containers import Container

from node.contract import HostError, ShoalError
from orchestrator.containers import dockerd
from orchestrator.containers.container_parts import HOLDER, ContainerParts
from orchestrator.containers.containers import NODE, PART, Containers, Death

WAIT_S = 30.0
SLEEP = ["sleep", "600"]
HUNGRY = ["python3", "-c", "bytearray(64 << 20)"]
# Its child is in a session of its own, as a daemon's may be.
WITH_CHILD = ["sh", "-c", "setsid sleep 601 & exec sleep 600"]


@dataclass
class Place:
    """One run's own containers, made without Compose."""

    client: docker.DockerClient
    image: str
    mine: Containers

    def add(self, node: str, part: str, command: list[str], **more: Any) -> Container:
        labels = {**self.mine.labels, NODE: node, PART: part}
        return self.client.containers.run(self.image, command, detach=True, labels=labels, **more)

    def wait(self, holds: Callable[[], bool]) -> None:
        pause = threading.Event()
        for _ in range(round(WAIT_S / 0.05)):
            if holds():
                return
            pause.wait(0.05)
        raise AssertionError("it did not come to be")


@pytest.fixture
def place(client: docker.DockerClient, node_image: str) -> Iterator[Place]:
    mine = Containers(client, "test-1", f"shoal-test-{uuid.uuid4().hex[:8]}")
    yield Place(client, node_image, mine)
    mine.remove()


def commands(holder: Container) -> list[str]:
    """What runs in a PID namespace."""
    script = "for file in /proc/[0-9]*/cmdline; do tr '\\0' ' ' < $file; echo; done 2> /dev/null"
    said = holder.exec_run(["sh", "-c", script]).output
    assert isinstance(said, bytes)
    return [line.strip() for line in said.decode().splitlines()]


def test_a_killed_part_takes_all_its_processes_with_it_and_no_other_part(place: Place) -> None:
    holder = place.add("w01", HOLDER, SLEEP, init=True)
    shared = {"network_mode": f"container:{holder.id}", "pid_mode": f"container:{holder.id}"}
    for name in ("agent", "ipfs", "trainer"):
        place.add("w01", name, WITH_CHILD, **shared)
    place.wait(lambda: commands(holder).count("sleep 601") == 3)
    parts = ContainerParts(place.mine)

    parts.kill("w01", "ipfs")
    assert [parts.state("w01", name) for name in ("agent", "ipfs", "trainer")] == [
        "running",
        "ended",
        "running",
    ]
    assert not parts.explains("w01", "agent")
    place.wait(lambda: commands(holder).count("sleep 601") == 2)
    parts.kill("w01", "ipfs")  # twice is once
    parts.start("w01", "ipfs")
    assert parts.state("w01", "ipfs") == "running"
    assert parts.explains("w01", "ipfs")  # who hears of it may be late
    assert not parts.explains("w01", "ipfs")  # and the next one is news

    parts.pause("w01", "node")
    assert parts.state("w01", "node") == "paused"
    parts.kill("w01", "node")  # also what is paused
    assert parts.state("w01", "node") == "ended"
    place.wait(lambda: "sleep 601" not in commands(holder))
    holder.reload()
    assert holder.status == "running"  # or the node's network would be gone
    parts.start("w01", "node")
    assert parts.state("w01", "node") == "running"


def test_a_paused_part_does_nothing_until_it_is_resumed(place: Place) -> None:
    counting = "import time\nwhile True:\n    print(flush=True)\n    time.sleep(0.01)"
    container = place.add("w01", "trainer", ["python3", "-c", counting])
    parts = ContainerParts(place.mine)

    def said() -> int:
        return len(container.logs())

    place.wait(lambda: said() > 0)
    parts.pause("w01", "trainer")
    parts.pause("w01", "trainer")
    assert parts.state("w01", "trainer") == "paused"
    before = said()
    threading.Event().wait(0.3)  # what did not happen can only be waited for
    assert said() == before
    parts.resume("w01", "trainer")
    place.wait(lambda: said() > before)
    parts.resume("w01", "trainer")


def test_deaths_are_heard_with_status_and_cause(place: Place) -> None:
    heard: queue.Queue[Death] = queue.Queue()
    lost = threading.Event()
    watch = place.mine.watch(heard.put, lost.set)
    place.add("w01", "trainer", ["sh", "-c", "exit 3"])
    assert heard.get(timeout=WAIT_S) == Death("w01", "trainer", 3, False)
    place.add("w02", "trainer", HUNGRY, mem_limit="16m", memswap_limit="16m")
    assert heard.get(timeout=WAIT_S) == Death("w02", "trainer", 137, True)
    watch.close()
    assert heard.empty()
    assert not lost.is_set()  # it was we who hung up


def test_what_a_container_takes_is_what_it_took(place: Place) -> None:
    held = "import time; mine = bytearray(64 << 20); print('taken', flush=True); time.sleep(600)"
    container = place.add("w01", "trainer", ["python3", "-c", held])
    place.wait(lambda: b"taken" in container.logs())
    assert 64 << 20 <= place.mine.memory_bytes("w01", "trainer") < 128 << 20


def test_health_is_waited_for_and_whoever_ends_before_is_told_at_once(place: Place) -> None:
    check = {"test": ["CMD", "test", "-e", "/tmp/ready"], "interval": 200_000_000}
    place.add("", "gate", ["sh", "-c", "sleep 0.5; : > /tmp/ready; exec sleep 600"], healthcheck=check)
    place.mine.wait_healthy({"gate"}, WAIT_S)
    place.add("", "prometheus", SLEEP, healthcheck=check)
    with pytest.raises(HostError, match=r"prometheus is not ready after 0\.1 s"):
        place.mine.wait_healthy({"gate", "prometheus"}, 0.1)
    place.add("w01", "ipfs", ["sh", "-c", "echo no room for blocks; exit 5"])
    with pytest.raises(HostError, match=r"w01-ipfs ended with 5; it said last:\nno room for blocks$"):
        place.mine.wait_healthy({"gate", "prometheus"}, WAIT_S)


def test_one_that_restarts_in_a_loop_is_told_with_its_last_words(place: Place) -> None:
    always = {"Name": "always"}
    container = place.add(
        "w01", "ipfs", ["sh", "-c", "echo cannot read the key; exit 1"], restart_policy=always
    )

    def restarts() -> int:
        container.reload()
        return int(container.attrs["RestartCount"])

    place.wait(lambda: restarts() > 2)
    with pytest.raises(
        HostError, match=r"w01-ipfs is started again and again; it said last:\n(.|\n)*read the key$"
    ):
        place.mine.check_alive()


def test_everything_of_the_run_is_removed_and_nothing_else(place: Place) -> None:
    labels = place.mine.labels
    other = Containers(place.client, place.mine.run, f"{place.mine.fleet}-2")  # the same ID, another run
    kept = place.client.containers.run(place.image, SLEEP, detach=True, labels={**other.labels, NODE: "w01"})
    network = place.client.networks.create(f"{place.mine.fleet}_ctl", labels=labels, internal=True)
    volume = place.client.volumes.create(f"{place.mine.fleet}_v", labels=labels)
    try:
        place.add("w01", "ipfs", SLEEP, network=network.name, volumes={volume.name: {"bind": "/v"}})
        place.add("w02", "ipfs", ["false"])
        network.connect(kept)  # somebody has plugged in a container that is not of this run
        place.mine.remove()
        assert place.mine.all() == []
        mine = {"label": f"shoal.fleet={place.mine.fleet}"}
        assert place.client.networks.list(filters=mine) == []
        assert place.client.volumes.list(filters=mine) == []
        kept.reload()
        assert kept.status == "running"
    finally:
        other.remove()
    assert other.all() == []


def test_subnets_of_others_are_known(place: Place) -> None:
    pool = docker.types.IPAMPool(subnet="10.199.0.0/24")
    name = f"{place.mine.fleet}_clash"
    place.client.networks.create(
        name, labels=place.mine.labels, ipam=docker.types.IPAMConfig(pool_configs=[pool])
    )
    assert dockerd.networks(place.client)["10.199.0.0/24"] == name
    with pytest.raises(HostError, match="has just taken the run's subnet"), dockerd.told("a network"):
        place.client.networks.create(f"{name}2", ipam=docker.types.IPAMConfig(pool_configs=[pool]))


def test_an_image_that_is_missing_is_told_with_its_cure(place: Place) -> None:
    with (
        pytest.raises(HostError, match=r"lacks an image: .*shoal-none(.|\n)*make images"),
        dockerd.told("it"),
    ):
        place.client.containers.create("shoal-none:1", ["true"])


def test_the_facts_name_engine_and_images(place: Place) -> None:
    found = dockerd.facts(place.client, [place.image])
    json.dumps(found)
    assert found["engine"] == place.client.version()["Version"]
    assert found["storage_driver"]
    assert found["cgroup_version"] in ("1", "2")
    assert found["images"][place.image]["id"].startswith("sha256:")


def test_a_part_that_is_not_there_is_an_error(place: Place) -> None:
    with pytest.raises(ShoalError, match="0 containers of w09-ipfs, not one"):
        ContainerParts(place.mine).kill("w09", "ipfs")
