"""Where Prometheus comes from: PATH, the official release, or Debian's package, unpacked and not installed.

Runs on any Python from 3.8 on, as a step of `make setup`; whoever calls lends the runner of commands.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import tarfile
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from node.contract import HostError
from orchestrator import host

VERSION = "3.5.0"
HOME = "https://github.com/prometheus/prometheus/releases/download"
STALL_S = 20.0
MAX_ARCHIVE_BYTES = 400 << 20
MAX_SUMS_BYTES = 1 << 20
RELEASE = f"prometheus-{VERSION}.linux-amd64"
PROGRAMS = ("prometheus", "promtool")
# Debian keeps the page's scripts in packages of their own, found by relative links.
PAGE_PACKAGES = (
    "fonts-glyphicons-halflings",
    "libjs-bootstrap4",
    "libjs-d3",
    "libjs-eonasdan-bootstrap-datetimepicker",
    "libjs-jquery",
    "libjs-jquery-hotkeys",
    "libjs-moment",
    "libjs-moment-timezone",
    "libjs-mustache",
    "libjs-popper.js",
    "libjs-rickshaw",
)
CURE = "install Prometheus so that `prometheus` is on PATH, for example: sudo apt-get install prometheus"

if TYPE_CHECKING:
    Say = Callable[[str], None]
    Run = Callable[
        [list[str], str, str], None
    ]  # a command, the complaint and the cure: HostError if it fails


class Prometheus(NamedTuple):
    """A Prometheus that can be started."""

    binary: Path
    assets: Path | None  # of its page, where they are not inside the binary or at Debian's own place


def find(folder: Path) -> Prometheus | None:
    """The one on PATH, else one that was brought into `folder` before."""
    on_path = shutil.which("prometheus", path=host.search_path())
    if on_path is not None:
        return Prometheus(Path(on_path), None)
    official, debian = folder / RELEASE / "prometheus", folder / "debian"
    if official.exists():
        return Prometheus(official, None)
    if debian.exists():
        return Prometheus(debian / "usr/bin/prometheus", debian / "usr/share/prometheus/web")
    return None


def bring(folder: Path, run: Run, say: Say, home_url: str = HOME) -> Prometheus:
    """Find one, or bring one into `folder`; whoever calls sees to it that only one does so at a time."""
    found = find(folder)
    if found is not None:
        return found
    folder.mkdir(parents=True, exist_ok=True)
    say(f"fetching Prometheus {VERSION}")
    try:
        bring_release(folder, home_url)
    except HostError as error:
        say(f"{error.message}; taking Debian's package instead")
        bring_package(folder, run, say)
    brought = find(folder)
    if brought is None:
        raise HostError("Prometheus was brought and is not there.", CURE)
    run([str(brought.binary), "--version"], "The Prometheus that was brought does not run.", CURE)
    return brought


def bring_release(folder: Path, home_url: str) -> None:
    """The official release, checked against its published SHA-256."""
    url = f"{home_url.rstrip('/')}/v{VERSION}"
    archive, made = folder / "archive.part", folder / f"{RELEASE}.part"
    try:
        published = published_sha256(f"{url}/sha256sums.txt", f"{RELEASE}.tar.gz")
        if download(f"{url}/{RELEASE}.tar.gz", archive) != published:
            raise HostError(f"{RELEASE}.tar.gz is not what its published SHA-256 says", CURE)
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir()
        unpack(archive, made)
        made.rename(folder / RELEASE)
    finally:
        if archive.exists():
            archive.unlink()
        shutil.rmtree(made, ignore_errors=True)


def published_sha256(url: str, name: str) -> str:
    """The checksum that the list at `url` has for a file."""
    with opened(url) as reply:
        lines = reply.read(MAX_SUMS_BYTES).decode("ascii", errors="replace").splitlines()
    for line in lines:
        checksum, _, named = line.partition(" ")
        if named.strip(" *") == name and len(checksum) == 64:
            return checksum
    raise HostError(f"{url} has no checksum of {name}", CURE)


def download(url: str, into: Path) -> str:
    """Fetch a file; its SHA-256."""
    digest, count = hashlib.sha256(), 0
    with opened(url) as reply, into.open("wb") as out:
        length = reply.headers.get("Content-Length")
        try:
            for piece in iter(lambda: reply.read(1 << 20), b""):
                count += len(piece)
                if count > MAX_ARCHIVE_BYTES:
                    raise HostError(f"{url} is larger than {MAX_ARCHIVE_BYTES} bytes", CURE)
                digest.update(piece)
                out.write(piece)
        except (OSError, http.client.HTTPException) as error:
            raise HostError(f"{url} broke off: {error}", CURE) from error
    if length is not None and count != int(length):
        raise HostError(f"{url} broke off after {count} of {length} bytes", CURE)
    return digest.hexdigest()


def opened(url: str) -> http.client.HTTPResponse:
    try:
        reply = urllib.request.urlopen(url, timeout=STALL_S)
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise HostError(f"cannot fetch {url}: {reason}", CURE) from error
    assert isinstance(reply, http.client.HTTPResponse)
    return reply


def unpack(archive: Path, into: Path) -> None:
    """Take the two programs out of the archive, and nothing else."""
    try:
        with tarfile.open(str(archive), "r:gz") as tar:
            for program in PROGRAMS:
                member = tar.getmember(f"{RELEASE}/{program}")
                content = tar.extractfile(member) if member.isreg() else None
                if content is None:
                    raise HostError(f"{program} in the Prometheus release is no plain file", CURE)
                with (into / program).open("wb") as out:
                    shutil.copyfileobj(content, out, 1 << 20)
                (into / program).chmod(0o755)
    except (tarfile.TarError, KeyError, EOFError, OSError) as error:
        raise HostError(f"cannot unpack the Prometheus release: {error}", CURE) from error


def bring_package(folder: Path, run: Run, say: Say) -> None:
    """Debian's package, downloaded and verified by apt, unpacked without being installed."""
    for tool in ("apt-get", "dpkg"):
        if shutil.which(tool, path=host.search_path()) is None:
            raise HostError(f"No Prometheus here, no release to be had, and no {tool} for Debian's.", CURE)
    made = folder / "debian.part"
    shutil.rmtree(made, ignore_errors=True)
    (made / "page").mkdir(parents=True)
    try:
        download_packages(made, ["prometheus"], run, say)
        try:
            download_packages(made / "page", list(PAGE_PACKAGES), run, say)
        except HostError as error:
            say(f"Prometheus' page in the browser will be bare: {error.message}")
        for package in [*made.glob("*.deb"), *made.glob("page/*.deb")]:
            failed = f"{package.name} cannot be unpacked."
            run(["dpkg", "--extract", str(package), str(made / "root")], failed, "is the disk full?")
        (made / "root").rename(folder / "debian")
    finally:
        shutil.rmtree(made, ignore_errors=True)


def download_packages(into: Path, names: list[str], run: Run, say: Say) -> None:
    """Let apt download packages into a folder; it needs its lists for that, and root to renew them."""
    is_root = os.geteuid() == 0
    plain = ["-o", "APT::Sandbox::User=root"] if is_root else []  # its own user cannot write here
    command = ["env", f"--chdir={into}", "apt-get", "-qq", *plain, "download", *names]
    complaint = f"apt-get cannot download {names[0]}."
    cure = f"sudo apt-get update, then again; or {CURE}"
    try:
        run(command, complaint, cure)
    except HostError:
        if not is_root:
            raise
        say("apt-get has no fresh lists: updating them")
        run(["apt-get", "update", "-qq"], "apt-get cannot update its lists.", cure)
        run(command, complaint, cure)
