"""What tests on a Docker engine share."""

from __future__ import annotations

from collections.abc import Iterator

import docker
import pytest

from orchestrator.containers import engine, images


@pytest.fixture(scope="session")
def client() -> Iterator[docker.DockerClient]:
    """The engine that answers."""
    with engine.found() as here:
        yield here.client


@pytest.fixture(scope="session")
def node_image() -> str:
    """The image that the nodes of this checkout run in."""
    return images.ensure(print).node
