"""The near end of the keeper of control groups, with an engine that passes on what the test says."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from node.contract import ShoalError
from orchestrator.containers import keeper
from orchestrator.containers.groups import Layout
from orchestrator.containers.keeper import FRAME, STDOUT, Keeper

STDERR = 2


class Far:
    """A container and its streams."""

    def __init__(self) -> None:
        self.far, self._near = socket.socketpair()
        self._response = SimpleNamespace(close=self._near.close)  # as the SDK's socket has one
        container = SimpleNamespace(id="c1", start=lambda: None, logs=self._logs)
        self.client: Any = SimpleNamespace(
            containers=SimpleNamespace(create=lambda *_, **__: container),
            api=SimpleNamespace(attach_socket=lambda *_, **__: self),
        )

    def _logs(self, *, tail: int) -> bytes:
        assert tail > 0
        return b"no such hierarchy\n"

    def fileno(self) -> int:
        return self._near.fileno()

    def close(self) -> None:
        """The response is closed before."""

    def say(self, stream: int, said: bytes) -> None:
        self.far.sendall(FRAME.pack(stream, len(said)) + said)

    def answer(self, **found: Any) -> None:
        self.say(STDOUT, json.dumps({"error": None, **found}).encode() + b"\n")


@pytest.fixture
def far() -> Iterator[Far]:
    one = Far()
    yield one
    one.far.close()


@pytest.fixture
def near(far: Far, monkeypatch: pytest.MonkeyPatch) -> Iterator[Keeper]:
    monkeypatch.setattr(keeper, "ANSWER_S", 0.05)
    one = Keeper(far.client, "image", {}, Layout("cgroupfs", 1))
    yield one
    one.close()


def test_an_answer_may_come_in_pieces_between_complaints(far: Far, near: Keeper) -> None:
    far.say(STDERR, b"a warning\n")
    far.say(STDOUT, b'{"error": null, ')
    far.say(STDOUT, b'"files": {}}\n')
    assert near.ask(do="read")["files"] == {}
    assert json.loads(far.far.recv(1000)) == {"do": "read"}


def test_what_it_could_not_do_is_told_and_it_is_asked_again(far: Far, near: Keeper) -> None:
    far.answer(error="cpu.max: Invalid argument")
    with pytest.raises(ShoalError, match="Invalid argument"):
        near.ask(do="write")
    far.answer(files={})
    assert near.ask(do="read")["files"] == {}


def test_a_late_answer_is_not_taken_for_that_of_the_next_question(far: Far, near: Keeper) -> None:
    with pytest.raises(ShoalError, match=r"does not answer after 0\.05 s"):
        near.ask(do="read", group="w01")
    far.answer(files={"cpu.stat": "of w01"})
    with pytest.raises(ShoalError, match="does not answer"):
        near.ask(do="read", group="w02")


def test_one_that_has_ended_is_told_with_its_last_words(far: Far, near: Keeper) -> None:
    far.far.shutdown(socket.SHUT_WR)
    with pytest.raises(ShoalError, match="has ended: no such hierarchy"):
        near.ask(do="read")
