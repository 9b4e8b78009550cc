"""The containers of one run, by the Docker SDK: everything but up and down, which Compose does.

They are found by labels, so that what a killed run has left is found, too.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, Protocol, cast

from docker import DockerClient
from docker.models.containers import Container

from node.contract import HostError, ShoalError
from orchestrator.containers.dockerd import gone_is_fine, told

RUN: Final = "shoal.run"  # the run's ID, for people: runs that began in the same second share it
FLEET: Final = "shoal.fleet"  # the name of its folder of secrets, which no other run has
NODE: Final = "shoal.node"
PART: Final = "shoal.part"

POLL_S: Final = 0.2
REMOVE_S: Final = 60.0
EMPTY_NETWORK_S: Final = 5.0
NETWORK: Final = "network "
MISCOUNTED: Final = (
    "nobody is in them, but an old engine may have miscounted; when it was restarted, the next command of "
    "shoal removes them: sudo systemctl restart docker"
)
MOST_THREADS: Final = 8
TAIL_LINES: Final = 8
LOOP_RESTARTS: Final = 2  # once may be bad luck


@dataclass(frozen=True)
class Seen:
    """A container as it was a moment ago; the gate's and Prometheus' belong to no node."""

    id: str
    node: str
    part: str
    status: str  # the engine's own word: created, running, paused, restarting, exited, dead

    @property
    def name(self) -> str:
        return "-".join(filter(None, (self.node, self.part)))


@dataclass(frozen=True)
class Death:
    """A container has ended, whoever was to blame."""

    node: str
    part: str
    status: int
    for_memory: bool  # the kernel killed something in it that wanted too much


class Containers:
    """A run's containers, networks and volumes."""

    def __init__(self, client: DockerClient, run: str, fleet: str) -> None:
        self._client, self.run, self.fleet = client, run, fleet

    @property
    def labels(self) -> dict[str, str]:
        """What everything that a run makes must bear."""
        return {RUN: self.run, FLEET: self.fleet}

    def all(self) -> list[Seen]:
        """All of them, also those that have ended, in order of name."""
        return sorted((seen(one) for one in self._found({})), key=lambda one: one.name)

    def wait_healthy(self, names: Collection[str], timeout_s: float) -> None:
        """Until these are what their health checks call healthy; whatever ends before is told at once."""
        deadline = time.monotonic() + timeout_s
        pause = threading.Event()
        while True:
            self.check_alive()
            waiting = {one.name for one in self.all() if one.name in names and not self._is_healthy(one)}
            waiting |= set(names) - {one.name for one in self.all()}
            if not waiting:
                return
            if time.monotonic() > deadline:
                first = min(waiting)
                raise HostError(f"{first} is not ready after {timeout_s:g} s; {self._said(first)}")
            pause.wait(POLL_S)

    def check_alive(self) -> None:
        """HostError with its last words when one has ended, or is started again and again."""
        for one in self.all():
            if one.status in ("exited", "dead"):
                code = self._inspect(one.id)["State"].get("ExitCode")
                raise HostError(f"the container of {one.name} ended with {code}; {self._said(one.name)}")
            if one.status == "restarting" or self._restarts(one) > LOOP_RESTARTS:
                raise HostError(
                    f"the container of {one.name} is started again and again; {self._said(one.name)}"
                )

    def watch(self, heard: Callable[[Death], None], lost: Callable[[], None]) -> Watch:
        """Tell every death in a thread until the watch is closed; `lost` when the engine hangs up before."""
        filters = {"type": "container", "event": ["die", "oom"], "label": f"{FLEET}={self.fleet}"}
        with told("its events"):
            stream = self._client.events(decode=True, filters=filters)
        return Watch(stream, heard, lost)

    def memory_bytes(self, node: str, part: str) -> int:
        """What it takes now."""
        with told(f"{node}-{part}"):
            stats = self.one(node, part).stats(stream=False, one_shot=True)
        return memory_bytes(cast("Mapping[str, Any]", stats))  # of a stream there is no question

    def tail(self, node: str, part: str, lines: int = TAIL_LINES) -> str:
        """The last lines that it said."""
        return self._tail(self.one(node, part), lines)

    def ask(self, node: str, part: str, argv: Sequence[str]) -> str:
        """What a program says that is run in it."""
        with told(part):
            status, said = self.one(node, part).exec_run(list(argv))
        text = cast("bytes", said).decode(errors="replace")  # of a stream there is no question
        if status != 0:
            raise HostError(f"`{' '.join(argv)}` ended with {status}: {text}")
        return text

    def remove(self, timeout_s: float = REMOVE_S) -> None:
        """Everything of this run, by force; what is gone already is no error, what stays is one."""
        began = time.monotonic()
        pause = threading.Event()
        empty_looks = 0
        while True:
            with told("what the run left"):
                left = self._remove_once()
            empty_looks = 0 if left else empty_looks + 1
            # What the engine was just making for a killed Compose appears after the first.
            if empty_looks > 1:
                return
            only_networks = all(one.startswith(NETWORK) for one in left)
            patience_s = min(timeout_s, EMPTY_NETWORK_S) if only_networks else timeout_s
            if left and time.monotonic() - began > patience_s:
                raise HostError(
                    f"these of run {self.run} cannot be removed: {', '.join(left)}",
                    MISCOUNTED
                    if only_networks
                    else f"see: docker ps --all --filter label={FLEET}={self.fleet}",
                )
            pause.wait(POLL_S)

    def _remove_once(self) -> list[str]:
        """What is still there after trying."""
        containers = self._found({})
        guests = [one for one in containers if is_guest(one)]
        with ThreadPoolExecutor(MOST_THREADS, thread_name_prefix="remove") as pool:
            list(pool.map(remove_container, guests))
        # One after the other: engine 20.10 may miscount the ends of a network that go at the same time, and
        # refuses then for ever to remove it.
        for one in containers:
            if one not in guests:
                remove_container(one)
        mine = {"label": f"{FLEET}={self.fleet}"}
        for network in self._client.networks.list(filters=mine):
            with gone_is_fine():
                network.reload()  # whom somebody else has plugged in is not of ours, and holds it
                for guest in network.attrs.get("Containers") or {}:
                    network.disconnect(guest, force=True)
                network.remove()
        for volume in self._client.volumes.list(filters=mine):
            with gone_is_fine():
                volume.remove(force=True)
        return [
            *(seen(one).name or str(one.id) for one in self._found({})),
            *(f"{NETWORK}{one.name}" for one in self._client.networks.list(filters=mine)),
            *(f"volume {one.name}" for one in self._client.volumes.list(filters=mine)),
        ]

    def _found(self, labels: Mapping[str, str]) -> list[Container]:
        wanted = [f"{key}={value}" for key, value in {FLEET: self.fleet, **labels}.items()]
        with told("the run's containers"):
            # Sparse: one question for all, instead of one more for each.
            return self._client.containers.list(all=True, sparse=True, filters={"label": wanted})

    def one(self, node: str, part: str) -> Container:
        """The container of a part."""
        found = self._found({NODE: node, PART: part})
        if len(found) != 1:
            raise ShoalError(f"run {self.run} has {len(found)} containers of {node}-{part}, not one")
        return found[0]

    def of(self, node: str) -> Sequence[Container]:
        """All of a node's."""
        return self._found({NODE: node})

    def again(self, container: Container) -> Container:
        """The same one as it is now."""
        return self.one(seen(container).node, seen(container).part)

    def _inspect(self, container: str) -> Mapping[str, Any]:
        with told(container):
            found: Mapping[str, Any] = self._client.api.inspect_container(container)
        return found

    def _is_healthy(self, one: Seen) -> bool:
        return (self._inspect(one.id)["State"].get("Health") or {}).get("Status") == "healthy"

    def _restarts(self, one: Seen) -> int:
        return int(self._inspect(one.id)["RestartCount"])

    def _said(self, name: str) -> str:
        for one in self._found({}):
            if seen(one).name == name:
                return "it said last:\n" + (self._tail(one, TAIL_LINES) or "nothing")
        return "it is not there"

    def _tail(self, container: Container, lines: int) -> str:
        with told(seen(container).name):
            return container.logs(tail=lines).decode(errors="replace").strip()


