"""One IPFS daemon's life: its folder, its process, its log.

Blocking on purpose, and `start` must be called from a thread that lives as long as the daemon
shall (see node/process.py); the waits may be made from any thread.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import Final

from node.ipfs import config
from node.ipfs.config import INIT_PROFILES, LOOPBACK, Settings
from node.ipfs.engine import Engine
from node.ipfs.errors import DaemonError
from node.process import Process

READY_S: Final = 20.0
STOP_S: Final = 12.0
FIRST_TERM_S: Final = 3.0  # Kubo with an open subscription takes 30 s, unless told a second time
PROBE_S: Final = 0.01
ANSWER_S: Final = 0.5  # of one probe; an unanswered one is made again
LOG_LINES: Final = 12
# A thread of Go's runtime looks after the others every 20 microseconds while there is any work, and each
# look takes a processor from somebody: from another node, where a host has fewer processors than nodes.
TIMER_SLACK_NS: Final = 1_000_000

CURES: Final = (
    (r"address already in use", "something else listens on that port: stop it, or take other ports"),
    (r"repo\.lock|lock", "another daemon uses this folder: stop it, or take another folder"),
    (r"no space left", "free some disk space, or take another folder"),
    (r"cannot assign requested address", "the data address is not one of this node's"),
    (r"privnet|swarm\.key|psk", "the swarm key is missing or damaged"),
    (r"config|json|invalid character", "the configuration is damaged: repair or remove the folder"),
)


class Daemon:
    """A daemon with its data in `folder`/ipfs and its output in `folder`/ipfs.log."""

    def __init__(self, engine: Engine, folder: Path, settings: Settings, swarm_key: str) -> None:
        engine.check_transport(settings.transport)
        self.engine = engine
        self.settings = settings
        self.repository = folder / "ipfs"
        self.log = folder / "ipfs.log"
        self.process: Process | None = None
        self._key_text = config.swarm_key_text(swarm_key)
        self._log_start = 0

    def prepare(self) -> str:
        """Make the folder when it is new, write the configuration; the daemon's peer ID."""
        if not (self.repository / "config").exists():
            self._init()
        file = self.repository / "config"
        old = config.parse(file.read_text(), file)
        peer_id = config.identity(old, file)
        new = config.merged(old, config.overrides(self.settings))
        _write(file, json.dumps(new, indent=2) + "\n", mode=0o600)  # it holds the private key
        _write(self.repository / "swarm.key", self._key_text, mode=0o400)
        return peer_id

    def start(self) -> None:
        """Start the process; it ends with the thread that calls this."""
        if self.process is not None and self.process.exit_status is None:
            raise DaemonError("the daemon runs already")
        self.prepare()
        with open(self.log, "a") as log:
            log.write(f"== {datetime.now(UTC).isoformat()} start {self.engine.path} daemon\n")
            self._log_start = log.tell()
        self.process = Process.start(
            [str(self.engine.path), "daemon"],
            env=self._environment(),
            log=self.log,
            timer_slack_ns=TIMER_SLACK_NS,
        )

    def wait_ready(self, timeout_s: float = READY_S) -> None:
        """Until its RPC answers with its own peer ID."""
        process, peer_id = self._started(), self._peer_id()
        deadline = time.monotonic() + timeout_s
        while process.exit_status is None and time.monotonic() < deadline:
            answered = self._ask_id()
            if answered == peer_id and process.exit_status is None:
                return
            if answered is not None and process.wait_exit(PROBE_S) is None and answered != peer_id:
                raise self._error(f"another daemon, {answered}, answers on port {self.settings.api_port}")
            process.wait_exit(PROBE_S)  # wakes at once when it dies
        if process.exit_status is not None:
            raise self._error(
                f"the {self.engine.name} daemon ended at its start (status {process.exit_status})"
            )
        self.kill()
        raise self._error(f"the {self.engine.name} daemon does not answer after {timeout_s} s")

    def stop(self, timeout_s: float = STOP_S) -> int:
        """SIGTERM, again for an engine that waits for subscribers, SIGKILL at last; the exit status."""
        process = self._started()
        deadline = time.monotonic() + timeout_s
        process.signal(SIGTERM)
        second = self.engine.capabilities.interrupts_at_second_term
        if second and process.wait_exit(min(FIRST_TERM_S, timeout_s)) is None:
            process.signal(SIGTERM)
        status = process.wait_exit(max(0.0, deadline - time.monotonic()))
        return self.kill() if status is None else status

    def kill(self) -> int:
        """SIGKILL; the exit status."""
        process = self._started()
        process.signal(SIGKILL)
        status = process.wait_exit(10.0)
        if status is None:
            raise DaemonError(f"process {process.id.pid} does not die of SIGKILL", "its disk may hang")
        return status

    def restart(self, timeout_s: float = READY_S) -> None:
        """Stop and start again; tunnels, connections and counters are gone, all else is kept."""
        self.stop()
        self.start()
        self.wait_ready(timeout_s)

    def last_lines(self) -> str:
        """The end of what the daemon has said since its last start."""
        with open(self.log, "rb") as log:
            log.seek(self._log_start)
            lines = log.read().decode(errors="replace").splitlines()
        return "\n".join(lines[-LOG_LINES:])

    def _init(self) -> None:
        """`init` beside the final place, so that a half-made repository never counts as one."""
        made = self.repository.with_name("ipfs.part")
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(parents=True)
        try:
            ran = subprocess.run(
                [self.engine.path, "init", f"--profile={INIT_PROFILES}"],
                env={**self._environment(), "IPFS_PATH": str(made)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=60,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as err:
            raise DaemonError(f"{self.engine.path} init: {err}") from err
        if ran.returncode != 0:
            said = ran.stdout.decode(errors="replace").strip()
            raise DaemonError(f"{self.engine.path} init failed:\n{said}", _cure(said))
        if self.repository.exists():  # left behind without a configuration
            shutil.rmtree(self.repository)
        made.rename(self.repository)

    def _environment(self) -> Mapping[str, str]:
        # Settings of a daemon of the user's own must not leak into this one.
        own = {k: v for k, v in os.environ.items() if not k.startswith(("IPFS_", "LIBP2P_", "KUBO_"))}
        limit = self.engine.capabilities.memory_limit
        return {
            **({"GOMEMLIMIT": limit} if limit else {}),
            **own,
            "IPFS_PATH": str(self.repository),
            "LIBP2P_FORCE_PNET": "1",
            "IPFS_TELEMETRY": "off",
        }

    def _peer_id(self) -> str:
        file = self.repository / "config"
        return config.identity(config.parse(file.read_text(), file), file)

    def _ask_id(self) -> str | None:
        connection = http.client.HTTPConnection(LOOPBACK, self.settings.api_port, timeout=ANSWER_S)
        try:
            connection.request("POST", "/api/v0/id?timeout=2s")
            reply = connection.getresponse()
            answer = json.loads(reply.read(1 << 20)) if reply.status == 200 else {}
        except (OSError, http.client.HTTPException, ValueError):
            return None
        finally:
            connection.close()
        return str(answer["ID"]) if isinstance(answer, dict) and "ID" in answer else None

    def _started(self) -> Process:
        if self.process is None:
            raise DaemonError("the daemon was never started")
        return self.process

    def _error(self, what: str) -> DaemonError:
        said = self.last_lines()
        return DaemonError(f"{what}; {self.log} ends:\n{said}", _cure(said))


def _cure(said: str) -> str:
    return next((cure for pattern, cure in CURES if re.search(pattern, said, re.IGNORECASE)), "")


def _write(file: Path, text: str, mode: int) -> None:
    """Replace a file whole; it is never seen half written, nor with a wider mode."""
    made = file.with_name(file.name + ".part")
    made.unlink(missing_ok=True)
    descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with open(descriptor, "w") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    os.replace(made, file)
