"""A whole run in which some workers are no neighbours of the aggregator."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.boxes import cgroups
from tests.run.test_run import RUN_S, shoal

RING = Path(__file__).with_name("ring.yaml")
ORDER = ("agg", "w01", "w02", "w03")
END_S = 60.0
SHORT_S = 3  # an object of a neighbour's comes in milliseconds
# In a node: one call of its daemon's RPC; the answer's status and body as JSON.
CALL = """
import json, sys, urllib.error, urllib.request
data = sys.argv[2].encode()
body = b'--x\\r\\nContent-Disposition: form-data; name="file"; filename="f"\\r\\n\\r\\n' + data + b"\\r\\n--x--\\r\\n"
kind = {"Content-Type": "multipart/form-data; boundary=x"} if data else {}
url = "http://127.0.0.1:5001/api/v0/" + sys.argv[1]
request = urllib.request.Request(url, data=body if data else b"", headers=kind, method="POST")
try:
    with urllib.request.urlopen(request, timeout=30) as answer:
        print(json.dumps([answer.status, answer.read().decode()]))
except urllib.error.HTTPError as error:
    print(json.dumps([error.code, error.read().decode()]))
"""


class Ring:
    """The fleet of a run that has got its verdict and is kept."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def read(self, name: str) -> Any:
        return json.loads((self.directory / name).read_text())

    def call(self, node: str, path: str, data: str = "") -> tuple[int, str]:
        command = ("exec", "--run", str(self.directory), node, "--", sys.executable, "-c", CALL, path, data)
        with shoal(*command, cwd=self.directory) as process:
            said, _ = process.communicate(timeout=END_S)
        assert process.returncode == 0, said
        status, body = json.loads(said)
        return status, body

    def connected(self, node: str) -> set[str]:
        """Whose daemons this node's has a connection to, by name."""
        names = {about["peer_id"]: name for name, about in self.read("binding.json")["nodes"].items()}
        return {names[peer["Peer"]] for peer in json.loads(self.call(node, "swarm/peers")[1])["Peers"]}


def wait_file(process: subprocess.Popen[str], file: Path) -> None:
    until_s = time.monotonic() + RUN_S
    while not file.exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < until_s, "no verdict"
        time.sleep(0.1)  # a file tells nobody when it is there


@pytest.fixture(scope="module")
def ring(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ring]:
    cwd = tmp_path_factory.mktemp("ring")
    with shoal("run", str(RING), "--keep", cwd=cwd) as process:
        try:
            wait_file(process, cwd / "runs" / "ring" / "latest" / "results.json")
            yield Ring((cwd / "runs" / "ring" / "latest").resolve())
        finally:
            process.terminate()
            process.communicate(timeout=END_S)


def test_all_take_part_in_every_round(ring: Ring) -> None:
    results = ring.read("results.json")
    assert (results["verdict"], results["rounds_completed"]) == ("held", 3), results["failure"]
    assert [sorted(row["updates"]) for row in results["rounds"]] == [list(ORDER[1:])] * 3


def test_a_slow_class_is_held_to_its_share_where_the_host_can(ring: Ring) -> None:
    if isinstance(refused := cgroups.attempt()["cpu"], cgroups.Refused):
        pytest.skip(str(refused))
    limits = ring.read("results.json")["limits"]
    assert limits["nodes"] == {"w03": {"cpu": 0.25, "memory_bytes": None}}
    assert limits["cpu"].startswith("enforced by cgroup v")
    assert limits["counted"]["w03"]["throttled_seconds"] > 0


def test_each_is_connected_to_its_neighbours_and_the_aggregator_alone(ring: Ring) -> None:
    for place, name in enumerate(ORDER):
        near = {ORDER[place - 1], ORDER[(place + 1) % len(ORDER)], "agg"} - {name}
        assert ring.connected(name) == (near if name != "agg" else set(ORDER[1:]))


def test_data_pass_along_the_ring_from_neighbour_to_neighbour(ring: Ring) -> None:
    status, said = ring.call("w01", "add?cid-version=1&quiet=true", "only w01 has this")
    assert status == 200, said
    path = f"cat?arg={json.loads(said)['Hash']}&timeout={SHORT_S}s"
    assert "only w01 has this" not in ring.call("w03", path)[1]  # two steps away
    assert ring.call("w02", path) == (200, "only w01 has this")
    assert ring.call("w03", path) == (200, "only w01 has this")