class Stream(Protocol):
    """The engine's events, until it is closed."""

    def __iter__(self) -> Iterator[dict[str, Any]]: ...

    def close(self) -> None: ...


class Watch:
    """A thread that hears of deaths."""

    def __init__(self, stream: Stream, heard: Callable[[Death], None], lost: Callable[[], None]) -> None:
        self._stream, self._heard, self._lost = stream, heard, lost
        self._is_closing = False
        self._short_of_memory: set[str] = set()
        self._thread = threading.Thread(target=self._listen, name="deaths", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._is_closing = True
        self._stream.close()
        self._thread.join()

    def _listen(self) -> None:
        for event in self._stream:
            actor = event["Actor"]
            if event["Action"] == "oom":  # the kernel has killed something in it, if not all
                self._short_of_memory.add(actor["ID"])
                continue
            about = actor["Attributes"]
            for_memory = actor["ID"] in self._short_of_memory
            self._heard(Death(about.get(NODE, ""), about.get(PART, ""), int(about["exitCode"]), for_memory))
        if not self._is_closing:
            self._lost()


def seen(container: Container) -> Seen:
    labels = container.attrs["Labels"] or {}  # what a sparse answer has
    return Seen(str(container.id), labels.get(NODE, ""), labels.get(PART, ""), container.status)


def memory_bytes(stats: Mapping[str, Any]) -> int:
    """Without the pages of files that nobody uses any more, which the engine counts; 0 when it has ended."""
    memory = stats["memory_stats"]
    details = memory.get("stats") or {}
    idle_bytes = details.get("total_inactive_file", details.get("inactive_file", 0))  # cgroup v1, v2
    return max(0, int(memory.get("usage", 0)) - int(idle_bytes))


def is_guest(container: Container) -> bool:
    """Whether it lives in another one's network namespace."""
    return str(container.attrs["HostConfig"]["NetworkMode"]).startswith("container:")


def remove_container(container: Container) -> None:
    with gone_is_fine():
        container.remove(force=True, v=True)
