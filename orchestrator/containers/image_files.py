"""What the images are made of: the files that a build is given, all of them, and the name that they make."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from orchestrator import TOP
from orchestrator.prometheus_setup import Prometheus
from orchestrator.setup import NODE_LOCK

DOCKERFILE: Final = TOP / "compose" / "Dockerfile"
# Of the orchestrator only the gate lives in a container: what else changes there needs no new image.
CODE: Final = ("node/**/*.py", "aggregator/**/*.py", "orchestrator/__init__.py", "orchestrator/gate.py")
UNREAD: Final = "moment-timezone/data"  # 200 MB that no page asks for
HASH_DIGITS: Final = 16


def node_files(ipfsd: Path) -> dict[str, Path]:
    """By their paths in the build: lock, daemon, code."""
    code = sorted(path for pattern in CODE for path in TOP.glob(pattern))
    return {
        "Dockerfile": DOCKERFILE,
        "requirements.lock": NODE_LOCK,
        "bin/ipfsd": ipfsd,
        **{f"code/{path.relative_to(TOP).as_posix()}": path for path in code},
    }


def prometheus_files(program: Prometheus) -> dict[str, Path]:
    """The program, and its page's files at Debian's own place where they are not in the program."""
    files = {"Dockerfile": DOCKERFILE, "prometheus/usr/bin/prometheus": program.binary}
    if program.assets is None:
        return files
    # The page's scripts are links to folders of other packages.
    for folder, below, names in os.walk(program.assets, followlinks=True):
        if folder.endswith(UNREAD):
            below.clear()
            continue
        into = Path("prometheus/usr/share/prometheus/web") / Path(folder).relative_to(program.assets)
        files.update({str(into / name): Path(folder, name) for name in names})
    return files


def name(files: Mapping[str, Path], settings: Iterable[str]) -> str:
    """One name for all files, their contents and whether they can be run, and for how they are built."""
    digest = hashlib.sha256("\0".join(settings).encode())
    for place, source in sorted(files.items()):
        with source.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").digest()
        digest.update(f"\0{place}\0{mode(source):o}\0".encode() + content)
    return digest.hexdigest()[:HASH_DIGITS]


def mode(source: Path) -> int:
    """A file's mode in an image: it must not depend on who checked it out."""
    return 0o755 if os.access(source, os.X_OK) else 0o644


def gather(files: Mapping[str, Path], folder: Path) -> None:
    """Lay them out for a build."""
    for place, source in files.items():
        into = folder / place
        into.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, into)
        into.chmod(mode(source))
