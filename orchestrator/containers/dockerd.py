"""The Docker engine as it is spoken to: connected, its complaints told for a person, its subnets listed."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any, Final

import docker
import requests
from docker.errors import APIError, DockerException, NotFound

from node.contract import HostError, ShoalError

DEFAULT_URL: Final = "unix:///var/run/docker.sock"
UNIX: Final = "unix://"
KNOCK_S: Final = 10.0
WITHOUT: Final = "or without Docker: --driver netns"

NOT_ALLOWED: Final = "sudo usermod --append --groups docker $USER, and log in again"
# What it says, what that means, and what cures it.
KNOWN: Final = (
    (
        "no space left on device",
        "The Docker engine has no room on its disk",
        "see what takes it: docker system df; remove what is not used: docker system prune",
    ),
    (
        "pool overlaps|non-overlapping IPv4|invalid pool request",
        "Another network has just taken the run's subnet, or all subnets are taken",
        "run it again, and another one is chosen; remove networks that nobody uses: docker network prune",
    ),
    (
        "no such image|pull access denied|manifest unknown",
        "The Docker engine lacks an image",
        "make it: make images",
    ),
    (
        "port is already allocated|address already in use",
        "Another program listens where the run publishes a page",
        "run it again; see who it is: ss --listening --tcp --processes",
    ),
    (
        "permission denied.*docker",
        "This user may not speak to the Docker engine",
        f"{NOT_ALLOWED}; {WITHOUT}",
    ),
    (
        "Cannot connect to the Docker daemon",
        "The Docker engine does not answer",
        f"see whether it runs: docker info; {WITHOUT}",
    ),
)


def connect(url: str | None = None) -> docker.DockerClient:
    """The engine at this URL; else the one that the environment names."""
    url = url or os.environ.get("DOCKER_HOST") or DEFAULT_URL
    if url.startswith(UNIX):
        knock(url.removeprefix(UNIX))
    with told(url):
        return docker.from_env(environment={**os.environ, "DOCKER_HOST": url})


@contextmanager
def connected(url: str) -> Iterator[docker.DockerClient]:
    client = connect(url)
    try:
        yield client
    finally:
        client.close()


def knock(path: str) -> None:
    """Whether the engine's socket lets us in: the SDK's own complaint names neither cause nor cure."""
    with socket.socket(socket.AF_UNIX) as visitor:
        visitor.settimeout(KNOCK_S)
        try:
            visitor.connect(path)
        except PermissionError as error:
            raise HostError(
                f"This user may not speak to the Docker engine at {path}.",
                f"{NOT_ALLOWED}; {WITHOUT}",
            ) from error
        except OSError as error:
            raise HostError(
                f"No Docker engine answers at {path}: {error.strerror or error}",
                f"start it: sudo systemctl start docker; or name another one by DOCKER_HOST; {WITHOUT}",
            ) from error


def networks(client: docker.DockerClient) -> dict[str, str]:
    """The subnets that the engine's networks have taken, and whose they are."""
    with told("its networks"):
        found = client.networks.list()
    taken = {}
    for network in found:
        for pool in (network.attrs.get("IPAM") or {}).get("Config") or []:
            if "Subnet" in pool:
                taken[pool["Subnet"]] = str(network.name)
    return taken


def facts(client: docker.DockerClient, images: Collection[str]) -> dict[str, Any]:
    """What of the engine a reader of the results needs to know; an image is named by what is in it."""
    with told("its facts"):
        info = client.info()
        found = {name: client.images.get(name) for name in images}
    return {
        "engine": info["ServerVersion"],
        "api": client.api.api_version,
        "storage_driver": info["Driver"],
        "cgroup_version": info.get("CgroupVersion", "1"),  # engines before 20.10 knew one only
        "cgroup_driver": info["CgroupDriver"],
        "runtime": info["DefaultRuntime"],
        "security": info["SecurityOptions"],
        "operating_system": info["OperatingSystem"],
        "kernel": info["KernelVersion"],
        "images": {
            # Its own digest is of this engine's copy; that of the registry, where it has one, is everybody's.
            name: {"id": image.id, "digests": image.attrs.get("RepoDigests") or []}
            for name, image in sorted(found.items())
        },
    }


@contextmanager
def gone_is_fine() -> Iterator[None]:
    """In clean-up somebody else may be faster, or at it; whether it is gone is seen afterwards."""
    try:
        yield
    except APIError as error:
        if not (isinstance(error, NotFound) or error.status_code in (403, 409)):
            raise


@contextmanager
def told(what: str) -> Iterator[None]:
    """Whatever the engine refuses, or why it does not answer, for a person."""
    try:
        yield
    except APIError as error:
        raise complaint(str(error.explanation or error), f"Docker refused ({what})") from error
    except (DockerException, requests.exceptions.RequestException) as error:
        raise HostError(
            f"The Docker engine does not answer ({what}): {error}",
            f"see whether it runs: docker info; {WITHOUT}",
        ) from error


def complaint(said: str, began: str) -> ShoalError:
    """What the engine or Compose said, with the cure where there is one that we know."""
    for pattern, message, cure in KNOWN:
        if re.search(pattern, said, re.IGNORECASE):
            return HostError(f"{message}: {said}", cure)
    return ShoalError(f"{began}: {said}")
