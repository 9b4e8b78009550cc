from __future__ import annotations

import ast
import fcntl
import queue
import re
import threading
from pathlib import Path

import pytest

from node.contract import ExitCode
from orchestrator import host, setup

TOP = Path(__file__).resolve().parents[3]

FAKE_UV = """#!/bin/sh
echo "$1 $2 $3" >> "$FAKE/calls"
case "$1 $2" in
"venv --quiet")
    [ "$3" = --clear ] || exit 9
    for last; do :; done
    rm -rf "$last"; mkdir -p "$last/bin"; echo version_info = 3.11.7 > "$last/pyvenv.cfg"
    echo "$FAKE_PYTHON" > "$last/bin/python"; chmod +x "$last/bin/python" ;;
"pip sync")
    [ "$3" = --require-hashes ] || exit 9
    [ ! -e "$FAKE/broken" ] || exit 7 ;;
*) exit 9 ;;
esac
"""

FAKE_PYTHON = """#!/bin/sh
echo "python $1" >> "$FAKE/calls"
[ ! -e "$FAKE/unimportable" ] && [ -z "$PYTHONDONTWRITEBYTECODE" ]
"""


class Project:
    """A checkout with a fake uv; `calls` takes what uv was asked since the last look."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock = folder / "requirements.lock"
        self.stamp = folder / ".venv" / "shoal-stamp"

    def calls(self) -> list[str]:
        log = self.folder / "calls"
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return [" ".join(line.split()[:2]) for line in lines]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    project = Project(tmp_path)
    project.lock.write_text("a==1\n")
    uv = tmp_path / "bin" / "uv"
    uv.parent.mkdir()
    uv.write_text(FAKE_UV)
    uv.chmod(0o755)
    for program in ("ping", "prometheus"):
        (uv.parent / program).write_text("#!/bin/sh\nexit 9\n")
        (uv.parent / program).chmod(0o755)
    monkeypatch.setenv("PATH", f"{uv.parent}:/usr/bin:/bin")
    monkeypatch.setenv("FAKE", str(tmp_path))
    monkeypatch.setenv("FAKE_PYTHON", FAKE_PYTHON)
    monkeypatch.setenv("SHOAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(setup, "LOCK", project.lock)
    monkeypatch.setattr(setup, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(setup, "STAMP", project.stamp)
    monkeypatch.setattr(setup, "find_python", lambda: "/usr/bin/python3")
    monkeypatch.setattr(setup, "pip_settings", lambda _: {})
    monkeypatch.setattr(setup, "check_machine", lambda: None)
    monkeypatch.setattr(host, "missing_tools", list)
    return project


def test_the_second_time_nothing_is_run(project: Project, capfd: pytest.CaptureFixture[str]) -> None:
    assert setup.main([]) == 0
    assert project.calls() == ["venv --quiet", "pip sync", "python -W"]
    capfd.readouterr()
    assert setup.main([]) == 0
    assert project.calls() == []
    assert capfd.readouterr() == ("", "")


def test_another_lock_is_installed_into_the_same_environment(project: Project) -> None:
    setup.main([])
    project.calls()
    project.lock.write_text("a==2\n")
    assert setup.main([]) == 0
    assert project.calls() == ["pip sync", "python -W"]


def test_another_python_is_noticed(project: Project) -> None:
    setup.main([])
    project.calls()
    (project.stamp.parent / "pyvenv.cfg").write_text("version_info = 3.11.9")
    assert setup.main([]) == 0
    assert "pip sync" in project.calls()


def test_after_an_interruption_it_is_made_anew(project: Project, capfd: pytest.CaptureFixture[str]) -> None:
    setup.main([])
    project.calls()
    project.lock.write_text("a==2\n")
    (project.folder / "broken").touch()
    assert setup.main([]) == ExitCode.HOST
    assert "could not be installed" in capfd.readouterr().err
    assert not project.stamp.exists()
    project.calls()
    (project.folder / "broken").unlink()
    assert setup.main([]) == 0
    assert project.calls() == ["venv --quiet", "pip sync", "python -W"]


def test_what_cannot_be_imported_is_not_ready(project: Project, capfd: pytest.CaptureFixture[str]) -> None:
    (project.folder / "unimportable").touch()
    assert setup.main([]) == ExitCode.HOST
    assert "cannot be imported" in capfd.readouterr().err
    assert not project.stamp.exists()


def test_bytecode_is_written_though_the_environment_forbids_it(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    assert setup.main([]) == 0
    assert project.calls()[-1] == "python -W"


def test_the_second_of_two_at_once_waits_and_finds_the_work_done(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: queue.Queue[str] = queue.Queue()
    monkeypatch.setattr(setup, "say", said.put)
    setup.main([])
    stamp = project.stamp.read_text()
    project.stamp.unlink()
    while not said.empty():
        said.get()
    project.calls()
    with (setup.cache_folder() / "setup.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        second = threading.Thread(target=setup.main, args=([],))
        second.start()
        assert "waiting" in said.get(timeout=20)
        project.stamp.write_text(stamp)
    second.join(20)
    assert project.calls() == []


def test_missing_tools_without_root_are_all_named(
    project: Project, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        host, "missing_tools", lambda: [host.Tool("tc", "iproute2"), host.Tool("iptables", "iptables")]
    )
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert setup.main([]) == ExitCode.HOST
    said = capfd.readouterr().err
    assert "tc, iptables" in said
    assert "iproute2 iptables" in said
    assert project.calls() == []


def test_missing_tools_are_installed_by_root_with_apt(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    apt = project.folder / "bin" / "apt-get"
    apt.write_text(
        '#!/bin/sh\n[ "$DEBIAN_FRONTEND" = noninteractive ] || exit 9\necho apt "$*" >> "$FAKE/apt"\n'
    )
    apt.chmod(0o755)
    missing = [[host.Tool("iptables", "iptables")]] * 2
    monkeypatch.setattr(host, "missing_tools", lambda: missing.pop() if missing else [])
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert setup.main([]) == 0
    update, install = (project.folder / "apt").read_text().splitlines()
    assert "update" in update
    assert install.endswith("iptables")


def test_another_processor_is_refused_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(setup, "is_ready", lambda: False)
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert setup.main([]) == ExitCode.HOST
    assert "aarch64" in capfd.readouterr().err


def test_pips_index_and_certificate_are_handed_to_uv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    python.write_text(
        "#!/bin/sh\necho \"global.index-url='https://index.example/simple'\"\necho \":env:.cert='/c.pem'\"\n"
    )
    python.chmod(0o755)
    for name in ("UV_DEFAULT_INDEX", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    assert setup.pip_settings(str(python)) == {
        "UV_DEFAULT_INDEX": "https://index.example/simple",
        "SSL_CERT_FILE": "/c.pem",
    }
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://mine.example")
    assert "UV_DEFAULT_INDEX" not in setup.pip_settings(str(python))


@pytest.mark.parametrize(
    "name",
    [
        f"orchestrator/{name}.py"
        for name in ("__init__", "setup", "host", "prometheus_setup", "compose_setup")
    ],
)
def test_set_up_runs_on_old_pythons(name: str) -> None:
    ast.parse((TOP / name).read_text(), feature_version=(3, 8))


@pytest.mark.parametrize("name", ["requirements.lock", "compose/requirements.lock"])
def test_the_lock_names_no_index_and_no_machine(name: str) -> None:
    lock = (TOP / name).read_text()
    assert "://" not in lock
    assert "index" not in lock.replace("index_", "")
    assert all(line.startswith(" ") or "==" in line for line in lock.splitlines())


def locked(name: str) -> set[str]:
    """Every package of a lock, with its version and hashes."""
    entries = re.split(r"\n(?! )", (TOP / name).read_text().strip())
    return {" ".join(entry.replace("\\", " ").split()) for entry in entries}


def test_nodes_have_the_very_packages_of_the_host_and_none_that_only_it_needs() -> None:
    nodes, everything = locked("compose/requirements.lock"), locked("requirements.lock")
    assert nodes < everything
    names = {entry.partition("==")[0] for entry in nodes}
    assert "tensorflow-federated" in names
    assert names.isdisjoint({"pytest", "mypy", "ruff", "docker", "mlxtend", "pyarrow"})
