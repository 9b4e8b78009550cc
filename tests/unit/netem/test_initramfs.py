"""The archive that the guest starts from."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from node.contract import HostError
from tests.netem import initramfs

DEPENDENCIES = """\
kernel/fs/9p/9p.ko: kernel/net/9p/9pnet.ko kernel/fs/netfs/netfs.ko
kernel/net/9p/9pnet.ko:
kernel/net/9p/9pnet_virtio.ko: kernel/net/9p/9pnet.ko
"""


def test_a_module_brings_those_that_it_needs() -> None:
    assert initramfs.needed(("9p",), DEPENDENCIES, "") == [
        "kernel/fs/9p/9p.ko",
        "kernel/fs/netfs/netfs.ko",
        "kernel/net/9p/9pnet.ko",
    ]


def test_what_is_part_of_the_kernel_needs_no_file_and_what_is_nowhere_is_named() -> None:
    assert initramfs.needed(("overlay",), DEPENDENCIES, "kernel/fs/overlayfs/overlay.ko\n") == []
    with pytest.raises(HostError, match="no module overlay"):
        initramfs.needed(("overlay",), DEPENDENCIES, "")


def test_every_entry_begins_where_the_kernel_looks_for_it() -> None:
    packed = initramfs.archive({"init": b"123", "bin/busybox": b"1"})
    names, offset = [], 0
    while offset < len(packed):
        assert packed[offset : offset + 6] == b"070701"
        fields = [int(packed[offset + 6 + 8 * i : offset + 14 + 8 * i], 16) for i in range(13)]
        name = packed[offset + 110 : offset + 110 + fields[11] - 1].decode()
        names.append(name)
        after_name = -(-(offset + 110 + fields[11]) // 4) * 4
        offset = -(-(after_name + fields[6]) // 4) * 4
    assert names == ["bin", "init", "bin/busybox", "TRAILER!!!"]


def test_the_whole_holds_init_busybox_and_modules(tmp_path: Path) -> None:
    modules = tmp_path / "6.1.0-amd64"
    (modules / "kernel").mkdir(parents=True)
    for name in initramfs.INDEXES:
        (modules / name).write_text("")
    (modules / "modules.builtin").write_text("9p.ko 9pnet_virtio.ko overlay.ko\n")
    (modules / "modules.dep").write_text("kernel/virtio_pci.ko:\n")
    (modules / "kernel/virtio_pci.ko").write_bytes(b"the module")
    unpacked = gzip.decompress(initramfs.build("the script", b"the program", modules))
    for content in (
        b"the script",
        b"the program",
        b"the module",
        b"lib/modules/6.1.0-amd64/kernel/virtio_pci.ko\0",
    ):
        assert content in unpacked
