"""A whole run, what it leaves, and all that can be done to its fleet from another terminal while that is kept.

Real TFF, real daemons, a real Prometheus, in a box of their own; other runs beside it.
"""

from __future__ import annotations

import json
import os
import re
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from node.contract import events
from orchestrator.runs import packets
from orchestrator.verdict import results
from tests.run.kept import CALL_S, TINY, Kept, Terminal, nodes, protocol, read_pcap, wait_scraped, words_of

END_S = 60.0
RUN_S = 240.0


@pytest.fixture(scope="module")
def registry() -> Iterator[Path]:
    # Not pytest's own folder: a Unix socket's path may have 107 characters.
    with tempfile.TemporaryDirectory(prefix="living-") as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def terminal(registry: Path, tmp_path_factory: pytest.TempPathFactory) -> Terminal:
    return Terminal(tmp_path_factory.mktemp("one"), registry)


@pytest.fixture(scope="module")
def kept(terminal: Terminal) -> Iterator[Kept]:
    run = Kept(terminal.start("run", str(TINY), "--keep", "-v"), terminal)
    try:
        run.wait_kept()
        yield run
    finally:
        run.end()
        terminal.wait_no_process(END_S)


def test_it_trains_and_holds(kept: Kept) -> None:
    assert kept.results["rounds_completed"] == 3
    assert kept.results["final_model_cid"].startswith("baf")
    assert kept.results["driver"] == "netns"
    assert kept.results["transport"] == "prompt"
    assert kept.results["repeatable"] is True


def test_each_round_counts_both_workers(kept: Kept) -> None:
    closed = [event for event in history(kept) if event["kind"] == "round_closed"]
    assert [event["accepted"] for event in closed] == [["w01", "w02"]] * 3
    assert [round_["missing"] for round_ in kept.results["rounds"]] == [[], [], []]


def history(kept: Kept) -> list[dict[str, Any]]:
    whole = (kept.directory / "history.jsonl").read_text().split("\n")[:-1]
    return [json.loads(line) for line in whole]


def test_every_key_of_the_results_is_explained_and_known(kept: Kept) -> None:
    assert set(kept.results) == set(results.KEYS)
    assert [
        key for key, value in kept.results.items() if value is None and key not in results.MAY_BE_NULL
    ] == []


def test_a_kept_run_has_its_results_and_is_recorded_for_its_user_alone(
    kept: Kept, terminal: Terminal
) -> None:
    assert kept.results["verdict"] == "held"
    assert kept.record["run"] == kept.id
    assert (terminal.registry / "shoal").stat().st_mode & 0o777 == 0o700


def test_report_prints_what_the_run_ends_with(kept: Kept, terminal: Terminal) -> None:
    for named in ("tiny", str(kept.directory)):
        assert terminal.call("report", named) == (0, (kept.directory / "report.txt").read_text())
    status, said = terminal.call("report", "tiny", "--json")
    assert (status, json.loads(said)) == (0, kept.results)


def test_verbose_tells_the_events_of_every_node(kept: Kept) -> None:
    told = re.findall(r"^ *[0-9.]+ s (\w+) +ipfs_ready ", kept.said, re.MULTILINE)
    assert sorted(told) == ["agg", "w01", "w02"]


def test_the_door_to_prometheus_answers(kept: Kept) -> None:
    found = re.search(r"watch it: (http://127\.0\.0\.1:\d+)", kept.said)
    assert found
    wait_scraped(f"{found[1]}/api/v1/query?query=up", {"agg", "w01", "w02"}, CALL_S)


def test_exec_is_in_the_node_with_our_streams_and_gives_the_commands_status(
    kept: Kept, terminal: Terminal
) -> None:
    plan = json.loads((kept.directory / "plan.json").read_text())
    for node in plan["nodes"]:
        status, said = terminal.exec(node["name"], "ip", "-brief", "address", "show", "data")
        assert status == 0
        assert f" {node['data_address']}/" in said
    assert terminal.exec("w01", "cat", given="words") == (0, "words")
    assert terminal.exec("w01", "sh", "-c", "pwd; exit 7") == (7, f"{terminal.folder}\n")
    status, said = terminal.exec("w01", "no-such-program")
    assert status == 127
    assert "no-such-program" in said
    assert terminal.call("exec", "w01", "--run", kept.id, "--", "true") == (0, "")


def test_ctrl_c_in_exec_is_for_the_command(kept: Kept, terminal: Terminal) -> None:
    script = "trap 'echo caught; exit 3' INT; echo ready; read line"
    with terminal.start("exec", "w01", "--", "sh", "-c", script) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        said, _ = process.communicate(timeout=CALL_S)
    assert (process.returncode, said) == (3, "caught\n")


def test_a_node_that_is_not_there_is_told_with_the_nearest(kept: Kept, terminal: Terminal) -> None:
    for words in (["exec", "wo1", "--", "true"], ["logs", "wo1"], ["capture", "wo1"]):
        status, said = terminal.call(*words)
        assert status == 64
        assert "no node 'wo1'\n  perhaps you meant w01; known: agg, w01, w02" in said


def test_logs_are_those_of_the_nodes(kept: Kept, terminal: Terminal) -> None:
    status, said = terminal.call("logs")
    assert status == 0
    assert {line.partition(" | ")[0] for line in said.splitlines()} >= {"agg/ipfs", "w01/ipfs", "w02/ipfs"}
    status, said = terminal.call("logs", "w01", "--run", str(kept.directory))
    assert status == 0
    assert "w01/ipfs | Daemon is ready" in said
    assert all(line.startswith("w01/") for line in said.splitlines())


