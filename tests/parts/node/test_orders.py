"""Orders to a supervisor of real forks: parts killed, paused and started, told as such, and nothing else broken."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import stat
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from node.cgroup import MEMBERS, Group
from node.contract.settings import ORDERS_SOCKET
from node.events import Events
from node.fork import Signals, exit_status, fork
from node.orders import Orders
from node.part import Forked
from node.process import ProcessId
from node.supervisor import supervise

WAIT_S = 20.0


def until_term() -> int:
    with Signals(signal.SIGTERM) as signals:
        print("ready")
        while signal.SIGTERM not in signals.wait(WAIT_S):
            pass
    return 0


class Node:
    """A supervisor of two parts, in a child of its own, that takes orders."""

    def __init__(self, folder: Path, groups: Sequence[Group] = ()) -> None:
        self.folder = folder
        self.events = Events(folder / "events.jsonl", "w1")
        self.socket = folder / ORDERS_SOCKET
        parts = [
            Forked("agent", until_term, self.events),
            Forked("trainer", until_term, self.events, is_role=True),
        ]
        log = folder / "node.log"
        self.id = fork(lambda: supervise(parts, self.events, groups, self.socket), log=log)
        wait_until(lambda: len(self.told("part_started")) == 2)

    def told(self, kind: str, part: str | None = None) -> list[dict[str, Any]]:
        lines = self.events.path.read_text().splitlines() if self.events.path.exists() else []
        return [e for e in map(json.loads, lines) if e["kind"] == kind and part in (None, e["part"])]

    def is_ready(self, part: str) -> bool:
        """Whether it would end in order by now."""
        log = self.folder / f"{part}.log"
        return log.exists() and "ready" in log.read_text()

    def process(self, part: str) -> ProcessId:
        newest = self.told("part_started", part)[-1]
        return ProcessId(newest["pid"], newest["start_ticks"])

    def say(self, line: bytes) -> dict[str, Any]:
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(WAIT_S)
            link.connect(str(self.socket))
            link.sendall(line)
            answer: dict[str, Any] = json.loads(link.makefile("rb").readline() or b"null")
            return answer

    def order(self, verb: str, part: str) -> dict[str, Any]:
        return self.say(json.dumps({"order": verb, "part": part}).encode() + b"\n")

    def wait_exit(self) -> int:
        status: list[int] = []

        def has_ended() -> bool:
            status.extend(s for s in [exit_status(self.id.pid)] if s is not None)
            return bool(status)

        wait_until(has_ended)
        return status[0]


def wait_until(condition: Any) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.005)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    one = Node(tmp_path)
    yield one
    one.id.signal(signal.SIGKILL)


def test_a_part_is_killed_and_stays_dead_until_it_is_started(node: Node) -> None:
    before = node.process("trainer")
    assert node.order("kill", "trainer") == {"state": "ended"}
    assert not before.is_alive()
    (ended,) = node.told("part_ended")
    assert (ended["part"], ended["status"], ended["expected"]) == ("trainer", -signal.SIGKILL, True)
    assert node.order("kill", "trainer") == {"state": "ended"}
    assert node.order("state", "agent") == {"state": "running"}
    assert len(node.told("part_started", "trainer")) == 1
    assert node.order("start", "trainer") == {"state": "running"}
    assert node.process("trainer") != before
    assert node.process("trainer").is_alive()
    assert node.order("start", "trainer") == {"state": "running"}
    assert len(node.told("part_started", "trainer")) == 2


def test_a_part_is_paused_and_goes_on(node: Node) -> None:
    trainer = node.process("trainer")
    node.order("pause", "trainer")
    wait_until(lambda: node.order("state", "trainer") == {"state": "paused"})
    assert trainer.is_stopped()
    node.order("resume", "trainer")
    wait_until(lambda: node.order("state", "trainer") == {"state": "running"})
    assert trainer.is_alive()
    assert node.told("part_ended") == []


def test_the_last_part_that_is_killed_by_order_does_not_end_the_node(node: Node) -> None:
    node.order("kill", "trainer")
    node.order("kill", "agent")
    assert node.order("state", "node") == {"state": "ended"}
    assert node.order("start", "node") == {"state": "running"}
    assert node.process("agent").is_alive()
    node.id.signal(signal.SIGTERM)
    assert node.wait_exit() == 0


def test_a_paused_part_ends_in_order_with_its_node(node: Node) -> None:
    wait_until(lambda: node.is_ready("trainer") and node.is_ready("agent"))
    node.order("pause", "node")
    wait_until(lambda: node.process("trainer").is_stopped() and node.process("agent").is_stopped())
    node.id.signal(signal.SIGTERM)
    assert node.wait_exit() == 0
    assert [(e["part"], e["status"]) for e in node.told("part_ended")] == [("trainer", 0), ("agent", 0)]
    assert not node.socket.exists()


def test_a_node_that_is_killed_takes_its_parts_along_and_its_socket_is_taken_over(node: Node) -> None:
    parts = [node.process(part) for part in ("agent", "trainer")]
    assert node.order("kill", "node") is None
    assert node.wait_exit() == -signal.SIGKILL
    wait_until(lambda: not any(part.is_alive() for part in parts))
    assert node.told("part_ended") == []
    assert node.socket.exists()
    node.events.path.unlink()
    again = Node(node.folder)
    try:
        assert again.order("state", "node") == {"state": "running"}
    finally:
        again.id.signal(signal.SIGKILL)


def test_a_part_that_dies_of_itself_is_not_called_expected(node: Node) -> None:
    node.process("trainer").signal(signal.SIGKILL)
    wait_until(lambda: node.told("part_ended"))
    assert node.told("part_ended")[0]["expected"] is False
    assert node.order("start", "trainer") == {"state": "ended"}  # nobody killed it by order


def test_only_its_owner_may_order(node: Node) -> None:
    assert stat.S_IMODE(os.stat(node.socket).st_mode) == 0o600


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"kill trainer\n", "no line of JSON"),
        (b'{"order": "kill"}\n', "no order"),
        (b'{"order": "stab", "part": "trainer"}\n', "no order 'stab'"),
        (b'{"order": "kill", "part": "ipfs"}\n', "no part 'ipfs', only agent, trainer"),
        (b"x" * 2000, "no line of JSON"),
    ],
)
def test_what_is_no_order_is_refused_and_breaks_nothing(node: Node, line: bytes, said: str) -> None:
    assert said in node.say(line)["error"]
    assert node.order("state", "node") == {"state": "running"}


def test_why_the_kernel_lets_no_part_be_started_is_told(tmp_path: Path) -> None:
    def obey(*_: str) -> str:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    with Orders(tmp_path / ORDERS_SOCKET) as orders, socket.socket(socket.AF_UNIX) as link:
        link.settimeout(WAIT_S)
        link.connect(str(tmp_path / ORDERS_SOCKET))
        link.sendall(b'{"order": "start", "part": "trainer"}\n')
        orders.serve(obey)
        assert json.loads(link.recv(1000)) == {"error": "Resource temporarily unavailable"}


def test_who_says_nothing_is_not_waited_for(node: Node) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.connect(str(node.socket))
        assert node.order("state", "agent") == {"state": "running"}


def test_a_part_that_is_started_again_belongs_to_its_groups(tmp_path: Path) -> None:
    group, home = tmp_path / "group", tmp_path / "home"
    for folder in (group, home):
        folder.mkdir()
    node = Node(tmp_path, [Group(str(group), str(home))])
    try:
        node.order("kill", "trainer")
        (group / MEMBERS).unlink()
        node.order("start", "trainer")
        assert (group / MEMBERS).read_text() == (home / MEMBERS).read_text() == str(node.id.pid)
        (group / MEMBERS).unlink()
        node.order("kill", "agent")
        node.order("start", "agent")
        assert not (group / MEMBERS).exists()
    finally:
        node.id.signal(signal.SIGKILL)
