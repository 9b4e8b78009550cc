"""How a device is read, by a `tc` that is not the kernel's."""

from __future__ import annotations

from pathlib import Path

import pytest

from node.contract import HostError
from node.links.kernel import Kernel
from node.links.readback import KernelTree

QDISCS = '[{"kind":"htb","handle":"5ba1:","root":true,"options":{"default":"0x10"},"drops":0}]'
CLASSES = """\
class htb 5ba1:1 root rate 20Mbit ceil 20Mbit burst 1600b cburst 1600b
 Sent 7 bytes 1 pkt (dropped 0, overlimits 0 requeues 0)
"""
AS_JSON = '[{"class":"htb","handle":"5ba1:1"}]\n'
FILTERS = "[]\n[]\n"
TC = """\
#!/bin/sh
[ "$3" = -batch ] && exec cat batch
exec cat classes
"""


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    (tmp_path / "tc").write_text(TC)
    (tmp_path / "tc").chmod(0o755)
    (tmp_path / "classes").write_text(CLASSES)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return Kernel(tmp_path)


def read(kernel: Kernel, folder: Path, batch: str) -> KernelTree:
    (folder / "batch").write_text(batch)
    return kernel.tree("lo", "5ba1")


def test_all_that_hangs_on_a_device_is_read_at_once(kernel: Kernel, tmp_path: Path) -> None:
    (tmp_path / "classes").unlink()
    found = read(kernel, tmp_path, f"{QDISCS}\n{CLASSES}{FILTERS}")
    assert (found.handle, found.rest) == ("5ba1", 0x10)
    assert (found.classes[1].ceil_bit_s, found.classes[1].sent_bytes) == (20_000_000, 7)


def test_classes_as_later_versions_show_them_are_asked_for_as_text(kernel: Kernel, tmp_path: Path) -> None:
    found = read(kernel, tmp_path, f"{QDISCS}\n{AS_JSON}{FILTERS}")
    assert found == read(kernel, tmp_path, f"{QDISCS}\n{CLASSES}{FILTERS}")
    assert found.classes


@pytest.mark.parametrize("shown", ["", f"{QDISCS}\n", f"{QDISCS}\n{CLASSES}", f"{CLASSES}{FILTERS}"])
def test_what_is_not_understood_is_not_taken_for_nothing(kernel: Kernel, tmp_path: Path, shown: str) -> None:
    with pytest.raises(HostError, match="tc shows lo in a way that is not known"):
        read(kernel, tmp_path, shown)


def test_a_device_that_is_not_there_has_nothing(kernel: Kernel, tmp_path: Path) -> None:
    assert kernel.tree("shoal-none", "5ba1") == KernelTree()
