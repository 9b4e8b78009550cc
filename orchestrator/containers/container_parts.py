"""A node's parts as containers, for faults: kill, pause, resume, start, and how they are."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from docker.errors import APIError
from docker.models.containers import Container

from node.contract import ShoalError
from orchestrator.containers.containers import PART, Containers
from orchestrator.containers.dockerd import told
from orchestrator.faults.fault import PartState

HOLDER: Final = "holder"  # keeps the node's namespaces, with its links, whatever happens to the parts
WHOLE: Final = "node"  # of parts: all but the holder
STATES: Final[Mapping[str, PartState]] = {"running": "running", "paused": "paused"}
RANKS: Final[tuple[PartState, ...]] = ("running", "paused", "ended")
MOST_THREADS: Final = 8
POLL_S: Final = 0.02
END_S: Final = 20.0
CONFLICT: Final = 409  # it is so already, or it has just changed


class ContainerParts:
    """A PartControl. A part that is killed takes all of its container's processes with it."""

    def __init__(self, containers: Containers) -> None:
        self._containers = containers
        self._unheard: Counter[tuple[str, str]] = Counter()  # ordered deaths of which nobody has heard yet
        self._counting = threading.Lock()

    def explains(self, node: str, part: str) -> bool:
        """Whether a death that is heard of was ordered; that may be after the next start."""
        with self._counting:
            is_explained = self._unheard[node, part] > 0
            self._unheard[node, part] -= is_explained
        return is_explained

    def kill(self, node: str, part: str) -> None:
        parts = self._parts(node, part)
        # Known before it happens, since who hears of the death may ask at once.
        with self._counting:
            self._unheard.update((node, one.attrs["Labels"][PART]) for one in parts if state(one) != "ended")
        self._act(parts, "killed", lambda one: one.kill(), wanted={"ended"})

    def pause(self, node: str, part: str) -> None:
        self._act(self._parts(node, part), "paused", lambda one: one.pause(), wanted={"paused", "ended"})

    def resume(self, node: str, part: str) -> None:
        self._act(self._parts(node, part), "resumed", lambda one: one.unpause(), wanted={"running", "ended"})

    def start(self, node: str, part: str) -> None:
        self._act(self._parts(node, part), "started", lambda one: one.start(), wanted={"running", "paused"})

    def state(self, node: str, part: str) -> PartState:
        states = {state(one) for one in self._parts(node, part)}
        return next(rank for rank in RANKS if rank in states)

    def _parts(self, node: str, part: str) -> Sequence[Container]:
        if part != WHOLE:
            return [self._containers.one(node, part)]
        return [one for one in self._containers.of(node) if one.attrs["Labels"][PART] != HOLDER]

    def _act(
        self,
        parts: Sequence[Container],
        done: str,
        act: Callable[[Container], None],
        wanted: set[PartState],
    ) -> None:
        """Act on all of them at once, until the engine says that they are as wanted."""
        waiting = [one for one in parts if state(one) not in wanted]
        if not waiting:
            return
        with ThreadPoolExecutor(MOST_THREADS, thread_name_prefix="parts") as pool:
            list(pool.map(lambda one: attempt(one, act), waiting))
        deadline = time.monotonic() + END_S
        pause = threading.Event()
        while late := [one for one in waiting if self._now(one) not in wanted]:
            if time.monotonic() > deadline:
                names = ", ".join(one.attrs["Names"][0].removeprefix("/") for one in late)
                raise ShoalError(f"not {done} within {END_S:g} s: {names}")
            pause.wait(POLL_S)

    def _now(self, one: Container) -> PartState:
        return state(self._containers.again(one))


def attempt(one: Container, act: Callable[[Container], None]) -> None:
    """That it has changed meanwhile is no error: whether it is as wanted is asked afterwards."""
    with told(str(one.attrs["Names"][0])):
        try:
            act(one)
        except APIError as error:
            if error.status_code != CONFLICT:
                raise


def state(one: Container) -> PartState:
    return STATES.get(one.status, "ended")
