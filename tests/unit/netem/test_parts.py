"""Bringing qemu and the kernel: what apt says, what is kept, and an interruption; apt and dpkg are played."""

from __future__ import annotations

import lzma
from pathlib import Path, PurePosixPath

import pytest

from node.contract import HostError
from tests.netem import parts

SIMULATED = """\
NOTE: This is only a simulation!
Inst libaio1 (0.3.113-4 Debian:12/oldstable [amd64])
Inst libc6 [2.36-9] (2.36-10 Debian:12/oldstable [amd64])
Inst qemu-system-x86 (1:7.2 Debian:12/oldstable [amd64])
Conf libaio1 (0.3.113-4 Debian:12/oldstable [amd64])
"""
DEPENDS = """\
linux-image-amd64
  Depends: linux-image-6.1.0-56-amd64
  Suggests: linux-doc-6.1
 |Depends: linux-initramfs-tool
  Depends: kmod
"""
APT = """\
#!/bin/sh
echo "$*" >> "$CALLS"
case "$*" in
  *download*) touch a.deb b.deb ;;
  *) exit 100 ;;
esac
"""
DPKG = '#!/bin/sh\n[ ! -e "$BROKEN" ] || exit 1\nmkdir -p "$3" && touch "$3/$(basename "$2")"\n'


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An apt-get and a dpkg that note what is asked of them."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, script in (("apt-get", APT), ("dpkg", DPKG)):
        (programs / name).write_text(script)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.setenv("BROKEN", str(tmp_path / "broken"))
    return tmp_path / "calls"


def test_packages_that_are_here_already_are_not_renewed() -> None:
    assert parts.to_install(SIMULATED) == ["libaio1", "qemu-system-x86"]


def test_of_what_a_kernel_depends_on_only_its_own_parts_are_taken() -> None:
    assert parts.kernels_in(DEPENDS) == ["linux-image-6.1.0-56-amd64"]


@pytest.mark.parametrize(
    ("module", "is_kept"),
    [
        ("net/sched/sch_netem.ko", True),
        ("drivers/net/veth.ko", True),
        ("drivers/net/ifb.ko.xz", True),
        ("drivers/net/ethernet/intel/e1000/e1000.ko", False),
        ("drivers/virtio/virtio_pci.ko", True),
        ("fs/overlayfs/overlay.ko", True),
        ("fs/xfs/xfs.ko", False),
        ("sound/core/snd.ko", False),
    ],
)
def test_modules_of_networks_are_kept(module: str, is_kept: bool) -> None:
    assert parts.is_kept(PurePosixPath(module)) is is_kept


def test_packed_modules_are_unpacked_and_others_removed(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "sound").mkdir()
    (tmp_path / "net/veth.ko.xz").write_bytes(lzma.compress(b"veth"))
    (tmp_path / "sound/snd.ko").write_bytes(b"snd")
    parts.keep_modules(tmp_path)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["veth.ko"]
    assert (tmp_path / "net/veth.ko").read_bytes() == b"veth"


def test_packages_are_unpacked_together_and_nothing_else_is_left(tmp_path: Path, calls: Path) -> None:
    parts.unpack(tmp_path / "cache/guest", lambda: ["a", "b"])
    assert sorted(path.name for path in (tmp_path / "cache/guest").iterdir()) == ["a.deb", "b.deb"]
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["guest"]
    assert calls.read_text().split()[-3:] == ["download", "a", "b"]


def test_a_package_that_cannot_be_unpacked_leaves_nothing(tmp_path: Path, calls: Path) -> None:
    (tmp_path / "broken").touch()
    with pytest.raises(HostError, match=r"a\.deb cannot be unpacked"):
        parts.unpack(tmp_path / "cache/guest", lambda: ["a", "b"])
    assert list((tmp_path / "cache").iterdir()) == []


def test_without_apt_the_cure_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    with pytest.raises(HostError, match="No apt-get here") as caught:
        parts.unpack(tmp_path / "guest", list)
    assert caught.value.hint
