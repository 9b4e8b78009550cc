"""The driver's side of the zygote's socket, with a zygote that says what the test wants."""

from __future__ import annotations

import json
import queue
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from node.contract import ShoalError
from orchestrator.boxes.box import Box
from orchestrator.boxes.netns import NetnsFleet
from orchestrator.process import Process
from tests.unit.orchestrator.test_schedule import plan_of

SOON_S = 10.0


class EndedProcess:
    """A zygote's process that was ended by SIGTERM, or still lives."""

    status: int | None = -15

    def wait(self, timeout_s: float) -> int:
        assert 0 < timeout_s <= SOON_S
        if self.status is None:
            raise subprocess.TimeoutExpired("zygote", timeout_s)
        return self.status


class FakeZygote:
    """Forks nothing: answers each request as it was told."""

    def __init__(self, folder: Path) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / "zygote.sock"))
        self._listener.listen()

    def accept(self) -> None:
        self.link, _ = self._listener.accept()
        self.lines = self.link.makefile("rwb")

    def answer(self, **said: Any) -> None:
        request = json.loads(self.lines.readline())
        self.tell(node=request["node"], **said)

    def tell(self, **said: Any) -> None:
        self.lines.write(json.dumps(said).encode() + b"\n")
        self.lines.flush()

    def die(self) -> None:
        self.lines.close()
        self.link.close()
        self._listener.close()


class Driven:
    def __init__(self, folder: Path) -> None:
        self.ended: queue.Queue[tuple[str, int, str]] = queue.Queue()
        self.fleet = NetnsFleet(
            cast(Box, None),
            plan_of(),
            folder,
            folder,
            lambda name, status: self.ended.put((name, status, "node")),
            zygote_ended=lambda name, status: self.ended.put((name, status, "zygote")),
        )
        (folder / "zygote.log").write_text("its last words\n")
        self.zygote = FakeZygote(folder)
        self.process = EndedProcess()
        self.fleet._zygote_process = cast(Process, self.process)
        self.fleet._importing.put(b"ready\n")
        self.fleet.wait_zygote(SOON_S)
        self.zygote.accept()
        self._settings = folder / "s.json"

    def start(self, name: str, **answer: Any) -> dict[str, Any]:
        answering = threading.Thread(target=self.zygote.answer, kwargs=answer)
        answering.start()
        try:
            return self.fleet.start_node(name, self._settings)
        finally:
            answering.join(SOON_S)


@pytest.fixture
def driven(tmp_path: Path) -> Iterator[Driven]:
    one = Driven(tmp_path)
    yield one
    one.zygote.die()
    assert one.fleet._zygote is not None
    one.fleet._zygote.close()


def test_what_a_zygote_cannot_do_is_told_with_its_reason(driven: Driven) -> None:
    assert driven.start("w01", pid=7, start_ticks=70)["pid"] == 7
    with pytest.raises(ShoalError, match=r"node w02 was not forked: cannot read s\.json"):
        driven.start("w02", error="cannot read s.json")


def test_a_node_that_ends_as_soon_as_it_is_forked_is_not_taken_for_a_living_one(driven: Driven) -> None:
    class Late(queue.Queue[dict[str, Any]]):
        """Its reader comes to the answer only when the node's end has been heard."""

        def get(self, block: bool = True, timeout: float | None = None) -> dict[str, Any]:
            answer = super().get(block, timeout)
            driven.zygote.tell(exited="w01", status=1)
            assert driven.ended.get(timeout=SOON_S) == ("w01", 1, "node")
            return answer

    driven.fleet._answers = Late()
    driven.start("w01", pid=7, start_ticks=70)
    assert not driven.fleet.is_forked("w01")


def test_of_a_zygote_that_dies_every_node_that_still_lived_is_lost(driven: Driven) -> None:
    for name in ("w02", "agg", "w01"):
        driven.start(name, pid=7, start_ticks=70)
    driven.zygote.tell(exited="w01", status=1)
    assert driven.ended.get(timeout=SOON_S) == ("w01", 1, "node")
    driven.zygote.die()
    lost = [driven.ended.get(timeout=SOON_S) for _ in range(2)]
    assert lost == [("agg", -15, "zygote"), ("w02", -15, "zygote")]
    with pytest.raises(ShoalError, match=r"node w03 was not forked: .*\nits last words"):
        driven.fleet.start_node("w03", Path("s.json"))


def test_of_a_zygote_that_only_fell_silent_no_signal_is_made_up(driven: Driven) -> None:
    driven.start("w01", pid=7, start_ticks=70)
    driven.process.status = None
    driven.zygote.die()
    assert driven.ended.get(timeout=SOON_S) == ("w01", 70, "zygote")


def test_the_end_of_the_box_is_no_loss(driven: Driven) -> None:
    driven.start("w01", pid=7, start_ticks=70)
    driven.fleet.leave()
    driven.zygote.die()
    with pytest.raises(ShoalError, match="not forked"):  # the end has been heard by then
        driven.fleet.start_node("w02", Path("s.json"))
    assert driven.ended.empty()
