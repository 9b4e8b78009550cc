"""Short-lived containers: each runs one program to its end, and its answer is all that stays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import requests
from docker import DockerClient
from docker.types import Mount

from node.contract import ENV_CACHE, HostError
from orchestrator.containers.dockerd import told
from orchestrator.preparation import failure

TIMEOUT_S: Final = 300.0
# As the SDK calls it, by whether the engine has begun to answer by then.
TOO_LONG: Final = (requests.exceptions.ConnectionError, requests.exceptions.Timeout)


@dataclass(frozen=True)
class Errand:
    """What is to be run; without network, and with nothing that may be written but memory and mounts."""

    argv: Sequence[str]
    user: str
    capabilities: Sequence[str] = ()
    reads: Sequence[Path] = ()
    writes: Sequence[Path] = ()
    more: Mapping[str, Any] | None = None  # as the SDK calls it


@dataclass(frozen=True)
class Done:
    status: int
    stdout: str
    stderr: str


def run(client: DockerClient, image: str, labels: Mapping[str, str], errand: Errand) -> Done:
    """Run it to its end; the container is gone then."""
    mounts = [
        Mount(str(path), str(path), type="bind", read_only=path in errand.reads)
        for path in (*errand.reads, *errand.writes)
    ]
    with told(errand.argv[0]):
        container = client.containers.create(
            image,
            entrypoint=[errand.argv[0]],
            command=list(errand.argv[1:]),
            user=errand.user,
            cap_drop=["ALL"],
            cap_add=list(errand.capabilities),
            security_opt=["no-new-privileges"],
            read_only=True,
            tmpfs={"/run": "", "/tmp": "mode=1777"},
            network_mode="none",
            environment={ENV_CACHE: "/tmp"},  # of programs that may look for what was fetched earlier
            labels=dict(labels),
            mounts=mounts,
            **(errand.more or {}),
        )
        try:
            container.start()
            try:
                status = int(container.wait(timeout=TIMEOUT_S)["StatusCode"])
            except TOO_LONG as error:
                raise HostError(
                    f"`{' '.join(errand.argv)}` did not end within {TIMEOUT_S:g} s",
                    "see what else this host does, and run it again when that is over",
                ) from error
            said = [container.logs(stdout=out, stderr=not out) for out in (True, False)]
        finally:
            container.remove(force=True, v=True)
    stdout, stderr = (text.decode(errors="replace") for text in said)
    return Done(status, stdout, stderr)


def answer(client: DockerClient, image: str, labels: Mapping[str, str], errand: Errand) -> str:
    """What it says; else its own complaint, of the kind that its exit status names."""
    done = run(client, image, labels, errand)
    if done.status == 0:
        return done.stdout
    raise failure(done.status, done.stderr, f"`{' '.join(errand.argv)}` ended with {done.status}")
