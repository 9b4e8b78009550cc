"""`make images`: what fleets of containers need, out of a registry or, where there is none, without.

An image is named by what it is made of: one that is at hand is certainly the right one, and a change of code
makes another name and another last layer.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import docker
import requests
from docker.errors import APIError, DockerException, ImageNotFound

from node.contract import ENV_IPFSD, ExitCode, HostError, ShoalError
from orchestrator import TOP, process, prometheus_setup, setup
from orchestrator.containers import base_image, dockerd, engine, image_build, image_files
from orchestrator.containers.engine import Engine
from orchestrator.monitoring.grafana import IMAGE as GRAFANA

NODE: Final = "shoal-node"
PROMETHEUS: Final = "shoal-prometheus"
# Pinned: a run of next year must meet the same programs.
PUBLIC_BASE: Final = "debian:bookworm-20250520-slim"
PUBLIC_KUBO: Final = "ipfs/kubo:v0.43.1"  # as node/ipfs/fetch_kubo.py; a test compares them
PUBLIC_PROMETHEUS: Final = f"prom/prometheus:v{prometheus_setup.VERSION}"
PUBLIC_GRAFANA: Final = GRAFANA

REGISTRY_TIMEOUT_S: Final = 10
DAEMON_TIMEOUT_S: Final = 900.0
LEAST_FREE_BYTES: Final = 8 << 30  # a build keeps what it made underway
IPFSD: Final = "/opt/shoal/bin/ipfsd"  # in the image
KUBO: Final = "/opt/shoal/bin/kubo"

Say = Callable[[str], None]
Way = Literal["registry", "packages"]
WAYS: Final[tuple[Way, ...]] = ("registry", "packages")


@dataclass(frozen=True)
class Images:
    """The images by name; `digests` says by content which they are."""

    node: str
    prometheus: str
    grafana: str | None  # only from a registry
    way: Way
    has_kubo: bool
    digests: Mapping[str, str]


def ensure(say: Say, way: Way | None = None) -> Images:
    """All images, made or fetched where they are not at hand; HostError when that cannot be."""
    with engine.found() as found:
        workshop = Workshop(found, say)
        settled = way or workshop.settled()
        made = workshop.at_hand(settled) if settled else None
        if made is None:
            with alone(say):
                chosen = way or workshop.settled() or workshop.choose()
                made = workshop.at_hand(chosen) or workshop.make(chosen)
        return made


class Workshop:
    """Where images are looked for and made."""

    def __init__(self, found: Engine, say: Say) -> None:
        self._engine, self._say = found, say
        self._node_files = image_files.node_files(embedded_daemon())

    def settled(self) -> Way | None:
        """The way taken before: its base is here. No registry is asked again when code changes."""
        return next((way for way in WAYS if self._has(base_of(way))), None)

    def at_hand(self, way: Way) -> Images | None:
        """The images, when none need be made or fetched; without asking any registry."""
        kubo = way == "registry" and self._has(PUBLIC_KUBO)
        node = self._node(way, kubo)
        prometheus = PUBLIC_PROMETHEUS if way == "registry" else ""
        if not prometheus or not self._has(prometheus):
            prometheus = self._own_prometheus()
        if not (self._has(node) and self._has(prometheus)):
            return None
        grafana = PUBLIC_GRAFANA if way == "registry" and self._has(PUBLIC_GRAFANA) else None
        return self._described(node, prometheus, grafana, way, kubo)

    def choose(self) -> Way:
        """The registry where it answers; else Debian's packages, and why is said."""
        reason = self._why_no_registry()
        if reason is None:
            self._say("images: from a registry, which answers")
            return "registry"
        self._say(f"images: of Debian's packages and the set-up's own programs, for no registry: {reason}")
        return "packages"

    def make(self, way: Way) -> Images:
        """Fetch and build."""
        base = base_of(way)
        if not self._has(base):
            self._check_room()
            if way == "registry":
                self._pull(base)
            else:
                base_image.make(self._engine.client, [f"{image_build.LABEL}=base"], self._say)
        kubo = way == "registry" and self._fetched(PUBLIC_KUBO, "nodes have the embedded IPFS daemon only")
        node = self._node(way, kubo)
        if not self._has(node):
            args = {"KUBO": "public", "KUBO_IMAGE": PUBLIC_KUBO} if kubo else {}
            self._build(node, "node", self._node_files, {"BASE": base, **args})
            self._tell_older(node)
        prometheus = PUBLIC_PROMETHEUS
        if way == "packages" or not self._fetched(prometheus, "the set-up's own goes into an image"):
            prometheus = self._own_prometheus()
            if not self._has(prometheus):
                files = image_files.prometheus_files(own_prometheus())
                self._build(prometheus, "prometheus", files, {"BASE": base})
        grafana = way == "registry" and self._fetched(PUBLIC_GRAFANA, "runs have no Grafana")
        return self._described(node, prometheus, PUBLIC_GRAFANA if grafana else None, way, kubo)

    def _tell_older(self, node: str) -> None:
        """Each change of code leaves an image behind; whether that is still wanted only a person knows."""
        with dockerd.told("its images"):
            # In one question: of the SDK's own list one that is just removed would be an error.
            found = self._engine.client.api.images(filters={"label": f"{image_build.LABEL}=node"})
            containers = self._engine.client.containers.list(all=True, sparse=True)
        used = {container.attrs["ImageID"] for container in containers}
        tags = sorted(tag for one in found if one["Id"] not in used for tag in one["RepoTags"] or ())
        older = [tag for tag in tags if tag.startswith(f"{NODE}:") and tag != node]
        if older:
            self._say(
                f"images: {len(older)} older of nodes are here that no container uses; to remove them: "
                f"docker image rm {' '.join(older)}"
            )

    def _check_room(self) -> None:
        """Nothing has been made yet, so all of it needs room."""
        free = self._engine.facts.free_bytes
        if free is not None and free < LEAST_FREE_BYTES:
            raise HostError(
                f"Making the images takes {LEAST_FREE_BYTES >> 30} GiB of disk, and {free >> 20} MiB are "
                f"free in {self._engine.facts.root}.",
                "see what takes it: docker system df; remove what is not used: docker system prune",
            )

    def _build(self, image: str, target: str, files: Mapping[str, Path], args: Mapping[str, str]) -> None:
        image_build.build(self._engine, image, target, files, args, self._say)

    def _node(self, way: Way, kubo: bool) -> str:
        return f"{NODE}:{image_files.name(self._node_files, [base_of(way), PUBLIC_KUBO if kubo else ''])}"

    def _own_prometheus(self) -> str:
        return f"{PROMETHEUS}:{image_files.name(image_files.prometheus_files(own_prometheus()), [])}"

    def _described(self, node: str, prometheus: str, grafana: str | None, way: Way, kubo: bool) -> Images:
        names = [name for name in (node, prometheus, grafana) if name is not None]
        with dockerd.told("its images"):
            digests = {name: str(self._engine.client.images.get(name).id) for name in names}
        return Images(node, prometheus, grafana, way, kubo, digests)

    def _has(self, image: str) -> bool:
        with dockerd.told("its images"):
            try:
                self._engine.client.images.get(image)
            except ImageNotFound:
                return False
            return True

    def _fetched(self, image: str, otherwise: str) -> bool:
        """Whether a public image is here now; one that cannot be had is told, and what that means."""
        if self._has(image):
            return True
        try:
            self._pull(image)
        except HostError as error:
            self._say(f"{error.message} So {otherwise}.")
            return False
        return True

    def _pull(self, image: str) -> None:
        self._say(f"image {image}: fetching it")
        repository, _, tag = image.rpartition(":")
        try:
            self._engine.client.images.pull(repository, tag=tag)
        except (DockerException, requests.exceptions.RequestException) as error:
            raise HostError(
                f"The image {image} cannot be fetched: {error_text(error)}",
                "try again; or make images without a registry: make images WAY=packages",
            ) from error

    def _why_no_registry(self) -> str | None:
        """The engine asks, not we: it is the one that would fetch. None when it gets an answer."""
        try:
            with contextlib.closing(
                docker.DockerClient(base_url=self._engine.url, timeout=REGISTRY_TIMEOUT_S)
            ) as client:
                client.images.get_registry_data(PUBLIC_BASE)
        except (DockerException, requests.exceptions.RequestException) as error:
            return error_text(error)
        return None


