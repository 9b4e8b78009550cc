"""What Shoal needs of the host: programs, and where they may hide.

Runs on any Python from 3.8 on, because `make setup` asks before the project's own Python exists.
"""

from __future__ import annotations

import os
import shutil
from typing import NamedTuple

# Debian leaves these out of an ordinary user's PATH; `ip`, `tc` and `iptables` live there.
SYSTEM_FOLDERS = ("/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin")


class Tool(NamedTuple):
    """A program and the Debian package that brings it."""

    program: str
    package: str


TOOLS = (
    Tool("ip", "iproute2"),
    Tool("tc", "iproute2"),
    Tool("unshare", "util-linux"),
    Tool("nsenter", "util-linux"),
    Tool("setpriv", "util-linux"),
    Tool("iptables", "iptables"),
)


def search_path() -> str:
    """PATH with the system's own folders behind it."""
    folders = [folder for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
    return os.pathsep.join([*folders, *(folder for folder in SYSTEM_FOLDERS if folder not in folders)])


def missing_tools() -> list[Tool]:
    """The tools that are nowhere on the search path."""
    path = search_path()
    return [tool for tool in TOOLS if shutil.which(tool.program, path=path) is None]


def cure_for(tools: list[Tool]) -> str:
    """The command that brings these tools."""
    packages = " ".join(sorted({tool.package for tool in tools}))
    if shutil.which("apt-get", path=search_path()):
        return f"sudo apt-get update && sudo apt-get install -y {packages}"
    return f"install these with your system's package manager (named as in Debian): {packages}"


def cure_for_box(step: str) -> str:
    """Why a host refuses namespaces, most likely, and the command that allows them."""
    if _sysctl("kernel/apparmor_restrict_unprivileged_userns") == "1" and os.geteuid() != 0:
        return "AppArmor forbids it: sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
    if _sysctl("kernel/unprivileged_userns_clone") == "0" and os.geteuid() != 0:
        return "the kernel forbids it: sudo sysctl -w kernel.unprivileged_userns_clone=1"
    for kind in ("user", "pid", "net", "mnt", "uts"):
        if _sysctl(f"user/max_{kind}_namespaces") == "0":
            return f"the kernel allows none: sudo sysctl -w user.max_{kind}_namespaces=15000"
    if step == "mounting /proc":
        return "/proc is masked, as in a container: run on the host, or start the container with --privileged"
    return "in a container: start it with --privileged; else: run as root"


def _sysctl(name: str) -> str | None:
    """A kernel setting; None where this kernel has no such setting."""
    try:
        with open(f"/proc/sys/{name}") as file:
            return file.read().strip()
    except OSError:
        return None
