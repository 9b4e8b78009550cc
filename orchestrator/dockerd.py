"""The Docker engine as it is spoken to: connected, its complaints told for a person, its subnets listed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import docker
import requests
from docker.errors import APIError, DockerException, NotFound

from node.contract import HostError, ShoalError


def connect(url: str | None = None) -> docker.DockerClient:
    """The engine at this URL; else the one that the environment names."""
    with told("the engine"):
        return docker.from_env() if url is None else docker.DockerClient(base_url=url)


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
        if "Permission denied" in str(error):
            raise HostError(
                "This user may not speak to the Docker engine.",
                "sudo usermod --append --groups docker $USER, and log in again; "
                "or without Docker: --driver netns",
            ) from error
        raise HostError(
            f"The Docker engine does not answer ({what}): {error}",
            "see whether it runs: docker info; or without Docker: --driver netns",
        ) from error
