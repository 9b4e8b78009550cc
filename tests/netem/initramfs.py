"""The guest's first file system: busybox, the script that it runs, and the modules needed to see the host's files."""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Mapping
from pathlib import Path

from node.contract import HostError

FIRST_MODULES = ("virtio_pci", "9pnet_virtio", "9p", "overlay")
INDEXES = ("modules.dep", "modules.alias", "modules.symbols", "modules.builtin")
FOLDER, PROGRAM = 0o040755, 0o100755
PIECE_BYTES = 4  # everything in the archive begins at a multiple of this


def build(init: str, busybox: bytes, modules: Path) -> bytes:
    """The archive that the kernel unpacks, compressed."""
    below = f"lib/modules/{modules.name}"
    files = {"init": init.encode(), "bin/busybox": busybox}
    names = needed(
        FIRST_MODULES, (modules / "modules.dep").read_text(), (modules / "modules.builtin").read_text()
    )
    files |= {f"{below}/{name}": (modules / name).read_bytes() for name in [*INDEXES, *names]}
    return gzip.compress(archive(files), compresslevel=1)


def needed(modules: tuple[str, ...], dependencies: str, built_in: str) -> list[str]:
    """The files of these modules and of those that they depend on; a module may be part of the kernel."""
    by_name = {}
    for line in dependencies.splitlines():
        path, _, others = line.partition(":")
        by_name[Path(path).stem] = [path, *others.split()]
    inside = {Path(path).stem for path in built_in.split()}
    found: set[str] = set()
    for module in modules:
        if module in by_name:
            found.update(by_name[module])
        elif module not in inside:
            raise HostError(f"The guest's kernel has no module {module}.", "make clean, then again")
    return sorted(found)


def archive(files: Mapping[str, bytes]) -> bytes:
    """Files and the folders around them in the kernel's own archive format (cpio, "newc")."""
    folders = {str(folder) for name in files for folder in Path(name).parents} - {"."}
    entries = [entry(name, FOLDER, b"") for name in sorted(folders)]  # sorted: the outer one is first
    entries += [entry(name, PROGRAM, data) for name, data in files.items()]
    return b"".join(piece for pieces in [*entries, entry("TRAILER!!!", 0, b"")] for piece in pieces)


def entry(name: str, mode: int, data: bytes) -> Iterator[bytes]:
    """One file of the archive."""
    encoded = name.encode() + b"\0"
    links, owner, devices = 1, (0, 0), (0, 0, 0, 0)
    fields = (0, mode, *owner, links, 0, len(data), *devices, len(encoded), 0)
    yield padded(b"070701" + b"".join(b"%08x" % value for value in fields) + encoded)
    yield padded(data)


def padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % PIECE_BYTES)
