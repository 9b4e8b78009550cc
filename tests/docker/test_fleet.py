"""A whole run as containers: up, trained, cut, healed, looked at from inside and outside, and gone."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import stat
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import docker
import pytest

from node.contract.settings import SWARM_PORT
from node.links.priority import HOLDER_NAME
from orchestrator.containers.containers import FLEET, NODE, PART
from orchestrator.monitoring import dashboards
from tests.docker.traces import traces

TOP: Final = Path(__file__).resolve().parents[2]
CUT: Final = Path(__file__).with_name("cut.yaml")
TINY: Final = TOP / "tests" / "run" / "tiny.yaml"
RUN_S: Final = 240.0
ANSWER_S: Final = 10.0
ROOT: Final = 0
NET_ADMIN: Final = 1 << 12
NET_ADMIN_AND_RAW: Final = NET_ADMIN | (1 << 13)
SYS_NICE: Final = 1 << 23
# Of all in the node who come before ordinary ones.
FIRST: Final = """
import contextlib, os, pathlib
for file in pathlib.Path("/proc").glob("[0-9]*/comm"):
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        if os.sched_getscheduler(int(file.parent.name)) in (os.SCHED_FIFO, 6):  # SCHED_DEADLINE
            print(file.read_text(), end="")
"""
FIRST_S: Final = 5.0
CONNECT: Final = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 3).close()"


@dataclass(frozen=True)
class Run:
    """A run that is under way."""

    process: subprocess.Popen[str]
    folder: Path
    scenario: Path

    @property
    def directory(self) -> Path:
        return self.folder / "runs" / self.scenario.stem / "latest"

    @property
    def said(self) -> str:
        return (self.folder / "said").read_text()

    def results(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.directory / "results.json").read_text())
        return found

    def plan(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.directory / "plan.json").read_text())
        return found

    def binding(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.directory / "binding.json").read_text())
        return found

    def events(self, kind: str) -> list[dict[str, Any]]:
        file = self.directory / "history.jsonl"
        whole = file.read_text().split("\n")[:-1] if file.exists() else []
        return [event for line in whole if (event := json.loads(line))["kind"] == kind]

    def wait(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + RUN_S
        while not holds():
            assert self.process.poll() is None, self.said
            assert time.monotonic() < deadline, self.said
            time.sleep(0.05)

    def end(self) -> int:
        return self.process.wait(RUN_S)


def start(folder: Path, scenario: Path, driver: str) -> Run:
    folder.mkdir(exist_ok=True)
    with (folder / "said").open("w") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "orchestrator.cli", "run", str(scenario), "--driver", driver],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(TOP)},
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            text=True,
        )
    return Run(process, folder, scenario)


class Fleet:
    """The containers of a run, as the engine knows them."""

    def __init__(self, run: Run, client: docker.DockerClient) -> None:
        self.run, self._client = run, client
        (self.name,) = {
            one.labels[FLEET]
            for one in client.containers.list(filters={"label": f"{NODE}=w02"})
            if one.labels["shoal.run"] == run.binding()["run"]
        }

    def containers(self) -> dict[str, Any]:
        found = self._client.containers.list(filters={"label": f"{FLEET}={self.name}"})
        return {f"{one.labels[NODE]}-{one.labels[PART]}".strip("-"): one for one in found}

    def connects(self, node: str, to: str) -> bool:
        """Whether a node reaches another one's swarm over `data`, tried from inside."""
        agent, holder = self.containers()[f"{node}-agent"], self.containers()[f"{to}-holder"]
        networks = holder.attrs["NetworkSettings"]["Networks"]
        (address,) = [one["IPAddress"] for name, one in networks.items() if name.endswith("_data")]
        status, said = agent.exec_run(["python3", "-c", CONNECT, address, str(SWARM_PORT)])
        assert status == 0 or b"timed out" in said, said
        return bool(status == 0)

    @property
    def first(self) -> str | None:
        """How holders of packets come first here, in words of the Compose file."""
        file = (self.run.directory / "compose.yaml").read_text()
        return next((word for word in ("rtprio", "SYS_NICE") if word in file), None)

    def query(self, promql: str) -> list[dict[str, Any]]:
        """Through the port that a person's browser would take."""
        page = re.search(r"watch it: (http://127\.0\.0\.1:\d+) \(Prometheus", self.run.said)
        assert page, self.run.said
        asked = f"{page[1]}/api/v1/query?{urllib.parse.urlencode({'query': promql})}"
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
            asked, timeout=ANSWER_S
        ) as got:
            found: list[dict[str, Any]] = json.loads(got.read())["data"]["result"]
        return found


