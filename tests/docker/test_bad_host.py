"""What a host may lack, each told in one clear message with its cure, by the real engine."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Network
from pathlib import Path

import docker
import pytest
from docker.types import IPAMConfig, IPAMPool

from node.contract import HostError
from orchestrator.containers import addresses, compose_up, dockerd, engine
from orchestrator.containers.compose import ComposeDriver
from orchestrator.containers.containers import FLEET
from orchestrator.planning import listing, plan
from tests.docker.traces import traces
from tests.run.kept import CALL_S, MARK, TINY, TOP, Kept, Terminal

NOBODY = 65534
AS_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--inh-caps=-all", "--")
KNOCK = "import sys; from orchestrator.containers import dockerd; dockerd.connect()"
RUN_S = 120.0
END_S = 60.0


def run(folder: Path, env: Mapping[str, str]) -> tuple[int, str]:
    """A run that must not come far; exit status and complaint."""
    own = {"PYTHONPATH": str(TOP), "XDG_RUNTIME_DIR": str(folder), MARK: str(folder)}
    ended = subprocess.run(
        [sys.executable, "-m", "orchestrator.cli", "run", str(TINY), "--driver", "compose"],
        cwd=folder,
        env={**os.environ, **own, **env},
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
    )
    return ended.returncode, ended.stderr


def test_no_engine(tmp_path: Path) -> None:
    status, said = run(tmp_path, {"DOCKER_HOST": f"unix://{tmp_path}/none"})
    assert status == 69
    first, cure = said.splitlines()
    assert first == f"shoal: No Docker engine answers at {tmp_path}/none: No such file or directory"
    assert "systemctl start docker" in cure
    assert "--driver netns" in cure


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody who may not")
def test_no_right_to_speak_to_the_engine(client: docker.DockerClient) -> None:
    # Forked, since nobody else may read the folders that our packages may be in.
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        try:
            dockerd.connect()
        except HostError as error:
            os.write(writing, str(error).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as told:
        said = told.read().decode()
    os.waitpid(child, 0)
    assert "This user may not speak to the Docker engine at /" in said
    assert "usermod --append --groups docker" in said


@contextlib.contextmanager
def network_of_somebody(client: docker.DockerClient, subnet: str) -> Iterator[str]:
    name = f"somebody-{uuid.uuid4().hex[:8]}"
    made = client.networks.create(name, ipam=IPAMConfig(pool_configs=[IPAMPool(subnet=subnet)]))
    try:
        yield name
    finally:
        made.remove()


def test_a_subnet_that_is_taken_is_left_to_whom_it_belongs_and_another_one_is_said(
    client: docker.DockerClient,
) -> None:
    # Not where other runs are, too.
    subnets = (IPv4Network("10.190.0.0/22"), IPv4Network("10.190.4.0/22"))
    wanted = addresses.readdress(plan.make_plan(listing.load(str(TINY))), *subnets)
    said: list[str] = []
    with network_of_somebody(client, wanted.network.data_subnet) as name:
        placed = ComposeDriver().place(wanted, said.append)
        assert placed.network.data_subnet != wanted.network.data_subnet
        assert any(name in line and placed.network.data_subnet in line for line in said), said
        taken = dockerd.networks(client)
        assert placed.network.data_subnet not in taken
        assert placed.network.ctl_subnet not in taken
    assert [node.name for node in placed.nodes] == [node.name for node in wanted.nodes]


@pytest.fixture
def project(client: docker.DockerClient) -> Iterator[str]:
    name = f"shoal-bad-{uuid.uuid4().hex[:8]}"
    yield name
    labelled: dict[str, str | list[str] | bool] = {"label": f"{FLEET}={name}"}
    for container in client.containers.list(all=True, filters=labelled):
        container.remove(force=True)
    for network in client.networks.list(filters=labelled):
        network.remove()


def up(folder: Path, project: str, image: str, subnet: str) -> None:
    """Have Compose bring up one container on one network."""
    file = folder / "compose.yaml"
    labels = f"labels: {{{FLEET}: {project}}}"
    file.write_text(
        f"name: {project}\n"
        f"services: {{one: {{image: {image!r}, pull_policy: never, networks: [net], {labels}}}}}\n"
        f"networks: {{net: {{{labels}, ipam: {{config: [{{subnet: {subnet}}}]}}}}}}\n"
    )
    with engine.found() as here:
        compose_up.bring_up(
            here.compose.argv, here.environment, file, folder / "log", lambda _: None, lambda: None
        )


def test_a_subnet_that_somebody_took_meanwhile(
    client: docker.DockerClient, node_image: str, project: str, tmp_path: Path
) -> None:
    with network_of_somebody(client, "10.198.4.0/24"), pytest.raises(HostError) as caught:
        up(tmp_path, project, node_image, "10.198.0.0/16")
    assert "Another network has just taken the run's subnet" in caught.value.message
    assert "run it again" in caught.value.hint


def test_an_image_that_is_missing(client: docker.DockerClient, project: str, tmp_path: Path) -> None:
    with pytest.raises(HostError) as caught:
        up(tmp_path, project, "shoal-node:no-such-tag", "10.198.0.0/24")
    assert "The Docker engine lacks an image" in caught.value.message
    assert "shoal-node:no-such-tag" in caught.value.message
    assert "make images" in caught.value.hint


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk that the engine sees, too")
def test_a_disk_that_is_full(node_image: str, client: docker.DockerClient, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    before = traces(client)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", small], check=True)
    try:
        status, said = run(tmp_path, {"TMPDIR": str(small), "XDG_RUNTIME_DIR": ""})
        left = list(small.iterdir())
    finally:
        subprocess.run(["umount", small], check=True)
    assert status == 69, said
    assert "No space is left on a disk that the run writes to" in said
    assert "df -h" in said
    assert [path for path in left if not path.name.startswith("shoal-living-")] == []
    assert set(traces(client)) <= set(before)


class Relay(threading.Thread):
    """Stands before the engine's socket, so that the engine can be gone for one run alone."""

    def __init__(self, path: Path, engine: str) -> None:
        super().__init__(daemon=True)
        self.path, self._engine = path, engine
        self._links: list[socket.socket] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(50)

    def run(self) -> None:
        while True:
            try:
                visitor, _ = self._listener.accept()
            except OSError:
                return
            there = socket.socket(socket.AF_UNIX)
            self._links += [visitor, there]
            there.connect(self._engine.removeprefix(dockerd.UNIX))
            for source, sink in ((visitor, there), (there, visitor)):
                threading.Thread(target=pump, args=(source, sink), daemon=True).start()

    def end(self) -> None:
        self.path.unlink()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.join()
        for link in self._links:
            with contextlib.suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)
            link.close()


def pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(1 << 16):
            sink.sendall(piece)
        sink.shutdown(socket.SHUT_WR)


def test_an_engine_that_goes_away_under_a_run_and_comes_back(
    node_image: str, client: docker.DockerClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tempfile.TemporaryDirectory(prefix="living-") as registry:
        path = Path(registry) / "engine.sock"
        engine = os.environ.get("DOCKER_HOST", dockerd.DEFAULT_URL)
        relay = Relay(path, engine)
        relay.start()
        monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
        terminal = Terminal(tmp_path, Path(registry), "compose")
        kept = Kept(terminal.start("run", str(TINY), "--keep"), terminal)
        try:
            kept.wait_kept()
            fleet = Path(kept.record["secrets"]).name
            relay.end()
            kept.process.terminate()
            said, _ = kept.process.communicate(timeout=END_S)
            assert "No Docker engine answers" in said or "The Docker engine does not answer" in said
            assert f"what run {kept.id} has left is still there" in said
            assert traces(client, fleet) != []
            relay = Relay(path, engine)
            relay.start()
            assert terminal.call("down") == (0, "no run is living\n")
            assert traces(client, fleet) == []
            assert terminal.recorded() == []
        finally:
            kept.end()
            relay.end()
            terminal.wait_no_process(CALL_S)
