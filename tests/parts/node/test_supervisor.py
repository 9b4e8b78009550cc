"""Real forks of small functions: what a part is told, what is told of it, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from node.cgroup import MEMBERS, Group
from node.contract import ExitCode, HostError
from node.events import Events
from node.fork import Signals, exit_status, fork
from node.part import Forked, Part
from node.process import ProcessId
from node.supervisor import supervise

TOP = Path(__file__).resolve().parents[3]
WAIT_S = 20.0


@pytest.fixture
def events(tmp_path: Path) -> Events:
    return Events(tmp_path / "events.jsonl", "w1")


def told(events: Events, kind: str) -> list[dict[str, Any]]:
    lines = events.path.read_text().splitlines() if events.path.exists() else []
    return [event for event in map(json.loads, lines) if event["kind"] == kind]


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.005)


def until_term() -> int:
    """A part that ends well when it is told to."""
    with Signals(signal.SIGTERM) as signals:
        while signal.SIGTERM not in signals.wait(WAIT_S):
            pass
    return 0


def deaf() -> int:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("deaf", flush=True)
    time.sleep(WAIT_S)
    return 0


def fails() -> NoReturn:
    raise HostError("no disk", "buy one")


def breaks() -> NoReturn:
    raise ZeroDivisionError("oh")


class Node:
    """A supervisor in a child of its own, as a zygote would fork it."""

    def __init__(self, events: Events, *parts: Part) -> None:
        self.events = events
        log = events.path.with_name("node.log")
        self.id = fork(lambda: supervise(parts, events), log=log)

    def wait_started(self, count: int) -> None:
        wait_until(lambda: len(told(self.events, "part_started")) == count)

    def wait_exit(self) -> int:
        status: list[int] = []

        def has_ended() -> bool:
            status.extend(s for s in [exit_status(self.id.pid)] if s is not None)
            return bool(status)

        wait_until(has_ended)
        return status[0]


@pytest.fixture
def start(events: Events) -> Iterator[Callable[..., Node]]:
    nodes: list[Node] = []

    def one(*parts: Part) -> Node:
        nodes.append(Node(events, *parts))
        return nodes[-1]

    yield one
    for node in nodes:
        node.id.signal(signal.SIGKILL)


def test_term_ends_roles_before_the_daemon_and_the_agent_last(
    events: Events, start: Callable[..., Node]
) -> None:
    agent = Forked("agent", until_term, events)
    ipfs = Forked("ipfs", until_term, events)
    role = Forked("trainer", until_term, events, is_role=True)
    node = start(agent, ipfs, role)
    node.wait_started(3)
    node.id.signal(signal.SIGTERM)
    assert node.wait_exit() == 0
    assert [e["part"] for e in told(events, "part_started")] == ["agent", "ipfs", "trainer"]
    ends = told(events, "part_ended")
    assert [e["part"] for e in ends] == ["trainer", "ipfs", "agent"]
    assert all(e["expected"] for e in ends)
    for event in told(events, "part_started"):
        assert not ProcessId(event["pid"], event["start_ticks"]).is_alive()


def test_a_role_may_end_by_itself_and_the_others_go_on(events: Events, start: Callable[..., Node]) -> None:
    node = start(Forked("agent", until_term, events), Forked("trainer", lambda: 0, events, is_role=True))
    wait_until(lambda: bool(told(events, "part_ended")))
    (ended,) = told(events, "part_ended")
    assert (ended["part"], ended["status"], ended["expected"]) == ("trainer", 0, True)
    assert node.id.is_alive()
    node.id.signal(signal.SIGTERM)
    assert node.wait_exit() == 0


@pytest.mark.parametrize(
    ("run", "status", "message", "hint"),
    [(fails, 69, "no disk", "buy one"), (breaks, 70, "ZeroDivisionError: oh", "see trainer.log")],
)
def test_a_part_that_fails_is_told_with_its_cure(
    events: Events, start: Callable[..., Node], run: Callable[[], int], status: int, message: str, hint: str
) -> None:
    assert start(Forked("trainer", run, events, is_role=True)).wait_exit() == status
    (failed,) = told(events, "failed")
    assert (failed["part"], failed["message"], failed["hint"]) == ("trainer", message, hint)
    (ended,) = told(events, "part_ended")
    assert (ended["status"], ended["expected"]) == (status, False)
    assert message.partition(": ")[0] in events.path.with_name("trainer.log").read_text()


def test_a_killed_part_is_told_by_its_signal(events: Events, start: Callable[..., Node]) -> None:
    node = start(Forked("ipfs", until_term, events), Forked("agent", until_term, events))
    node.wait_started(2)
    killed = told(events, "part_started")[0]
    ProcessId(killed["pid"], killed["start_ticks"]).signal(signal.SIGKILL)
    wait_until(lambda: bool(told(events, "part_ended")))
    (ended,) = told(events, "part_ended")
    assert (ended["part"], ended["status"], ended["expected"]) == ("ipfs", -9, False)
    node.id.signal(signal.SIGTERM)
    assert node.wait_exit() == ExitCode.BUG


def test_a_part_that_does_not_listen_is_killed(
    events: Events, start: Callable[..., Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.part.PART_STOP_S", 0.05)
    node = start(Forked("trainer", deaf, events, is_role=True))
    log = events.path.with_name("trainer.log")
    wait_until(lambda: log.exists() and "deaf" in log.read_text())
    node.id.signal(signal.SIGTERM)
    node.wait_exit()
    assert [e["status"] for e in told(events, "part_ended")] == [-9]


class Unstartable(Part):
    name = "ipfs"

    def start(self) -> ProcessId:
        raise HostError("port 5001 is taken", "end who has it")

    def poll(self) -> int | None:
        raise AssertionError("it never started")

    def stop(self, signals: Signals, /) -> int:
        raise AssertionError("it never started")


def test_what_cannot_start_is_told_and_the_agent_stays_to_say_so(
    events: Events, start: Callable[..., Node]
) -> None:
    node = start(
        Forked("agent", until_term, events),
        Unstartable(),
        Forked("trainer", until_term, events, is_role=True),
    )
    wait_until(lambda: bool(told(events, "failed")))
    assert told(events, "failed")[0]["message"] == "port 5001 is taken"
    node.id.signal(signal.SIGTERM)
    assert node.wait_exit() == ExitCode.HOST
    assert [e["part"] for e in told(events, "part_started")] == ["agent"]


def test_parts_die_with_their_supervisor(events: Events, start: Callable[..., Node]) -> None:
    node = start(Forked("agent", deaf, events))
    node.wait_started(1)
    event = told(events, "part_started")[0]
    node.id.signal(signal.SIGKILL)
    part = ProcessId(event["pid"], event["start_ticks"])
    wait_until(lambda: not part.is_alive())


def test_a_child_has_no_socket_of_its_parent_and_a_group_of_its_own_in_its_session(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def look() -> int:
            sockets = [fd for fd in os.listdir("/proc/self/fd") if is_socket(fd)]
            is_led = os.getpgid(0) == os.getpid() and os.getsid(0) == os.getsid(os.getppid())
            return 7 if not sockets and is_led else 1

        assert is_socket(str(server.fileno()))
        child = fork(look, log=tmp_path / "log")
        assert os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1]) == 7


@pytest.mark.parametrize(("run", "status"), [(fails, ExitCode.HOST), (breaks, ExitCode.BUG)])
def test_a_child_that_has_no_room_for_its_last_words_ends_all_the_same(
    run: Callable[[], int], status: ExitCode
) -> None:
    parent = os.getpid()
    try:
        child = fork(run, log=Path("/dev/full"))
    finally:
        if os.getpid() != parent:
            os._exit(int(ExitCode.HELD))  # the child came back into our stack
    assert os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1]) == status


def is_socket(descriptor: str) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}").startswith("socket:")
    except FileNotFoundError:
        return False


# -- control groups
def test_all_but_the_agent_are_started_in_the_groups_and_the_supervisor_comes_out_again(
    events: Events, tmp_path: Path
) -> None:
    group, home = tmp_path / "group", tmp_path / "home"
    for folder in (group, home):
        folder.mkdir()

    agent = Forked("agent", lambda: 0, events)
    agent_only = fork(lambda: supervise([agent], events, [Group(str(group), str(home))]))
    wait_until(lambda: exit_status(agent_only.pid) is not None)
    assert not (group / MEMBERS).exists()
    trainer = Forked("trainer", lambda: 0, events, is_role=True)
    node = fork(lambda: supervise([trainer], events, [Group(str(group), str(home))]))
    wait_until(lambda: exit_status(node.pid) is not None)
    assert (group / MEMBERS).read_text() == (home / MEMBERS).read_text() == str(node.pid)


def test_a_group_that_cannot_be_entered_keeps_the_part_from_starting(events: Events, tmp_path: Path) -> None:
    groups = [Group(str(tmp_path / "gone"), str(tmp_path))]
    node = fork(lambda: supervise([Forked("trainer", lambda: 0, events, is_role=True)], events, groups))
    wait_until(lambda: exit_status(node.pid) is not None)
    (failed,) = told(events, "failed")
    assert failed["message"].startswith(f"cannot enter the control group {tmp_path}/gone")
    assert told(events, "part_started") == []


# -- the zygote


def test_a_zygote_answers_what_it_cannot_do_and_leaves_no_socket(tmp_path: Path) -> None:
    path = tmp_path / "z.sock"
    zygote = subprocess.Popen(
        [sys.executable, "-m", "node.zygote", str(path), "--import", "json"],
        cwd=TOP,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert zygote.stdout is not None
        assert zygote.stdout.readline() == b"ready\n"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(WAIT_S)
            link.connect(str(path))
            with link.makefile("rwb") as lines:
                for request, complaint in (
                    (b"{", "no line of JSON"),
                    (b"[1]", "expected an object"),
                    (b'{"settings": "/nowhere/s.json", "node": "w1"}', "cannot read /nowhere/s.json"),
                    (b'{"settings": "s", "node": "w1", "more": 1}', "more: unknown key"),
                ):
                    lines.write(request + b"\n")
                    lines.flush()
                    assert complaint in json.loads(lines.readline())["error"]
        zygote.send_signal(signal.SIGTERM)
        said = zygote.communicate(timeout=WAIT_S)
        assert (zygote.returncode, said) == (0, (b"", b""))
    finally:
        zygote.kill()
        zygote.wait()
    assert not path.exists()
