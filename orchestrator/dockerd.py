"""The Docker engine as it is spoken to: connected, its complaints told for a person, its subnets listed."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import docker
import requests
from docker.errors import APIError, DockerException, NotFound

from node.contract import HostError, ShoalError

DEFAULT_URL: Final = "unix:///var/run/docker.sock"
UNIX: Final = "unix://"
KNOCK_S: Final = 10.0
WITHOUT: Final = "or without Docker: --driver netns"


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
                f"sudo usermod --append --groups docker $USER, and log in again; {WITHOUT}",
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
        said = str(error.explanation or error)
        if "no space left on device" in said:
            raise HostError(
                f"The Docker engine has no room on its disk: {said}",
                "see what takes it: docker system df; remove what is not used: docker system prune",
            ) from error
        raise ShoalError(f"Docker refused ({what}): {said}") from error
    except (DockerException, requests.exceptions.RequestException) as error:
        raise HostError(
            f"The Docker engine does not answer ({what}): {error}",
            f"see whether it runs: docker info; {WITHOUT}",
        ) from error
