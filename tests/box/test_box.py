"""The box from outside: what runs in it, where, and how it ends. Also run again as an unprivileged user."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.contract import ExitCode, HostError, ShoalError, UsageError
from orchestrator.boxes.box import Box, Node
from orchestrator.process import CommandFailedError, Identity, children_of

TOP = Path(__file__).resolve().parents[2]
SOON_S = 20.0

SERVER = """
import socket
server = socket.create_server(("0.0.0.0", 7000))
print("ready", flush=True)
while True:
    peer, address = server.accept()
    peer.sendall(address[0].encode())
    peer.close()
"""
CLIENT = "import socket, sys; print(socket.create_connection((sys.argv[1], 7000), 2).recv(99).decode())"


@pytest.fixture
def box() -> Iterator[Box]:
    with Box.open() as opened:
        yield opened


def two_nodes(box: Box) -> tuple[Node, Node]:
    box.add_bridge("data")
    return box.add_node("w1", {"data": "10.77.0.1/24"}), box.add_node("w2", {"data": "10.77.0.2/24"})


def serve(node: Node) -> None:
    """Start the server in a node and wait until it listens."""
    server = node.start([sys.executable, "-c", SERVER], stdout=subprocess.PIPE)
    assert server.stdout is not None
    with server.stdout:
        assert server.stdout.readline() == b"ready\n"


def ask(node: Node, address: str) -> str:
    return node.run([sys.executable, "-c", CLIENT, address], timeout_s=SOON_S).stdout.strip()


def wait_gone(identities: list[Identity], timeout_s: float) -> list[Identity]:
    """Wait for the end of processes that are not our children; those that did not end."""
    left = []
    for identity in identities:
        try:
            descriptor = os.pidfd_open(identity.pid)
        except ProcessLookupError:
            continue
        try:
            if identity.is_alive() and not select.select([descriptor], [], [], timeout_s)[0]:
                left.append(identity)
        finally:
            os.close(descriptor)
    return left


def inhabitants(namespace: str) -> list[int]:
    """Who is in this network namespace, of those that we may look at."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/ns/net"):
        try:
            if os.readlink(entry) == namespace:
                found.append(int(entry.parts[2]))
        except (PermissionError, FileNotFoundError, ProcessLookupError):
            continue
    return found


def test_nodes_reach_each_other_over_the_bridge(box: Box) -> None:
    first, second = two_nodes(box)
    serve(first)
    assert ask(second, first.address("data")) == "10.77.0.2"


def test_a_node_has_its_own_interfaces_and_no_way_out(box: Box) -> None:
    first, _ = two_nodes(box)
    links = json.loads(first.run(["ip", "-json", "address"], timeout_s=SOON_S).stdout)
    assert {link["ifname"] for link in links} == {"lo", "data"}
    assert {a["local"] for link in links for a in link["addr_info"]} == {"127.0.0.1", "10.77.0.1"}
    routes = json.loads(first.run(["ip", "-json", "route"], timeout_s=SOON_S).stdout)
    assert [route["dst"] for route in routes] == ["10.77.0.0/24"]


def test_the_box_has_its_own_processes_name_and_run(box: Box) -> None:
    said = box.run(
        ["sh", "-c", "hostname; id -u; cat /proc/1/cmdline | tr '\\0' ' '; echo; pwd; ls /run"],
        timeout_s=SOON_S,
    )
    name, user, init, folder = said.stdout.splitlines()
    assert (name, user, folder) == ("shoal", "0", os.getcwd())
    assert "init.py" in init


def test_statuses_and_output_come_back(box: Box) -> None:
    done = box.run(["sh", "-c", "cat; echo bad >&2; exit 7"], input_text="in", timeout_s=SOON_S, check=False)
    assert (done.status, done.stdout, done.stderr) == (7, "in", "bad\n")
    with pytest.raises(CommandFailedError, match=r"`sh -c .*` ended with 7: bad"):
        box.run(["sh", "-c", "echo bad >&2; exit 7"], timeout_s=SOON_S)


