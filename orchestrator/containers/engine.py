"""The Docker engine of this host and its Compose: which they are, or why a fleet cannot live on them."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from docker import DockerClient

from node.contract import HostError
from orchestrator import compose_setup, host, process, setup
from orchestrator.containers import dockerd

OLDEST_ENGINE: Final = (20, 10)
OLDEST_COMPOSE: Final = (2, 6)
LEAST_FREE_BYTES: Final = 1 << 30
ASK_TIMEOUT_S: Final = 20.0
OWN_ROOT: Final = "name an engine that runs as root by DOCKER_HOST"


@dataclass(frozen=True)
class Compose:
    """A Compose that can be called."""

    argv: tuple[str, ...]
    version: str


@dataclass(frozen=True)
class Facts:
    """What decides whether a fleet can live on an engine."""

    version: str
    security: tuple[str, ...]  # as `docker info` lists it: name=seccomp,profile=default
    free_bytes: int | None  # where it keeps its images; None when we cannot see that
    root: str
    compose: Compose | None


@dataclass(frozen=True)
class Engine:
    """An engine that a fleet can live on."""

    client: DockerClient
    url: str
    facts: Facts
    compose: Compose

    @property
    def environment(self) -> dict[str, str]:
        """What makes Compose speak to this very engine, whatever context the user has chosen."""
        return {"DOCKER_HOST": self.url, "DOCKER_CONTEXT": ""}

    @property
    def said(self) -> str:
        return f"engine {self.facts.version}, Compose {self.compose.version}"


@contextmanager
def found() -> Iterator[Engine]:
    """The engine, for as long as it is needed; HostError says why there is none, and the cure."""
    engine = find()
    try:
        yield engine
    finally:
        engine.client.close()


def find() -> Engine:
    """The engine that DOCKER_HOST names, else this host's own."""
    url = os.environ.get("DOCKER_HOST") or dockerd.DEFAULT_URL
    if not url.startswith(dockerd.UNIX):
        raise HostError(
            f"DOCKER_HOST names an engine that may be another host's, {without_secrets(url)}: nodes' folders "
            "would not be ours.",
            f"unset DOCKER_HOST, or name a socket of this host, {dockerd.DEFAULT_URL}; {dockerd.WITHOUT}",
        )
    client = dockerd.connect(url)
    try:
        facts = look(client, url)
        refusal = why_not(facts)
        if refusal is not None:
            raise refusal
    except BaseException:
        client.close()
        raise
    assert facts.compose is not None  # why_not has seen to it
    return Engine(client, url, facts, facts.compose)


def look(client: DockerClient, url: str) -> Facts:
    """Ask the engine, its disk and Compose."""
    with dockerd.told("what it is"):
        info: dict[str, Any] = client.info()
    root = str(info.get("DockerRootDir", ""))
    return Facts(
        version=str(info.get("ServerVersion", "")),
        security=tuple(info.get("SecurityOptions") or ()),
        free_bytes=free_bytes(root),
        root=root,
        compose=find_compose(url),
    )


def why_not(facts: Facts) -> HostError | None:
    """Why a fleet cannot live there, the first reason that counts; None when it can."""
    if parsed(facts.version) < OLDEST_ENGINE:
        return HostError(
            f"The Docker engine is {facts.version}, at least {told_version(OLDEST_ENGINE)} is needed.",
            f"install a newer one: https://docs.docker.com/engine/install/; {dockerd.WITHOUT}",
        )
    for name, what in (("rootless", "runs without root"), ("userns", "gives containers users of their own")):
        if any(f"name={name}" in option.split(",") for option in facts.security):
            return HostError(
                f"The Docker engine {what}: nodes could not write to the folders that we share with them.",
                f"{OWN_ROOT}, for example {dockerd.DEFAULT_URL}; {dockerd.WITHOUT}",
            )
    if facts.compose is None:
        return HostError(
            "The Docker engine answers, but there is no Docker Compose 2.",
            f"run `make setup`, which brings it, or install it: https://docs.docker.com/compose/install/; "
            f"{dockerd.WITHOUT}",
        )
    if parsed(facts.compose.version) < OLDEST_COMPOSE:
        return HostError(
            f"`{' '.join(facts.compose.argv)}` is {facts.compose.version}, at least "
            f"{told_version(OLDEST_COMPOSE)} is needed.",
            f"install a newer one: https://docs.docker.com/compose/install/; {dockerd.WITHOUT}",
        )
    if facts.free_bytes is not None and facts.free_bytes < LEAST_FREE_BYTES:
        return HostError(
            f"The disk of the Docker engine is full: {facts.free_bytes >> 20} MiB are free in {facts.root}.",
            f"see what takes it: docker system df; remove what is not used: docker system prune; "
            f"{dockerd.WITHOUT}",
        )
    return None


def find_compose(url: str) -> Compose | None:
    """Docker's plugin, else the program of that name on PATH, else the one that set-up brought."""
    path = host.search_path()
    candidates: list[tuple[str, ...]] = []
    # One that is too old is better than none: it can be named.
    too_old = None
    if shutil.which("docker", path=path):
        candidates.append(("docker", "compose"))
    if shutil.which("docker-compose", path=path):
        candidates.append(("docker-compose",))
    brought = compose_setup.find(setup.compose_folder())
    if brought is not None:
        candidates.append((str(brought),))
    for argv in candidates:
        version = compose_version(argv, url)
        if version is not None:
            compose = Compose(argv, version)
            if parsed(version) >= OLDEST_COMPOSE:
                return compose
            too_old = too_old or compose
    return too_old


def compose_version(argv: Sequence[str], url: str) -> str | None:
    """What it calls itself; None when it does not run, or is no Compose."""
    asked = process.run(
        [*argv, "version", "--short"], env={"DOCKER_HOST": url}, timeout_s=ASK_TIMEOUT_S, check=False
    )
    version = asked.stdout.strip().removeprefix("v")
    return version if asked.status == 0 and re.match(r"\d+\.\d+", version) else None


def parsed(version: str) -> tuple[int, int]:
    """Major and minor number; (0, 0) of what has none."""
    numbers = re.match(r"v?(\d+)\.(\d+)", version)
    return (int(numbers[1]), int(numbers[2])) if numbers else (0, 0)


def told_version(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))


def free_bytes(root: str) -> int | None:
    """The room where the engine keeps its images; an engine in a machine of its own hides it."""
    try:
        return shutil.disk_usage(Path(root)).free
    except OSError:
        return None


def without_secrets(url: str) -> str:
    """A URL without the user and password that it may hold."""
    return re.sub(r"//[^/@]*@", "//", url)
