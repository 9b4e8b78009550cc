"""The two IPFS daemons: where each is found, and what each can do."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from node.contract import ENV_IPFSD, ENV_KUBO, HostError, UsageError
from node.ipfs import build, fetch_kubo

CHOICES: Final = ("auto", "kubo", "embedded")
TRANSPORTS: Final = ("prompt", "stock", "patient")
OLDEST_KUBO: Final = (0, 40)


@dataclass(frozen=True)
class Capabilities:
    """What code above may not take for granted of every engine."""

    transports: frozenset[str]
    needs_dialler: bool  # does not redial lost peers by itself soon enough
    memory_limit: str | None  # the GOMEMLIMIT to give; the embedded daemon has its own
    interrupts_at_second_term: bool  # an open subscription delays the first SIGTERM by 30 s


KUBO: Final = Capabilities(frozenset({"prompt", "stock"}), True, "256MiB", True)
EMBEDDED: Final = Capabilities(frozenset(TRANSPORTS), False, None, False)


@dataclass(frozen=True)
class Engine:
    """One daemon that can be started."""

    name: str
    path: Path
    version: str
    capabilities: Capabilities

    def check_transport(self, transport: str) -> None:
        """Refuse a transport that this engine cannot do."""
        if transport not in TRANSPORTS:
            raise UsageError(f"there is no transport {transport!r}", f"one of {', '.join(TRANSPORTS)}")
        if transport not in self.capabilities.transports:
            able = ", ".join(sorted(self.capabilities.transports))
            raise UsageError(
                f"{self.name} cannot do transport {transport}",
                f"take one of {able}, or the embedded engine (engine: embedded)",
            )


def find(choice: str = "auto") -> Engine:
    """The engine of this choice; `auto` takes Kubo where it is at hand."""
    if choice not in CHOICES:
        raise UsageError(f"there is no engine {choice!r}", f"one of {', '.join(CHOICES)}")
    if choice == "embedded":
        return _embedded()
    kubo, why_not = _kubo()
    if kubo is not None:
        return kubo
    if choice == "kubo":
        raise HostError(f"no Kubo at hand: {why_not}", f"make kubo, or name one by {ENV_KUBO}")
    return _embedded()


def _kubo() -> tuple[Engine | None, str]:
    """Kubo by SHOAL_KUBO, on PATH, or fetched; else why there is none."""
    named = os.environ.get(ENV_KUBO)
    if named:  # an explicit wish is met or refused, never passed over
        version, complaint = _kubo_version(Path(named))
        if version is None:
            raise UsageError(
                f"{ENV_KUBO}={named}: {complaint}", "name a Kubo binary of at least 0.40, or unset it"
            )
        return Engine("kubo", Path(named).absolute(), version, KUBO), ""
    reasons = []
    for path in (shutil.which("ipfs"), fetch_kubo.fetched()):
        if path is not None:
            version, complaint = _kubo_version(Path(path))
            if version is not None:
                return Engine("kubo", Path(path).absolute(), version, KUBO), ""
            reasons.append(f"{path}: {complaint}")
    return None, "; ".join(reasons) or "no `ipfs` on PATH, none fetched"


def _kubo_version(path: Path) -> tuple[str | None, str]:
    """Its version when it is a Kubo that is new enough; else the complaint."""
    said = _says(path)
    found = re.fullmatch(r"ipfs version ((\d+)\.(\d+)\S*)", said)
    if not found:
        return None, f"is not Kubo (`version` says {said[:80]!r})"
    if (int(found.group(2)), int(found.group(3))) < OLDEST_KUBO:
        return None, f"is Kubo {found.group(1)}, at least 0.40 is needed"
    return found.group(1), ""


def _embedded() -> Engine:
    named = os.environ.get(ENV_IPFSD)
    path = Path(named).absolute() if named else build.build()
    said = _says(path)
    found = re.fullmatch(r"shoal-ipfsd version (\S+)", said)
    if not found:
        message = f"{path} is not the embedded daemon (`version` says {said[:80]!r})"
        raise (
            UsageError(message, f"{ENV_IPFSD} must name one, or be unset")
            if named
            else HostError(message, "make ipfs")
        )
    return Engine("embedded", path, found.group(1), EMBEDDED)


def _says(path: Path) -> str:
    """The answer of `PATH version`; empty when it cannot be run."""
    # Without an IPFS_PATH of nowhere Kubo would ask a daemon of the user's own for its version.
    environment = {**os.environ, "IPFS_PATH": "/nonexistent"}
    try:
        ran = subprocess.run(
            [path, "version"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return ran.stdout.decode(errors="replace").strip() if ran.returncode == 0 else ""