def test_a_signal_reaches_the_program_not_its_relay(box: Box) -> None:
    script = "sleep 1000 >&- & trap 'kill $!; echo tidied; exit 5' TERM; echo ready; wait"
    program = box.start(["sh", "-c", script], stdout=subprocess.PIPE)
    assert program.stdout is not None
    with program.stdout:
        assert program.stdout.readline() == b"ready\n"
        program.terminate()
        assert program.wait(SOON_S) == 5
        assert program.stdout.read() == b"tidied\n"


def test_a_program_that_dies_by_a_signal_says_so(box: Box) -> None:
    assert box.run(["sh", "-c", "kill -9 $$"], timeout_s=SOON_S, check=False).status == -signal.SIGKILL


def test_the_program_ends_with_its_relay(box: Box) -> None:
    program = box.start(["sh", "-c", "echo; exec sleep 1000"], stdout=subprocess.PIPE)
    assert program.stdout is not None
    with program.stdout:
        program.stdout.readline()
        inner = Identity.of(children_of(program.pid)[0])
        assert inner is not None
        os.kill(program.pid, signal.SIGKILL)
        assert wait_gone([inner], SOON_S) == []


def test_a_command_that_does_not_end_is_ended(box: Box) -> None:
    with pytest.raises(CommandFailedError, match="did not end within") as caught:
        box.run(["sh", "-c", "exec sleep 4242"], timeout_s=0.2)
    assert caught.value.status is None
    left = box.run(["sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"], timeout_s=SOON_S).stdout
    assert "sleep 4242" not in left.replace("cat", "")


def test_a_stray_grandchild_that_holds_the_output_is_not_waited_for(box: Box) -> None:
    assert box.run(["sh", "-c", "sleep 1000 & echo said"], timeout_s=SOON_S).stdout == "said\n"


def test_nothing_in_the_box_holds_our_streams(box: Box) -> None:
    assert box.init is not None
    program = box.start(["sleep", "1000"])
    # Our own streams are pytest's; whatever they are, none of them is /dev/null opened by somebody else.
    for pid in (box.init.pid, program.pid):
        assert os.readlink(f"/proc/{pid}/fd/0") == "/dev/null"
        assert os.readlink(f"/proc/{pid}/fd/1") == "/dev/null"
    assert os.readlink(f"/proc/{program.pid}/fd/2") == "/dev/null"


def test_two_boxes_at_once_do_not_meet() -> None:
    with Box.open() as one, Box.open() as other:
        first, _ = two_nodes(one)
        _, stranger = two_nodes(other)
        serve(first)
        # The same address is there too, and nobody listens on it.
        with pytest.raises(CommandFailedError, match="Connection refused"):
            ask(stranger, first.address("data"))


def test_closing_ends_all_that_is_inside(box: Box) -> None:
    with Box.open() as closing:
        assert closing.init is not None
        namespace = os.readlink(f"/proc/{closing.init.pid}/ns/net")
        program = closing.start(["setsid", "--wait", "sleep", "1000"])
        assert closing.init.pid in inhabitants(namespace)
    assert program.returncode == -signal.SIGKILL
    assert not closing.init.is_alive()
    assert inhabitants(namespace) == []
    with pytest.raises(ShoalError, match="The box has ended"):
        closing.run(["true"], timeout_s=SOON_S)


PARENT = """
import json, os, signal, subprocess, sys
from orchestrator.boxes.box import Box
from orchestrator.process import children_of

with Box.open() as box:
    script = "setsid sleep 1000 & setsid --fork sleep 1000; echo; wait"
    program = box.start(["sh", "-c", script], stdout=subprocess.PIPE)
    program.stdout.readline()
    twin = os.fork() if sys.argv[1] == "twin" else 0
    if sys.argv[1] == "twin" and twin == 0:
        signal.pause()  # holds the lifeline open, so that the parent-death signal alone must do it
    here = os.readlink(f"/proc/{box.init.pid}/ns/pid")
    inside = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.readlink(f"/proc/{pid}/ns/pid") == here:
                inside.append(int(pid))
        except (PermissionError, FileNotFoundError):
            pass
    net = os.readlink(f"/proc/{box.init.pid}/ns/net")
    print(json.dumps({"inside": inside, "net": net, "outside": [program.pid], "twin": twin}), flush=True)
    signal.pause()
"""


