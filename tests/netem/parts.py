"""What the guest is made of: qemu, a Debian kernel, a busybox. Unpacked into the cache, never installed.

apt finds, downloads and verifies the packages; nothing here knows where they come from.
"""

from __future__ import annotations

import lzma
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from node.contract import HostError
from node.ipfs import cache
from orchestrator import host, process, prometheus_setup

QEMU = "qemu-system-x86_64"
KERNEL = "linux-image-amd64"  # not the smaller cloud kernel: that one has no 9p
CURE = f"it takes {QEMU} and Debian's packages {KERNEL} and busybox-static: sudo apt-get update, then again"
DOWNLOAD_TIMEOUT_S = 600.0
UNPACK_TIMEOUT_S = 120.0

# Of 390 MB of modules, those that a network of namespaces can ask for.
KEPT_FOLDERS = (
    "arch",
    "crypto",
    "fs/9p",
    "fs/fscache",
    "fs/netfs",
    "fs/overlayfs",
    "lib",
    "net",
    "drivers/virtio",
)
KEPT_PARENTS = ("drivers/char", "drivers/net")  # not the folders in them

Run = Callable[[list[str], str, str], None]


@dataclass(frozen=True)
class Qemu:
    """A qemu and what it needs in order to find its own files."""

    binary: Path
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Guest:
    """The kernel and the programs of the guest."""

    kernel: Path
    modules: Path  # the folder of this kernel's version
    busybox: Path

    @property
    def release(self) -> str:
        return self.modules.name


def bring() -> tuple[Qemu, Guest]:
    """Both, from PATH or the cache, else from Debian's packages; one at a time."""
    folder = cache.folder() / "netem"
    with cache.locked(folder.with_suffix(".lock")):
        folder.mkdir(exist_ok=True)
        return bring_qemu(folder), bring_guest(folder)


def bring_qemu(folder: Path) -> Qemu:
    """The qemu on PATH, else Debian's with the libraries that this host lacks."""
    on_path = shutil.which(QEMU, path=host.search_path())
    if on_path is not None:
        return Qemu(Path(on_path))
    kept = folder / "qemu"
    if not works(unpacked_qemu(kept)):  # its libraries are partly the host's, and may have gone
        shutil.rmtree(kept, ignore_errors=True)
        unpack(kept, lambda: missing_packages("qemu-system-x86"))
    qemu = unpacked_qemu(kept)
    if not works(qemu):
        raise HostError(f"Debian's {QEMU} does not run here.", "sudo apt-get install qemu-system-x86")
    return qemu


def unpacked_qemu(root: Path) -> Qemu:
    """A qemu that lies somewhere else than it was built for."""
    libraries = ("usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu")
    return Qemu(
        root / "usr/bin" / QEMU,
        ("-L", str(root / "usr/share/qemu"), "-L", str(root / "usr/share/seabios")),
        {
            "LD_LIBRARY_PATH": ":".join(str(root / path) for path in libraries),
            "QEMU_MODULE_DIR": str(root / libraries[0] / "qemu"),
        },
    )


def works(qemu: Qemu) -> bool:
    """Whether it starts and can do without hardware virtualisation."""
    if not qemu.binary.exists():
        return False
    asked = process.run(
        [str(qemu.binary), "-accel", "help"], env=qemu.environment, timeout_s=UNPACK_TIMEOUT_S, check=False
    )
    return asked.status == 0 and "tcg" in asked.stdout.split()


def bring_guest(folder: Path) -> Guest:
    """The kernel with its modules, made ready for modprobe."""
    kept = folder / "guest"
    if not kept.exists():
        made = folder / "guest.part"
        shutil.rmtree(made, ignore_errors=True)
        unpack(made, lambda: ["busybox-static", *kernel_packages()])
        prepare(made)
        made.rename(kept)
    [modules] = (kept / "lib/modules").iterdir()
    return Guest(kept / f"boot/vmlinuz-{modules.name}", modules, kept / "bin/busybox")


def prepare(root: Path) -> None:
    """Keep the modules that matter, plain, and index them as an installation would."""
    for usr_merged in ("bin", "lib"):  # where newer Debians put them
        if (root / "usr" / usr_merged).exists() and not (root / usr_merged).exists():
            (root / usr_merged).symlink_to(f"usr/{usr_merged}")
    folders = list((root / "lib/modules").iterdir())
    if len(folders) != 1:
        raise HostError(f"{KERNEL} brought {len(folders)} folders of modules instead of one.", CURE)
    keep_modules(folders[0] / "kernel")
    process.run(
        [str(root / "bin/busybox"), "depmod", "-b", str(root), folders[0].name], timeout_s=UNPACK_TIMEOUT_S
    )


