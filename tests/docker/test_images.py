"""The images: what is in them, what is not, and when they are made anew."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from node.contract import ENV_CACHE
from orchestrator import TOP, setup
from orchestrator.containers import engine, image_build, image_files, images
from orchestrator.containers.images import Images

LABELS = {"shoal.run": "test-images"}
# Of three kinds: as a proxy, as an index with a password, as a certificate.
CANARY = "canary-4711"
CONFINED = {
    "read_only": True,
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
    "network_mode": "none",
}
MEBIBYTE = 1 << 20


@pytest.fixture(scope="module")
def made() -> Images:
    return images.ensure(print)


def run(client: docker.DockerClient, image: str, *command: str, user: str = "4321:4321") -> str:
    """What a command says in a container that may do nothing."""
    said = client.containers.run(
        image,
        list(command) or None,
        remove=True,
        stderr=True,
        user=user,
        labels=LABELS,
        tmpfs={"/tmp": "", "/run": ""},
        read_only=True,
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        network_mode="none",
    )
    return bytes(said).decode()


def test_a_node_starts_as_any_user_on_a_file_system_that_is_read_only(
    client: docker.DockerClient, made: Images
) -> None:
    assert "usage: python -m node" in run(client, made.node)
    run(client, made.node, "python", "-c", "import orchestrator.gate, aggregator.server, node.trainer")
    versions = run(client, made.node, "sh", "-c", f"{images.IPFSD} version && tc -V && iptables -V")
    assert "shoal-ipfsd version" in versions


def test_nothing_is_translated_anew_at_the_start(client: docker.DockerClient, made: Images) -> None:
    script = (
        "import sys, importlib.util as u; import node.learning.runtime\n"
        "from pathlib import Path\n"
        "mine = [m.__file__ for m in sys.modules.values() if str(getattr(m, '__file__', None)).endswith('.py')]\n"
        "print(len(mine), [f for f in mine if not Path(u.cache_from_source(f)).exists()])"
    )
    counted, _, untranslated = run(client, made.node, "python", "-c", script).strip().partition(" ")
    assert int(counted) > 1000
    assert untranslated == "[]"


def test_the_image_has_what_nodes_need_and_no_more(client: docker.DockerClient, made: Images) -> None:
    script = "from importlib import metadata; print(*(d.metadata['Name'] for d in metadata.distributions()))"
    names = set(run(client, made.node, "python", "-c", script).lower().replace("_", "-").split())
    assert {"tensorflow-federated", "aiohttp", "safetensors"} <= names
    assert names.isdisjoint({"pytest", "mypy", "ruff", "docker", "mlxtend", "pyarrow", "pip"})
    assert client.images.get(made.node).attrs["Size"] < 1800 * MEBIBYTE


def test_prometheus_answers_to_the_arguments_of_its_public_image(
    client: docker.DockerClient, made: Images
) -> None:
    assert run(client, made.prometheus, "--version").startswith("prometheus, version")


def test_images_at_hand_are_found_without_asking_or_making(
    made: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("something was made, or a registry asked")

    for name in ("make", "choose"):
        monkeypatch.setattr(images.Workshop, name, never)
    said: list[str] = []
    assert images.ensure(said.append) == made
    assert said == []


def test_another_line_of_code_is_another_image_of_the_same_packages(
    client: docker.DockerClient, made: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = tmp_path / "role.py"
    changed.write_text((TOP / "node" / "role.py").read_text() + "\nNEW = 1\n")
    files = {**image_files.node_files(images.embedded_daemon()), "code/node/role.py": changed}
    monkeypatch.setattr(image_files, "node_files", lambda _: files)
    said: list[str] = []
    anew = images.ensure(said.append)
    try:
        # None of this engine's is in use, so it is told at least of the one before.
        assert [line for line in said if "docker image rm" in line and made.node in line] != []
        assert anew.node != made.node
        assert anew.prometheus == made.prometheus
        assert run(client, anew.node, "python", "-c", "from node.role import NEW; print(NEW)") == "1\n"
        layers, before = (
            client.images.get(image).attrs["RootFS"]["Layers"] for image in (anew.node, made.node)
        )
        common = [layer for layer in layers if layer in before]
        assert len(common) >= len(before) - 2  # the code's own, and the empty one of WORKDIR
    finally:
        client.images.remove(anew.node)


@pytest.fixture
def canaried(made: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A small image built on a host that is full of secrets, each of which the build could read."""
    certificates = tmp_path / "company.pem"
    certificates.write_text(f"{CANARY}\n")
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, f"http://user:{CANARY}@127.0.0.1:9")
    # The engine asks its registry itself; the proxy is for what a build fetches.
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("PIP_CERT", str(certificates))
    monkeypatch.setenv("PIP_INDEX_URL", f"https://user:{CANARY}@127.0.0.1:9/simple")
    dockerfile = tmp_path / "Dockerfile"
    # As the real one's: what is told to the build is used by one command, which shows that it was there.
    text = image_files.DOCKERFILE.read_text()
    mounts = [line for line in text.splitlines() if "--mount=type=secret" in line]
    assert len(mounts) == 2
    dockerfile.write_text(
        "\n".join(
            [
                f"FROM {images.base_of(made.way)} AS node",
                *mounts,
                # Asked for by a pattern, so that the question itself does not hold the word.
                "    grep -q 'canar[y]' /etc/pip.conf && grep -q 'canar[y]' /run/secrets/certificates && \\",
                "    env | grep -q 'canar[y]' && touch /seen",
            ]
        )
    )
    image = "shoal-test-canary:latest"
    with engine.found() as here:
        image_build.build(here, image, "node", {"Dockerfile": dockerfile}, {}, print)
        yield image
        here.client.images.remove(image)


def test_nothing_of_the_hosts_settings_stays_in_an_image(client: docker.DockerClient, canaried: str) -> None:
    image = client.images.get(canaried)
    assert run(client, canaried, "test", "-e", "/seen") == ""  # the build did see them
    assert CANARY not in str(image.history()) + str(image.attrs)
    archive = io.BytesIO(b"".join(image.save()))
    held = [
        member.name
        for layer in layers_of(archive)
        for member in layer
        if member.isreg() and CANARY.encode() in content(layer, member)
    ]
    assert held == []


def layers_of(archive: io.BytesIO) -> Iterator[tarfile.TarFile]:
    """The layers of a saved image, as older and newer engines call them."""
    with tarfile.open(fileobj=archive) as saved:
        for member in saved:
            if (member.isreg() and member.name.endswith("layer.tar")) or member.name.startswith("blobs/"):
                opened = saved.extractfile(member)
                if opened is not None and tarfile.is_tarfile(opened):
                    opened.seek(0)
                    with tarfile.open(fileobj=opened) as layer:
                        yield layer


def content(layer: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    opened = layer.extractfile(member)
    return opened.read() if opened is not None else b""


def test_the_real_image_names_no_place_of_this_host(client: docker.DockerClient, made: Images) -> None:
    image = client.images.get(made.node)
    told = str(image.history()) + str(image.attrs["Config"])
    assert str(TOP) not in told
    assert str(setup.cache_folder()) not in told
    grep = "grep -rlE 'sources|Acquire::https?::Proxy' /etc/apt; ls -A /root /run /tmp /etc/pip.conf /var/log"
    said = run(client, made.node, "sh", "-c", f"{grep} 2>&1; true", user="0:0")
    assert "Proxy" not in said
    assert "certificates" not in said
    assert ENV_CACHE not in told