@pytest.mark.parametrize("kind", ["alone", "twin"])
def test_kill_9_of_the_orchestrator_leaves_nothing(kind: str) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, kind], cwd=TOP, stdout=subprocess.PIPE)
    assert parent.stdout is not None
    with parent.stdout:
        told = json.loads(parent.stdout.readline())
        found = [Identity.of(pid) for pid in told["inside"] + told["outside"]]
        identities = [identity for identity in found if identity is not None]
        # init, the shell, two sleepers in sessions of their own, and the relay outside.
        assert len(identities) >= 5
        assert inhabitants(told["net"])
        parent.kill()
        parent.wait(SOON_S)
        try:
            assert wait_gone(identities, SOON_S) == []
            assert inhabitants(told["net"]) == []
        finally:
            if told["twin"]:
                os.kill(told["twin"], signal.SIGKILL)


def box_run(*command: str) -> subprocess.Popen[bytes]:
    """The command line, in a process group of its own as a terminal would give it."""
    return subprocess.Popen(
        [sys.executable, "-m", "orchestrator.boxes.box", "run", "--", *command],
        cwd=TOP,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


@pytest.mark.parametrize(
    ("script", "status"),
    [("cat; exit 5", 5), ("cat; exit 0", 0), ("cat; kill -9 $$", 137), ("cat; exec /no/such/program", 127)],
)
def test_the_command_line_passes_streams_and_status(script: str, status: int) -> None:
    with box_run("sh", "-c", script) as run:
        said, _ = run.communicate(b"through", SOON_S)
    assert (said, run.returncode) == (b"through", status)


@pytest.mark.parametrize(("reaction", "status"), [("trap 'echo bye; exit 5' INT", 5), (":", 130)])
def test_ctrl_c_reaches_the_command_which_may_tidy_up(reaction: str, status: int) -> None:
    with box_run("sh", "-c", f"{reaction}; echo ready; read line; read line") as run:
        assert run.stdout is not None
        assert run.stdin is not None
        assert run.stdout.readline() == b"ready\n"
        os.killpg(run.pid, signal.SIGINT)
        assert run.wait(SOON_S) == status
        assert run.stdout.read() == (b"bye\n" if status == 5 else b"")


def test_current_is_refused_outside_a_box(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SHOAL_BOX", raising=False)
    with pytest.raises(UsageError, match="inside a box"):
        Box.current()


def test_a_wrong_call_teaches() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "orchestrator.boxes.box", "walk"], cwd=TOP, stderr=subprocess.PIPE
    ) as run:
        assert b"run -- COMMAND" in run.communicate(timeout=SOON_S)[1]
    assert run.returncode == ExitCode.USAGE


def fake_program(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("program", "script", "complaint"),
    [
        ("unshare", "echo refused >&2; exit 1", "making namespaces failed: refused"),
        ("mount", '[ "$2" != proc ] || { echo masked >&2; exit 1; }', "mounting /proc failed: masked"),
        (
            "ip",
            "echo no such device >&2; exit 1",
            "bringing up the loopback interface failed: no such device",
        ),
    ],
)
def test_a_failing_step_is_named_with_a_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, script: str, complaint: str
) -> None:
    fake_program(tmp_path, program, script)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(HostError, match=complaint) as caught, Box.open():
        pass
    assert caught.value.hint


def test_a_network_command_that_fails_is_named(box: Box) -> None:
    box.add_bridge("data")
    with pytest.raises(HostError, match=r"`ip link add data type bridge .*`: .*File exists"):
        box.add_bridge("data")
    with pytest.raises(HostError, match=r"`ip link set ctl-w1 master ctl up`"):
        box.add_node("w1", {"ctl": "10.78.0.1/24"})