def keep_modules(kernel: Path) -> None:
    """Remove what is not needed; unpack what is, for busybox does not."""
    for path in [path for path in kernel.rglob("*") if path.is_file()]:
        if not is_kept(PurePosixPath(path.relative_to(kernel))):
            path.unlink()
        elif path.suffix == ".xz":
            path.with_suffix("").write_bytes(lzma.decompress(path.read_bytes()))
            path.unlink()


def is_kept(module: PurePosixPath) -> bool:
    """Whether a module, by its path below kernel/, is of use in the guest."""
    is_in = any(module.is_relative_to(folder) for folder in KEPT_FOLDERS)
    return is_in or str(module.parent) in KEPT_PARENTS


def unpack(into: Path, names: Callable[[], Iterable[str]]) -> None:
    """Download packages and unpack them into one folder, which then is complete or not there."""
    for tool in ("apt-get", "dpkg"):
        if shutil.which(tool, path=host.search_path()) is None:
            raise HostError(f"No {tool} here to bring {QEMU} and a kernel with netem.", "run it on a Debian")
    part = into.with_name(f"{into.name}.unpacking")
    shutil.rmtree(part, ignore_errors=True)
    debs = part / "debs"
    debs.mkdir(parents=True)
    try:
        found = list(fresh(names))
        say(f"fetching {len(found)} packages, to be unpacked in {into.parent}: {' '.join(found)}")
        prometheus_setup.download_packages(debs, found, run, say)
        for deb in sorted(debs.iterdir()):
            run(
                ["dpkg", "--extract", str(deb), str(part / "root")],
                f"{deb.name} cannot be unpacked.",
                "is the disk full?",
            )
        (part / "root").rename(into)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def fresh(names: Callable[[], Iterable[str]]) -> Iterable[str]:
    """The names of packages; where apt has no lists, or too old ones, renew them if we may."""
    try:
        return names()
    except HostError:
        if os.geteuid() != 0:
            raise
        say("apt-get does not know the packages: updating its lists")
        run(["apt-get", "update", "-qq"], "apt-get cannot update its lists.", CURE)
        return names()


def missing_packages(name: str) -> list[str]:
    """A package and all that it needs and this host does not have."""
    said = asked(["apt-get", "install", "--simulate", "--no-install-recommends", name], name)
    return to_install(said)


def to_install(simulated: str) -> list[str]:
    """The new packages that a simulated installation names; not those that it would renew."""
    lines = [line.split() for line in simulated.splitlines() if line.startswith("Inst ")]
    return [words[1] for words in lines if not words[2].startswith("[")]


def kernel_packages() -> list[str]:
    """The packages with the kernel and its modules: what the one that is always the newest depends on."""
    found: list[str] = []
    open_ends = [KERNEL]
    while open_ends:
        said = asked(["apt-cache", "depends", open_ends.pop()], KERNEL)
        new = [name for name in kernels_in(said) if name not in found]
        found += new
        open_ends += new
    if not found:
        raise HostError(f"apt knows {KERNEL}, but not what it consists of.", CURE)
    return found


def kernels_in(depends: str) -> list[str]:
    """The parts of a kernel among the dependencies that apt-cache lists."""
    words = [line.split() for line in depends.splitlines()]
    named = [parts[1] for parts in words if len(parts) == 2 and parts[0] == "Depends:"]
    return [name for name in named if name.startswith(("linux-image-", "linux-binary-", "linux-modules-"))]


def asked(command: list[str], package: str) -> str:
    """What apt says about a package that it must know."""
    done = process.run(command, env={"LC_ALL": "C"}, timeout_s=DOWNLOAD_TIMEOUT_S, check=False)
    if done.status != 0:
        raise HostError(f"apt does not know the package {package}.", CURE)
    return done.stdout


def run(command: list[str], complaint: str, hint: str) -> None:
    """A step of bringing packages; a failure is one message."""
    done = process.run(command, timeout_s=DOWNLOAD_TIMEOUT_S, check=False)
    if done.status != 0:
        raise HostError(f"{complaint} {done.stderr.strip()}", hint)


def say(text: str) -> None:
    cache.say(f"netem: {text}")
