from __future__ import annotations

import json
import socket
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from node.contract import UsageError
from node.ipfs import daemon as daemon_module
from node.ipfs.config import Settings
from node.ipfs.daemon import Daemon
from node.ipfs.engine import EMBEDDED, KUBO, Engine
from node.ipfs.errors import DaemonError

KEY = "ab" * 32
Make = Callable[..., Daemon]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        return int(unused.getsockname()[1])


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Daemons of the fake program in one folder; whatever still runs is killed."""
    program = tmp_path / "fake-ipfs"
    script = Path(__file__).with_name("fake_ipfs.py")
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -S -E {script} "$@"\n')
    program.chmod(0o755)
    made: list[Daemon] = []

    def one(
        fault: str = "", kubo: bool = False, port: int | None = None, transport: str = "prompt"
    ) -> Daemon:
        monkeypatch.setenv("FAKE_FAULT", fault)
        engine = Engine("kubo" if kubo else "embedded", program, "1", KUBO if kubo else EMBEDDED)
        settings = Settings("10.77.0.1", api_port=port or free_port(), transport=transport)
        made.append(Daemon(engine, tmp_path, settings, KEY))
        return made[-1]

    yield one
    for daemon in made:
        if daemon.process is not None:
            daemon.kill()


def test_prepare_writes_the_configuration_over_what_init_wrote(make: Make) -> None:
    daemon = make()
    peer_id = daemon.prepare()
    config = json.loads((daemon.repository / "config").read_text())
    assert config["Identity"] == {"PeerID": peer_id, "PrivKey": "secret"}
    assert config["Datastore"] == {"Spec": "kept"}
    assert config["Addresses"]["Swarm"] == ["/ip4/10.77.0.1/tcp/4001"]
    assert config["Shoal"] == {"Transport": "prompt"}
    assert (daemon.repository / "swarm.key").read_text() == f"/key/swarm/psk/1.0.0/\n/base16/\n{KEY}\n"
    modes = [stat.S_IMODE((daemon.repository / name).stat().st_mode) for name in ("config", "swarm.key")]
    assert modes == [0o600, 0o400]


def test_the_identity_outlives_another_prepare(make: Make) -> None:
    assert make().prepare() == make(transport="stock").prepare()


def test_a_half_made_repository_is_made_again(make: Make) -> None:
    daemon = make()
    for name in ("ipfs.part", "ipfs"):
        (daemon.repository.with_name(name)).mkdir()
        (daemon.repository.with_name(name) / "half").touch()
    daemon.prepare()
    assert sorted(p.name for p in daemon.repository.iterdir()) == ["config", "swarm.key"]


def test_start_ready_stop(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IPFS_LEAK", "1")  # must not reach the daemon
    daemon = make()
    daemon.start()
    daemon.wait_ready()
    assert daemon.process is not None
    assert daemon.process.id.is_alive()
    with pytest.raises(DaemonError, match="runs already"):
        daemon.start()
    assert daemon.stop() == 0
    assert not daemon.process.id.is_alive()


def test_restart_keeps_the_identity_and_appends_to_the_log(make: Make) -> None:
    daemon = make()
    peer_id = daemon.prepare()
    daemon.start()
    daemon.wait_ready()
    assert daemon.process is not None
    before = daemon.process.id
    daemon.restart()
    assert daemon.process.id != before
    assert daemon.prepare() == peer_id
    log = daemon.log.read_text()
    assert log.count("start ") == log.count("Daemon is ready") == 2
    assert "terminating" not in daemon.last_lines()  # of this start alone


def test_kill(make: Make) -> None:
    daemon = make()
    daemon.start()
    daemon.wait_ready()
    assert daemon.kill() == -9
    daemon.start()
    daemon.wait_ready()


def test_kubo_with_a_subscriber_is_told_twice(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon_module, "FIRST_TERM_S", 0.1)
    daemon = make("subscriber", kubo=True)
    daemon.start()
    daemon.wait_ready()
    assert daemon.stop() == 0
    assert daemon.last_lines().count("terminating") == 2


def test_what_does_not_hear_sigterm_is_killed(make: Make) -> None:
    daemon = make("deaf-to-term")
    daemon.start()
    daemon.wait_ready()
    assert daemon.stop(timeout_s=0.3) == -9


def test_a_death_at_the_start_is_told_with_the_logs_end_and_a_cure(make: Make) -> None:
    daemon = make("dies")
    daemon.start()
    with pytest.raises(DaemonError, match="ended at its start \\(status 1\\)") as caught:
        daemon.wait_ready()
    assert "first line\nError: lock repo.lock" in caught.value.message
    assert str(daemon.log) in caught.value.message
    assert "another daemon uses this folder" in caught.value.hint
    assert caught.value.exit_code == 69


def test_a_port_in_use(make: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        daemon = make(port=taken.getsockname()[1])
        daemon.start()
        assert daemon.process is not None
        assert daemon.process.wait_exit(10) == 1
        with pytest.raises(DaemonError, match="address already in use") as caught:
            daemon.wait_ready()
    assert "other ports" in caught.value.hint


def test_another_daemon_at_our_port_is_not_taken_for_ours(make: Make) -> None:
    daemon = make("stranger")
    daemon.start()
    with pytest.raises(DaemonError, match="another daemon, 12D3somebody-else, answers on port"):
        daemon.wait_ready()


def test_a_daemon_that_never_gets_ready_is_ended(make: Make) -> None:
    daemon = make("never-ready")
    daemon.start()
    with pytest.raises(DaemonError, match=r"does not answer after 0\.5 s"):
        daemon.wait_ready(timeout_s=0.5)
    assert daemon.process is not None
    assert not daemon.process.id.is_alive()


def test_a_failing_init_is_told(make: Make) -> None:
    daemon = make("init")
    with pytest.raises(DaemonError, match="no space left") as caught:
        daemon.prepare()
    assert "free some disk space" in caught.value.hint
    assert not daemon.repository.exists()


def test_a_damaged_configuration_is_named(make: Make) -> None:
    daemon = make()
    daemon.prepare()
    (daemon.repository / "config").write_text('{\n "Identity": {')
    with pytest.raises(UsageError, match=r"ipfs/config:2: no valid JSON"):
        daemon.start()


def test_a_transport_that_the_engine_cannot_do_is_refused(make: Make) -> None:
    with pytest.raises(UsageError, match="kubo cannot do transport patient"):
        make(kubo=True, transport="patient")


def test_nothing_works_before_the_start(make: Make) -> None:
    daemon = make()
    acts: list[Callable[[], object]] = [daemon.stop, daemon.kill, daemon.wait_ready]
    for act in acts:
        with pytest.raises(DaemonError, match="never started"):
            act()


def test_a_program_that_is_missing(make: Make, tmp_path: Path) -> None:
    daemon = make()
    daemon.engine = replace(daemon.engine, path=tmp_path / "nothing")
    with pytest.raises(DaemonError, match="nothing init"):
        daemon.prepare()