def test_capture_writes_every_packet_until_ctrl_c(kept: Kept, terminal: Terminal) -> None:
    with terminal.start("capture", "w01") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "capturing data\n"
        address = next(n["data_address"] for n in nodes(kept) if n["name"] == "agg")
        assert terminal.exec("w01", "ping", "-c", "3", "-i", "0.2", "-p", "53484f41", address)[0] == 0
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=CALL_S)
    assert process.returncode == 0, said
    heard = read_pcap((terminal.folder / "w01.pcap").read_bytes())
    echoes = [packet for packet in heard if protocol(packet) == 1 and b"SHOASHOA" in packet]
    assert [packet[34] for packet in echoes] == [8, 0] * 3  # request and answer, each once, in order
    assert f"{len(heard)} packets, 0 dropped" in said
    status, said = terminal.call("capture", "w01")
    assert (status, "w01.pcap exists already" in said) == (64, True)


def test_capture_ends_after_its_time_and_when_it_is_killed(kept: Kept, terminal: Terminal) -> None:
    status, said = terminal.call("capture", "w02", "--seconds", "0.2", "-o", "short.pcap")
    assert (status, "wrote short.pcap" in said) == (0, True)
    read_pcap((terminal.folder / "short.pcap").read_bytes())
    before = writers(terminal)
    with terminal.start("capture", "w02", "-o", "killed.pcap") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "capturing data\n"
        assert writers(terminal) - before
        process.kill()
        process.communicate(timeout=CALL_S)  # until the writer in the node has closed our pipe, too
    read_pcap((terminal.folder / "killed.pcap").read_bytes())


def writers(terminal: Terminal) -> set[int]:
    """The processes in nodes that write captures."""
    return {pid for pid in terminal.processes() if packets.__file__.encode() in words_of(pid, "cmdline")}


def test_a_second_run_does_not_meet_the_first_and_its_remains_are_removed_when_it_is_killed(
    kept: Kept, terminal: Terminal, tmp_path: Path
) -> None:
    elsewhere = Terminal(tmp_path, terminal.registry)
    second = Kept(elsewhere.start("run", str(TINY), "--keep"), elsewhere)
    try:
        second.wait_kept()
        assert second.results["verdict"] == "held"
        assert second.results["final_model_cid"] == kept.results["final_model_cid"]
        assert nodes(second) == nodes(kept)  # the same names and addresses, and yet
        places, peers = [], []
        for run in (kept, second):
            in_node = ("exec", "--run", str(run.directory), "w01", "--")
            places.append(terminal.call(*in_node, "readlink", "/proc/self/ns/net"))
            bound = json.loads((run.directory / "binding.json").read_text())["nodes"]
            peers.append({about["peer_id"] for about in bound.values()})
        assert [status for status, _ in places] == [0, 0]
        assert places[0] != places[1]
        assert peers[0].isdisjoint(peers[1])

        status, said = terminal.exec("w01", "true")
        assert status == 64
        assert "several runs are living" in said
        assert f"{kept.id}  {kept.directory}\n" in said
        assert f"{second.id}  {second.directory}\n" in said

        secrets = Path(second.record["secrets"])
        assert secrets.is_dir()
        second.process.kill()
        second.process.communicate(timeout=CALL_S)
        assert terminal.call("down", "--run", str(second.directory))[0] == 0
        assert not secrets.exists()
        assert [one["run"] for one in terminal.recorded()] == [kept.id]
    finally:
        second.end()
    elsewhere.wait_no_process(END_S)
    assert terminal.exec("w01", "true") == (0, "")  # the first has not noticed


def test_another_seed_gives_another_model(kept: Kept, terminal: Terminal, tmp_path: Path) -> None:
    """The same one gave the same: the second run above."""
    with Terminal(tmp_path, terminal.registry).start("run", str(TINY), "--seed", "8") as process:
        said, _ = process.communicate(timeout=RUN_S)
    assert process.returncode == 0, said
    other = json.loads((tmp_path / "runs" / "tiny" / "latest" / "results.json").read_text())
    assert other["seed"] == 8
    assert other["final_model_cid"] != kept.results["final_model_cid"]


def test_down_ends_the_run_in_order_and_leaves_nothing(kept: Kept, terminal: Terminal) -> None:
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
    assert not secrets.exists()
    assert terminal.recorded() == []
    assert terminal.call("down") == (0, "no run is living\n")
    assert terminal.call("down", "--run", kept.id) == (0, f"no run {kept.id} is living\n")

    # What is left is the directory, which has the logs now; and nothing to enter.
    status, said = terminal.call("logs", "w01", "--run", "tiny")
    assert (status, "w01/ipfs | Daemon is ready" in said) == (0, True)
    status, said = terminal.exec("w01", "true")
    assert status == 64
    assert "no run is living\n  start one that stays: shoal run SCENARIO --keep" in said


def test_every_event_is_of_the_table(kept: Kept) -> None:
    for event in history(kept):
        if event["node"] != "orchestrator":
            assert set(event) - {"kind", "node", "wall", "mono_ns"} == set(
                events.EVENTS[event["kind"]].split()
            )


def test_the_directory_describes_the_run_and_holds_no_secret(kept: Kept) -> None:
    for name in ("scenario.yaml", "plan.json", "binding.json", "facts.json", "report.txt", "README.md"):
        assert (kept.directory / name).is_file(), name
    assert any((kept.directory / "series").iterdir())
    assert (kept.directory / "chain" / "head").is_file()
    everything = b"".join(file.read_bytes() for file in kept.directory.rglob("*") if file.is_file())
    for secret in (b"/key/swarm/psk", b"PrivKey", b"Bearer "):
        assert secret not in everything
