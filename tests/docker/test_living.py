"""A fleet of containers that is kept, and all that can be done to it from another terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import docker
import pytest

from orchestrator.containers.containers import FLEET, NODE, PART, RUN
from tests.docker.traces import traces, wait_no_trace
from tests.run.kept import CALL_S, TINY, TOP, Kept, Terminal, nodes, protocol, read_pcap, wait_scraped

END_S = 60.0
RUN_S = 240.0
NOISE = "SHOASHOA"
SEND = f"import socket, sys; socket.socket(type=2).sendto(b'{NOISE}', (sys.argv[1], 9))"


@pytest.fixture(scope="module")
def registry() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="living-") as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def terminal(registry: Path, node_image: str, tmp_path_factory: pytest.TempPathFactory) -> Terminal:
    return Terminal(tmp_path_factory.mktemp("one"), registry, "compose")


@pytest.fixture(scope="module")
def kept(terminal: Terminal, client: docker.DockerClient) -> Iterator[Kept]:
    run = Kept(terminal.start("run", str(TINY), "--keep", "-v"), terminal)
    try:
        run.wait_kept()
        yield run
    finally:
        run.end()
        terminal.call("down", "--all")
        terminal.wait_no_process(END_S)


def test_it_is_recorded_and_its_containers_are_labelled(kept: Kept, client: docker.DockerClient) -> None:
    assert kept.results["verdict"] == "held"
    assert kept.results["driver"] == "compose"
    fleet = Path(kept.record["secrets"]).name
    mine = client.containers.list(all=True, filters={"label": f"{FLEET}={fleet}"})
    assert {one.labels[RUN] for one in mine} == {kept.id}
    of_w01 = {one.labels[PART] for one in mine if one.labels[NODE] == "w01"}
    assert of_w01 == {"holder", "agent", "ipfs", "trainer"}
    assert {one.labels[PART] for one in mine if not one.labels[NODE]} >= {"gate", "prometheus"}


def test_the_same_plan_gives_the_same_model_in_a_box(kept: Kept, registry: Path, tmp_path: Path) -> None:
    with Terminal(tmp_path, registry, "netns").start("run", str(TINY)) as process:
        said, _ = process.communicate(timeout=RUN_S)
    assert process.returncode == 0, said
    directory = tmp_path / "runs" / "tiny" / "latest"
    results = json.loads((directory / "results.json").read_text())
    assert (results["driver"], results["repeatable"], kept.results["repeatable"]) == ("netns", True, True)
    assert results["final_model_cid"] == kept.results["final_model_cid"]
    assert (directory / "plan.json").read_bytes() == (kept.directory / "plan.json").read_bytes()


def test_the_page_of_prometheus_answers(kept: Kept) -> None:
    found = re.search(r"(http://127\.0\.0\.1:\d+) \(Prometheus", kept.said)
    assert found, kept.said
    wait_scraped(f"{found[1]}/api/v1/query?query=up", {"agg", "w01", "w02"}, CALL_S)


def test_exec_is_in_the_node_with_our_streams_and_gives_the_commands_status(
    kept: Kept, terminal: Terminal
) -> None:
    planned = json.loads((kept.directory / "plan.json").read_text())["network"]["data_subnet"]
    subnet = IPv4Network(json.loads((kept.directory / "binding.json").read_text())["subnets"]["data"])
    for node in nodes(kept):
        status, said = terminal.exec(node["name"], "ip", "-brief", "address", "show", "data")
        assert status == 0
        # The same place, also where others have the plan's own subnet.
        place = int(IPv4Address(node["data_address"])) - int(IPv4Network(planned).network_address)
        assert f" {subnet[place]}/{subnet.prefixlen} " in said
    assert terminal.exec("w01", "cat", given="words") == (0, "words")
    assert terminal.exec("w01", "sh", "-c", "exit 7")[0] == 7
    status, said = terminal.exec("w01", "no-such-program")
    assert status == 127
    assert "no-such-program" in said
    assert terminal.call("exec", "w01", "--run", kept.id, "--", "true") == (0, "")


def test_exec_hands_on_a_terminal(kept: Kept, terminal: Terminal) -> None:
    ours, theirs = pty.openpty()
    argv = [
        sys.executable,
        "-m",
        "orchestrator.cli",
        "exec",
        "w01",
        "--",
        "sh",
        "-c",
        "tty && read word && echo +$word",
    ]
    env = {**os.environ, "XDG_RUNTIME_DIR": str(terminal.registry), "PYTHONPATH": str(TOP)}
    with subprocess.Popen(argv, stdin=theirs, stdout=theirs, stderr=theirs, env=env) as process:
        os.close(theirs)
        said = b""
        while b"/dev/pts/" not in said:
            said += os.read(ours, 1000)
        os.write(ours, b"hello\n")
        while b"+hello" not in said:
            said += os.read(ours, 1000)
        assert process.wait(CALL_S) == 0
    os.close(ours)


def test_ctrl_c_in_exec_is_for_the_command(kept: Kept, terminal: Terminal) -> None:
    script = "trap 'echo caught; exit 3' INT; echo ready; read line"
    with terminal.start("exec", "w01", "--", "sh", "-c", script) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        assert process.stdout.readline() == "caught\n"
        assert process.wait(CALL_S) == 3


def test_logs_are_those_of_the_nodes(kept: Kept, terminal: Terminal) -> None:
    status, said = terminal.call("logs")
    assert status == 0
    assert {line.partition(" | ")[0] for line in said.splitlines()} >= {"agg/ipfs", "w01/ipfs", "w02/ipfs"}
    status, said = terminal.call("logs", "w01", "--run", str(kept.directory))
    assert status == 0
    assert "w01/ipfs | Daemon is ready" in said
    assert all(line.startswith("w01/") for line in said.splitlines())


def test_capture_writes_every_packet_until_ctrl_c(kept: Kept, terminal: Terminal) -> None:
    status, said = terminal.exec("agg", "ip", "-brief", "address", "show", "data")
    assert status == 0
    address = said.split()[2].partition("/")[0]
    with terminal.start("capture", "w01") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "capturing data\n"
        for _ in range(3):
            assert terminal.exec("w01", "python3", "-c", SEND, address) == (0, "")
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=CALL_S)
    assert process.returncode == 0, said
    heard = read_pcap((terminal.folder / "w01.pcap").read_bytes())
    sent = [packet for packet in heard if protocol(packet) == 17 and NOISE.encode() in packet]
    assert len(sent) == 3
    assert f"{len(heard)} packets, 0 dropped" in said


def test_capture_ends_after_its_time(kept: Kept, terminal: Terminal) -> None:
    status, said = terminal.call("capture", "w02", "--seconds", "0.2", "-o", "short.pcap")
    assert (status, "wrote short.pcap" in said) == (0, True), said
    read_pcap((terminal.folder / "short.pcap").read_bytes())


def test_a_second_run_does_not_meet_the_first_and_its_remains_are_removed_when_it_is_killed(
    kept: Kept, terminal: Terminal, client: docker.DockerClient, tmp_path: Path
) -> None:
    elsewhere = Terminal(tmp_path, terminal.registry, "compose")
    second = Kept(elsewhere.start("run", str(TINY), "--keep"), elsewhere)
    try:
        second.wait_kept()
        assert second.results["verdict"] == "held"
        assert second.results["final_model_cid"] == kept.results["final_model_cid"]
        assert nodes(second) == nodes(kept)  # the plan is the same, and yet
        assert re.search(r"the plan's subnets are taken \(.*\); this run takes", second.said), second.said
        taken, own = (
            json.loads((run.directory / "binding.json").read_text())["subnets"] for run in (kept, second)
        )
        assert set(taken.values()).isdisjoint(own.values())
        assert f"{second.id}  {second.directory}\n" in terminal.exec("w01", "true")[1]

        secrets = Path(second.record["secrets"])
        assert len(traces(client, secrets.name)) > len(nodes(second))
        second.process.kill()
        second.process.communicate(timeout=CALL_S)
        status, said = terminal.call("down", "--run", str(second.directory))
        assert (status, said) == (
            0,
            f"no run {second.directory} is living, but:\n    {kept.id}  {kept.directory}\n",
        )
        assert traces(client, secrets.name) == []
        assert not secrets.exists()
        assert [one["run"] for one in terminal.recorded()] == [kept.id]
    finally:
        second.end()
    elsewhere.wait_no_process(END_S)
    assert terminal.exec("w01", "true") == (0, "")  # the first has not noticed


def test_down_ends_the_run_in_order_and_leaves_nothing(
    kept: Kept, terminal: Terminal, client: docker.DockerClient
) -> None:
    secrets = Path(kept.record["secrets"])
    with terminal.start("logs", "-f") as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline()
        assert terminal.call("down") == (0, f"ending {kept.id}\n")
        follower.communicate(timeout=CALL_S)
    assert follower.returncode == 0
    said, _ = kept.process.communicate(timeout=CALL_S)
    assert kept.process.returncode == 0, said
    assert said.endswith("verdict: held\n")
    terminal.wait_no_process(END_S)
    wait_no_trace(client, secrets.name, 0)
    assert not secrets.exists()
    assert terminal.recorded() == []
    status, said = terminal.call("logs", "w01", "--run", "tiny")
    assert (status, "w01/ipfs | Daemon is ready" in said) == (0, True)
