"""Run the tests on a Docker engine: the one that answers, else, as root, Debian's, for as long as they take.

python -m tests.docker.engine [--or-skip] [PYTEST ARGUMENTS]

An engine of ours has its socket and its state in a folder of its own and its images in the cache, so that the next
call finds them. It is unpacked, not installed, and ends with us, however we end.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from node.contract import ExitCode, HostError, ShoalError
from node.ipfs import cache
from orchestrator import TOP, compose_setup, host, process, setup
from orchestrator.containers import dockerd, engine
from orchestrator.process import Process
from tests.netem import parts

DEFAULT_TESTS = "tests/docker"
PACKAGES = ("docker.io", "containerd", "runc", "tini", "libdevmapper1.02.1")
PID_FILE = Path("/run/docker.pid")
LIBRARIES = "usr/lib/x86_64-linux-gnu:lib/x86_64-linux-gnu"
CURE = "run it where a Docker engine answers, or as root on a Debian whose packages can be reached"
# Where control groups may let nobody be of real-time priority, the engine must be given some to hand on.
REAL_TIME = Path("/sys/fs/cgroup/cpu/cpu.rt_runtime_us")
REAL_TIME_US = 950_000
START_S = 60.0
POLL_S = 0.1
END_S = 90.0
LAST_LINES = 12


@dataclass(frozen=True)
class Programs:
    """An engine's programs: on PATH, or unpacked somewhere."""

    folder: Path | None

    @property
    def environment(self) -> dict[str, str]:
        if self.folder is None:
            return {}
        places = [str(self.folder / place) for place in ("usr/sbin", "usr/bin")]
        libraries = [str(self.folder / place) for place in LIBRARIES.split(":")]
        return {"PATH": ":".join([*places, host.search_path()]), "LD_LIBRARY_PATH": ":".join(libraries)}


@contextlib.contextmanager
def an_engine() -> Iterator[str]:
    """The URL of an engine that can carry a fleet."""
    try:
        with engine.found() as here:
            url = here.url
    except HostError as error:
        if is_running():
            raise
        refusal = error
    else:
        yield url
        return
    say(f"{refusal.message} Starting one for these tests.")
    with own_engine() as url:
        yield url


def is_running() -> bool:
    """Whether an engine runs that will not do: a second one would take its bridge and its firewall rules."""
    try:
        pid = int(PID_FILE.read_text())
    except (OSError, ValueError):
        return False
    return process.Identity.of(pid) is not None


@contextlib.contextmanager
def own_engine(more: Sequence[str] = ()) -> Iterator[str]:
    """An engine of ours; when it has ended nothing of it is left but the images in the cache."""
    if os.geteuid() != 0:
        raise HostError("Only root can start a Docker engine.", CURE)
    programs = bring()
    data = setup.cache_folder() / "docker"
    with (
        alone(),
        tempfile.TemporaryDirectory(prefix="shoal-docker-", ignore_cleanup_errors=True) as name,
        contextlib.ExitStack() as ending,
    ):
        state = Path(name)
        ending.callback(unmount, (data, state))
        started = start(programs, data, state, more)
        ending.callback(end, started)
        url = f"{dockerd.UNIX}{state / 'docker.sock'}"
        wait_answer(started, url, state / "log", START_S)
        if engine.find_compose(url) is None:
            python = setup.find_python() or sys.executable
            compose_setup.bring(setup.compose_folder(), python, setup.run_step, say)
        yield url


def bring() -> Programs:
    """The engine on PATH, else Debian's, unpacked into the cache."""
    if shutil.which("dockerd", path=host.search_path()):
        return Programs(None)
    folder = setup.cache_folder() / "docker-engine"
    if not folder.exists():
        parts.unpack(folder, lambda: PACKAGES)
    return Programs(folder)


def start(programs: Programs, data: Path, state: Path, more: Sequence[str]) -> Process:
    """Start it, without the host's own settings; what it says goes to a file."""
    (state / "daemon.json").write_text("{}")
    with (state / "log").open("wb") as log:
        return process.start(
            # It ends as if asked to when we are killed.
            ["setpriv", "--pdeathsig", "TERM", "--", *command(data, state), *more],
            stdout=log,
            stderr=log,
            env=programs.environment,
        )