@pytest.fixture(scope="module")
def run(client: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    one = start(tmp_path_factory.mktemp("cut") / "run", CUT, "compose")
    yield one
    if one.process.poll() is None:
        one.process.send_signal(signal.SIGTERM)
        one.end()


@pytest.fixture(scope="module")
def fleet(run: Run, client: docker.DockerClient) -> Fleet:
    """After two rounds, while the third is cut."""

    def is_cut() -> bool:
        return any((one["fault"], one["phase"]) == ("cut", "start") for one in run.events("fault_verified"))

    run.wait(is_cut)
    return Fleet(run, client)


def test_a_cut_is_seen_from_inside(fleet: Fleet) -> None:
    assert [one["verified"] for one in fleet.run.events("fault_verified") if one["fault"] == "cut"] == [True]
    assert [fleet.connects("w02", "w01"), fleet.connects("w03", "w01")] == [False, True]
    # Nothing has healed it meanwhile, so what was seen was the cut.
    assert [one for one in fleet.run.events("fault_healed") if one["fault"] == "cut"] == []


def test_holders_of_packets_come_first_and_nobody_else(fleet: Fleet, client: docker.DockerClient) -> None:
    agents = {name: one for name, one in fleet.containers().items() if name.endswith("-agent")}
    assert (fleet.first is not None) == may_come_first(client, agents["w01-agent"].image)

    def is_restarted() -> bool:
        healed = [one["fault"] for one in fleet.run.events("fault_verified") if one["phase"] == "heal"]
        return "blind" in healed

    fleet.run.wait(is_restarted)  # w03 has its second agent, and with that its second holder
    wanted = dict.fromkeys(agents, [HOLDER_NAME] if fleet.first is not None else [])
    deadline = time.monotonic() + FIRST_S
    while (found := {name: first(one) for name, one in agents.items()}) != wanted:
        assert time.monotonic() < deadline, found


def first(agent: Any) -> list[str]:
    """The names of whoever comes first in a node."""
    status, said = agent.exec_run(["python3", "-c", FIRST])
    assert status == 0, said
    return sorted(said.decode().split())


def may_come_first(client: docker.DockerClient, image: Any) -> bool:
    """Whether this engine lets anybody, tried by hand."""
    chrt = ["chrt", "-d", "-T", "500000", "-D", "10000000", "-P", "10000000", "0", "true"]
    try:
        client.containers.run(image, chrt, user="0:0", cap_add=["SYS_NICE"], remove=True)
    except (docker.errors.APIError, docker.errors.ContainerError):
        return False
    return True


def test_the_observer_is_not_cut_off(fleet: Fleet) -> None:
    up = {one["metric"]["node"]: one["value"][1] for one in fleet.query("up")}
    assert up == dict.fromkeys(("agg", "w01", "w02", "w03"), "1")
    parts = {(one["metric"]["node"], one["metric"]["part"]) for one in fleet.query("shoal_part_up == 1")}
    assert {("w02", "agent"), ("w02", "ipfs"), ("w02", "trainer"), ("agg", "aggregator")} <= parts
    # Of others' memory an unprivileged agent sees the size, and no share of what several have.
    part = {one["metric"]["part"] for one in fleet.query('shoal_part_proportional_bytes{node="w02"}')}
    assert part <= {"agent", "supervisor"}


def test_nobody_may_more_than_he_needs(fleet: Fleet) -> None:
    for name, one in fleet.containers().items():
        told = one.exec_run(["cat", "/proc/self/status"])[1].decode()
        status = {line.partition(":")[0]: line.partition(":")[2].split() for line in told.splitlines()}
        is_raiser = name.endswith("-holder") and fleet.first == "SYS_NICE"
        rights = {"agent": NET_ADMIN_AND_RAW, "trunks": NET_ADMIN, "holder": SYS_NICE if is_raiser else 0}
        may = rights.get(name.rpartition("-")[2], 0)
        assert (int(status["Uid"][0]) == ROOT) == bool(may), name
        assert int(status["CapBnd"][0], 16) == may, name
        assert status["NoNewPrivs"] == ["1"], name
        assert one.exec_run(["sh", "-c", "touch /opt/x 2>&1"])[0] != 0, name


def test_the_line_that_zones_share_is_where_the_binding_says(fleet: Fleet) -> None:
    there = fleet.containers()["trunks"].attrs["NetworkSettings"]["Networks"]
    assert [one["IPAddress"] for one in there.values()] == [fleet.run.binding()["trunks"]]


def test_its_files_are_to_be_read_and_hold_no_secret(fleet: Fleet) -> None:
    directory = fleet.run.directory
    before = {name: one.id for name, one in fleet.containers().items()}
    # By hand, as the file's first lines say: all services are there already, and stay as they are.
    up = next(line for line in (directory / "compose.yaml").read_text().splitlines() if line.endswith(" up"))
    by_hand = [*shlex.split(up.removeprefix("#"))[:-1], "--file", str(directory / "compose.yaml")]
    subprocess.run([*by_hand, "up", "--detach"], capture_output=True, check=True)
    shown = subprocess.run([*by_hand, "ps", "--services"], capture_output=True, text=True, check=True)
    assert {"gate", "prometheus", "agg", "agg-aggregator", "w03-trainer"} <= set(shown.stdout.split())
    assert {name: one.id for name, one in fleet.containers().items()} == before
    hidden = Path(re.findall(r"file: .(/\S+)/gate-token", (directory / "compose.yaml").read_text())[0])
    assert stat.S_IMODE(hidden.stat().st_mode) == 0o700
    secrets = [(hidden / name).read_text() for name in ("token", "swarm-key", "gate-token")]
    for file in directory.rglob("*"):
        text = file.read_bytes() if file.is_file() else b""
        assert not any(secret.encode() in text for secret in secrets), file


def test_it_heals_holds_and_leaves_nothing(fleet: Fleet, client: docker.DockerClient) -> None:
    hidden = re.findall(r"file: .(/\S+)/gate-token", (fleet.run.directory / "compose.yaml").read_text())[0]
    status = fleet.run.end()
    results = fleet.run.results()
    assert results["driver"] == "compose"
    assert {one["state"] for one in results["checks"]} == {"held"}, fleet.run.said
    doubts = results["network_doubts"]
    links = json.loads((fleet.run.directory / "links.json").read_text())
    assert {one["waking"] == "first" for one in links.values()} == {fleet.first is not None}
    # Where holders may not come first, and these tests keep the cores busy, packets may go too late.
    if fleet.first is None:
        doubts = [doubt for doubt in doubts if "late beyond the tolerance" not in doubt]
    assert doubts == []
    assert status == (2 if results["network_doubts"] else 0), fleet.run.said
    verified = {(one["fault"], one["phase"]): one["verified"] for one in fleet.run.events("fault_verified")}
    assert verified == {(fault, phase): True for fault in ("cut", "blind") for phase in ("start", "heal")}
    # Its summands are not all known, so there is no sum.
    assert results["fleet_memory_bytes"] is None
    taken = results["container_memory_bytes"]
    assert set(taken) == {node["name"] for node in fleet.run.plan()["nodes"]}
    assert all(100e6 < one < 2e9 for one in taken.values()), taken
    measured = json.loads((fleet.run.directory / "calibration.json").read_text())["figures"]
    rates = [one["ok"] for one in measured if one["what"] == "goodput_bit_s"]
    assert rates == [True, True]  # of the shared line, in each direction
    assert traces(client, fleet.name) == []
    assert not Path(hidden).exists()
    assert list((fleet.run.directory / "series").glob("shoal_round*"))


def test_the_dashboards_find_what_they_ask_for(run: Run, tmp_path: Path) -> None:
    """All but what panels themselves say that some runs have not, such as losses."""
    run.end()
    window = dashboards.take_in(run.directory, tmp_path)
    with dashboards.served(tmp_path) as server:
        answers = list(dashboards.answers(server, window))
    assert len(answers) > 90
    assert [str(asked) for asked, found in answers if not found and asked.nothing is None] == []
    assert [str(asked) for asked, found in answers if not found and "fault" in (asked.nothing or "")] == []
