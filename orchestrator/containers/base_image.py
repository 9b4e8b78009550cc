"""The images' base where no registry can be reached: made of Debian's own packages by mmdebstrap."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from docker import DockerClient

from node.contract import HostError
from orchestrator import host, process, setup
from orchestrator.containers import dockerd

REPOSITORY: Final = "shoal-base"
SUITE: Final = "bookworm"  # its Python is the nodes': 3.11
PACKAGES: Final = (
    "python3",
    "python3-pip-whl",
    "iproute2",
    "iptables",
    "iputils-ping",
    "libstdc++6",
    "usr-is-merged",
)
LEFT_OUT: Final = tuple(f"/usr/share/{folder}/*" for folder in ("doc", "info", "locale", "man"))
# What names this host's mirrors and proxies, and what of the unpacking nobody reads.
FORGOTTEN: Final = tuple(
    f'"$1"/{path}' for path in ("etc/apt/sources.list*", "etc/apt/apt.conf.d/99mmdebstrap", "var/log/*")
)
HOOKS: Final = "/usr/share/mmdebstrap/hooks/merged-usr"
MMDEBSTRAP: Final = host.Tool("mmdebstrap", "mmdebstrap")
MIRRORS: Final = Path("/etc/apt")
TIMEOUT_S: Final = 900.0

Say = Callable[[str], None]


def tag() -> str:
    """One name for the packages asked for; newer ones of the same name come when this image is removed."""
    asked = "\0".join(["1", SUITE, *PACKAGES, *LEFT_OUT])
    return f"{REPOSITORY}:{hashlib.sha256(asked.encode()).hexdigest()[:16]}"


def make(client: DockerClient, labels: Sequence[str], say: Say) -> None:
    """Unpack the packages into an archive and give it to the engine."""
    if shutil.which(MMDEBSTRAP.program, path=host.search_path()) is None:
        setup.apt_install([MMDEBSTRAP])
    say(f"the images' base: unpacking Debian {SUITE}'s packages, about half a minute")
    with tempfile.TemporaryDirectory(prefix="shoal-base-") as name:
        archive = Path(name) / "base.tar"
        done = process.run(
            command(archive, debian_mirrors(), apt_settings()),
            env={"LC_ALL": "C"},
            timeout_s=TIMEOUT_S,
            check=False,
        )
        if done.status != 0:
            last = "\n".join(done.stderr.strip().splitlines()[-3:])
            raise HostError(
                f"mmdebstrap cannot make the images' base: {last}",
                "see that Debian's packages can be reached as apt is configured; without root it needs user "
                f"namespaces; {dockerd.WITHOUT}",
            )
        with dockerd.told("importing the images' base"):
            changes = [f"LABEL {label}" for label in labels]
            repository, _, name_tag = tag().partition(":")
            client.api.import_image_from_file(str(archive), repository, name_tag, changes=changes)


def command(archive: Path, mirrors: Sequence[str], settings: Sequence[str]) -> list[str]:
    """What makes it. The image has no apt, so of mirrors and proxies nothing may remain, either."""
    return [
        *("mmdebstrap", "--variant=essential", "--format=tar", "--quiet", f"--hook-dir={HOOKS}"),
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT),
        *(f"--aptopt={setting}" for setting in settings),
        f"--include={','.join(PACKAGES)}",
        f"--customize-hook=rm -rf {' '.join(FORGOTTEN)}",
        *(SUITE, str(archive), *mirrors),
    ]


def debian_mirrors() -> list[str]:
    """Where this host's apt takes Debian from, when it is this suite; else nothing, and mmdebstrap knows."""
    lists = [*MIRRORS.glob("sources.list"), *sorted(MIRRORS.glob("sources.list.d/*"))]
    return mirrors_in("\n\n".join(path.read_text(errors="replace") for path in lists if path.is_file()))


def mirrors_in(sources: str) -> list[str]:
    """The lines of this suite, its updates and its security, out of lists in either of apt's two forms."""
    suites = {SUITE, f"{SUITE}-updates", f"{SUITE}-security"}
    found = []
    for line in sources.splitlines():
        one = re.match(r"deb\s+(\[[^]]*\]\s+)?(\S+)\s+(\S+)\s", line)
        if one and one[3] in suites:
            found.append(f"deb {one[1] or ''}{one[2]} {one[3]} main")
    for paragraph in re.split(r"\n\s*\n", sources):
        keys = dict(re.findall(r"^([\w-]+):[ \t]*(.*)$", paragraph, re.MULTILINE))
        if "deb" in keys.get("Types", "").split() and keys.get("Enabled", "yes") != "no":
            signed = keys.get("Signed-By", "")
            how = f"[signed-by={signed}] " if signed.startswith("/") else ""
            found += [
                f"deb {how}{uri} {suite} main"
                for uri in keys.get("URIs", "").split()
                for suite in keys.get("Suites", "").split()
                if suite in suites
            ]
    return found if any(f" {SUITE} " in line for line in found) else []


def apt_settings() -> list[str]:
    """The host's ways through a proxy, which mmdebstrap does not take over by itself."""
    asked = process.run(["apt-config", "dump"], timeout_s=TIMEOUT_S, check=False) if has_apt() else None
    return settings_in(asked.stdout) if asked else []


def settings_in(dump: str) -> list[str]:
    """How apt reaches its mirrors: proxies, certificates, retries."""
    wanted = re.compile(r'^Acquire::(https?|ftp|Retries)\S* ".+";$')
    return [line.rstrip(";") for line in dump.splitlines() if wanted.match(line)]


def has_apt() -> bool:
    return shutil.which("apt-config", path=host.search_path()) is not None and os.access(MIRRORS, os.R_OK)