def base_of(way: Way) -> str:
    return PUBLIC_BASE if way == "registry" else base_image.tag()


def own_prometheus() -> prometheus_setup.Prometheus:
    """The set-up's, or the one on PATH."""
    found = prometheus_setup.find(setup.prometheus_folder())
    if found is None:
        raise HostError("There is no Prometheus to put into an image.", "run `make setup`")
    return found


def embedded_daemon() -> Path:
    """Its binary, built when these sources have none yet."""
    named = os.environ.get(ENV_IPFSD)
    if named:
        return Path(named).absolute()
    builder = TOP / "node" / "ipfs" / "build.py"
    done = process.run([sys.executable, str(builder)], timeout_s=DAEMON_TIMEOUT_S, check=False)
    if done.status:
        raise HostError(f"The embedded IPFS daemon cannot be built: {done.stderr.strip()}", "make ipfs")
    return Path(done.stdout.strip().splitlines()[-1])


def error_text(error: Exception) -> str:
    """What the engine said, in one line."""
    said = error.explanation if isinstance(error, APIError) and error.explanation else error
    return " ".join(str(said).split())


@contextlib.contextmanager
def alone(say: Say) -> Iterator[None]:
    """One at a time makes images; the second waits and finds them."""
    setup.cache_folder().mkdir(parents=True, exist_ok=True)
    with (setup.cache_folder() / "images.lock").open("w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("images: waiting for somebody else who makes them")
            fcntl.flock(held, fcntl.LOCK_EX)
        yield


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(arguments: Sequence[str]) -> int:
    """Make them and print their names, one per line."""
    parser = argparse.ArgumentParser(prog="make images", description=__doc__)
    parser.add_argument("--way", choices=WAYS, help="by default what is at hand, else can be had")
    options = parser.parse_args(arguments)
    try:
        made = ensure(say, options.way)
    except ShoalError as error:
        say(f"images: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    for image, digest in made.digests.items():
        print(image, digest)
    if made.grafana is None:
        say("no Grafana: it is to be had from a registry only")
    return ExitCode.HELD


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
