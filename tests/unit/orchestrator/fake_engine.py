"""A Docker engine as far as a run's containers ask it; whatever else is asked is an AttributeError or TypeError."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import requests
from docker.errors import APIError, NotFound


def refusal(status: int, said: str) -> APIError:
    response = requests.Response()
    response.status_code = status
    return (NotFound if status == 404 else APIError)("refused", response, said)


@dataclass
class FakeContainer:
    engine: FakeEngine
    id: str
    labels_said: dict[str, str]
    status: str = "running"
    exit_code: int = 0
    restarts: int = 0
    health: str | None = None
    said: bytes = b""
    stubborn: APIError | None = None  # what it answers to its removal
    answers: dict[str, tuple[int, bytes]] = field(default_factory=dict)  # of programs that are run in it

    @property
    def attrs(self) -> dict[str, Any]:
        host = {"NetworkMode": "default"}
        return {"Labels": self.labels_said, "State": self.status, "HostConfig": host}

    def logs(self, *, tail: int) -> bytes:
        return b"".join(self.said.splitlines(keepends=True)[-tail:])

    def exec_run(self, argv: list[str]) -> tuple[int, bytes]:
        return self.answers[" ".join(argv)]

    def remove(self, *, force: bool, v: bool) -> None:
        assert force
        assert v
        if self.stubborn is not None:
            raise self.stubborn
        self.engine.kept.remove(self)


@dataclass
class FakeThing:
    """A network or a volume."""

    shelf: list[FakeThing]
    name: str
    labels: dict[str, str]
    attrs: dict[str, Any] = field(default_factory=dict)
    guests: list[str] = field(default_factory=list)
    is_miscounted: bool = False

    def reload(self) -> None:
        self.attrs["Containers"] = {guest: {} for guest in self.guests}

    def disconnect(self, container: str, *, force: bool) -> None:
        assert force
        self.guests.remove(container)

    def remove(self, *, force: bool = False) -> None:
        if self.guests or self.is_miscounted:
            raise refusal(403, "has active endpoints")
        self.shelf.remove(self)


class FakeShelf:
    def __init__(self) -> None:
        self.things: list[FakeThing] = []

    def add(self, name: str, labels: dict[str, str], **about: Any) -> FakeThing:
        self.things.append(FakeThing(self.things, name, labels, **about))
        return self.things[-1]

    def list(self, *, filters: dict[str, str] | None = None) -> list[FakeThing]:
        return [one for one in self.things if filters is None or bears(one.labels, [filters["label"]])]


class FakeContainers:
    def __init__(self, engine: FakeEngine) -> None:
        self._engine = engine

    def list(self, *, all: bool, sparse: bool, filters: dict[str, list[str]]) -> list[FakeContainer]:  # noqa: A002
        assert all
        assert sparse
        return [one for one in self._engine.kept if bears(one.labels_said, filters["label"])]


class FakeApi:
    def __init__(self, engine: FakeEngine) -> None:
        self._engine = engine

    def inspect_container(self, container: str) -> dict[str, Any]:
        for one in self._engine.kept:
            if one.id == container:
                health = {} if one.health is None else {"Health": {"Status": one.health}}
                return {"State": {"ExitCode": one.exit_code, **health}, "RestartCount": one.restarts}
        raise refusal(404, f"No such container: {container}")


class FakeEvents(list[dict[str, Any]]):
    def close(self) -> None:
        """They have all been read."""


class FakeEngine:
    def __init__(self) -> None:
        self.kept: list[FakeContainer] = []
        self.containers, self.api = FakeContainers(self), FakeApi(self)
        self.networks, self.volumes = FakeShelf(), FakeShelf()
        self.happened = FakeEvents()

    def add(self, labels: dict[str, str], **about: Any) -> FakeContainer:
        self.kept.append(FakeContainer(self, f"c{len(self.kept)}", labels, **about))
        return self.kept[-1]

    def events(self, *, decode: bool, filters: dict[str, Any]) -> FakeEvents:
        assert decode
        assert (filters["type"], filters["event"]) == ("container", ["die", "oom"])
        wanted = [filters["label"]]
        return FakeEvents(one for one in self.happened if bears(one["Actor"]["Attributes"], wanted))


def bears(labels: dict[str, str], wanted: list[str]) -> bool:
    return all(labels.get(key) == value for key, _, value in (one.partition("=") for one in wanted))
