"""What a run has on the engine, whatever made it."""

from __future__ import annotations

import threading
import time

import docker

from orchestrator.containers.containers import FLEET


def traces(client: docker.DockerClient, fleet: str | None = None) -> list[str]:
    """Containers, networks and volumes of one run, or of all runs."""
    labelled: dict[str, str | list[str] | bool] = {"label": FLEET if fleet is None else f"{FLEET}={fleet}"}
    containers = client.containers.list(all=True, sparse=True, filters=labelled)
    return [
        *(f"container {one.attrs['Names'][0]}" for one in containers),
        *(f"network {one.name}" for one in client.networks.list(filters=labelled)),
        *(f"volume {one.name}" for one in client.volumes.list(filters=labelled)),
    ]


def wait_no_trace(client: docker.DockerClient, fleet: str, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    pause = threading.Event()
    while left := traces(client, fleet):
        assert time.monotonic() < deadline, left
        pause.wait(0.1)