def command(data: Path, state: Path) -> list[str]:
    """An engine apart from what is installed here, and of which the host keeps no interface."""
    real_time = [f"--cpu-rt-runtime={REAL_TIME_US}"] if REAL_TIME.exists() else []
    return [
        "dockerd",
        *(f"--data-root={data}", f"--exec-root={state / 'exec'}", f"--pidfile={state / 'pid'}"),
        f"--host={dockerd.UNIX}{state / 'docker.sock'}",
        *("--storage-driver=overlay2", "--bridge=none", f"--config-file={state / 'daemon.json'}", *real_time),
    ]


def wait_answer(started: Process, url: str, log: Path, timeout_s: float) -> None:
    """Until the engine answers; when it ends instead, its last words."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            dockerd.connect(url).close()
        except HostError as error:
            ended = started.poll() is not None
            if ended or time.monotonic() > deadline:
                last = log.read_text(errors="replace").splitlines()[-LAST_LINES:]
                how = (
                    f"ended with {started.returncode}" if ended else f"gave no answer within {timeout_s:g} s"
                )
                raise HostError("\n  ".join([f"The Docker engine {how}:", *last]), CURE) from error
            time.sleep(POLL_S)
        else:
            return


def end(started: Process) -> None:
    """Ask it to end, which ends its containers, too; and make it when it does not."""
    if started.poll() is None:
        started.terminate()
    try:
        started.wait(END_S)
    finally:
        if started.poll() is None:
            started.kill()
            started.wait()


def unmount(folders: Sequence[Path]) -> None:
    """What an engine that was killed has left mounted in its folders, the innermost first."""
    for place in mounted_in(Path("/proc/self/mountinfo").read_text(), folders):
        process.run(["umount", "--lazy", place], timeout_s=END_S, check=False)


def mounted_in(mountinfo: str, folders: Sequence[Path]) -> list[str]:
    """The mount points in these folders, or on them."""
    places = [
        re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), line.split()[4])
        for line in mountinfo.splitlines()
    ]
    wanted = [place for place in places if any(Path(place).is_relative_to(folder) for folder in folders)]
    return sorted(wanted, key=len, reverse=True)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Two engines cannot share their images."""
    with cache.locked(setup.cache_folder() / "docker.lock"):
        yield


def run_tests(arguments: Sequence[str], url: str) -> int:
    """pytest, on this engine; Ctrl-C goes to it first, so that it can clean up."""
    python = str(TOP / ".venv" / "bin" / "python")
    started = process.start(
        ["setpriv", "--pdeathsig", "INT", "--", python, "-m", "pytest", *arguments],
        stdout=None,
        stderr=None,
        env={"DOCKER_HOST": url, "DOCKER_CONTEXT": ""},
    )
    try:
        return started.wait()
    except BaseException:
        started.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            started.wait(END_S)
        raise
    finally:
        end(started)


def say(text: str) -> None:
    print(f"docker: {text}", file=sys.stderr, flush=True)


def main(argv: Sequence[str]) -> int:
    """The command line; unknown arguments are pytest's."""
    parser = argparse.ArgumentParser(prog="docker", description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "--or-skip", action="store_true", help="where no engine is to be had, say so and succeed"
    )
    ours, arguments = parser.parse_known_args(argv)
    if not any(Path(argument.partition("::")[0]).exists() for argument in arguments):
        arguments = [DEFAULT_TESTS, *arguments]
    # Started in the background, we would ignore Ctrl-C and hand that on to pytest.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        with an_engine() as url:
            return run_tests(arguments, url)
    except HostError as error:
        if not ours.or_skip:
            say(str(error))
            return error.exit_code
        say(f"SKIPPED the tests on a Docker engine: {error.message} To get them: {error.hint}")
        return ExitCode.HELD
    except ShoalError as error:
        say(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
