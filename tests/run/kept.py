"""A fleet that is kept, and a terminal beside it from which to do things to it."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.driver import ENV_DRIVER, DriverName

TOP = Path(__file__).resolve().parents[2]
TINY = TOP / "tests" / "run" / "tiny.yaml"
MARK = "SHOAL_TEST_MARK"
CALL_S = 30.0


@dataclass(frozen=True)
class Terminal:
    """A folder to stand in; all share one record of living runs, apart from this machine's others."""

    folder: Path
    registry: Path
    driver: DriverName = "netns"

    def start(self, *words: str) -> subprocess.Popen[str]:
        environment = {
            MARK: str(self.folder),
            "XDG_RUNTIME_DIR": str(self.registry),
            "PYTHONPATH": str(TOP),
            ENV_DRIVER: self.driver,
        }
        return subprocess.Popen(
            [sys.executable, "-m", "orchestrator.cli", *words],
            cwd=self.folder,
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def call(self, *words: str, given: str = "") -> tuple[int, str]:
        """Exit status and what was said."""
        with self.start(*words) as process:
            said, _ = process.communicate(given, timeout=CALL_S)
        return process.returncode, said

    def exec(self, node: str, *command: str, given: str = "") -> tuple[int, str]:
        return self.call("exec", node, "--", *command, given=given)

    def recorded(self) -> list[dict[str, Any]]:
        return [json.loads(file.read_text()) for file in (self.registry / "shoal").glob("*.json")]

    def processes(self) -> set[int]:
        """Every process that was started from this folder, found by its environment."""
        return {
            pid for pid in all_processes() if f"{MARK}={self.folder}".encode() in words_of(pid, "environ")
        }

    def wait_no_process(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while left := self.processes():
            assert time.monotonic() < deadline, f"left behind: {left}"
            time.sleep(0.05)


def all_processes() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())


def words_of(pid: int, file: str) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/{file}").read_bytes().split(b"\0")
    except OSError:
        return []


@dataclass
class Kept:
    """A run that stays up after its verdict."""

    process: subprocess.Popen[str]
    terminal: Terminal
    said: str = ""

    def wait_kept(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said += line
            if "the fleet is kept" in line:
                return
        raise AssertionError(f"it was not kept:\n{self.said}")

    @property
    def directory(self) -> Path:
        return (self.terminal.folder / "runs" / "tiny" / "latest").resolve()

    @property
    def id(self) -> str:
        return f"tiny-{self.directory.name}".lower()

    @property
    def record(self) -> dict[str, Any]:
        (mine,) = [one for one in self.terminal.recorded() if one["directory"] == str(self.directory)]
        return mine

    @property
    def results(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.directory / "results.json").read_text())
        return found

    def end(self) -> None:
        """However the test went."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


def wait_scraped(url: str, names: set[str], timeout_s: float) -> None:
    """Until Prometheus has reached these nodes; it spreads the first scrapes over an interval."""
    deadline = time.monotonic() + timeout_s
    while True:
        with urllib.request.urlopen(url, timeout=CALL_S) as page:
            found = json.load(page)["data"]["result"]
        up = {one["metric"].get("node") for one in found if one["value"][1] == "1"}
        if names <= up:
            return
        assert time.monotonic() < deadline, f"up after {timeout_s:g} s: {up}"
        time.sleep(0.2)


def nodes(kept: Kept) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((kept.directory / "plan.json").read_text())["nodes"]
    return found


def read_pcap(data: bytes) -> list[bytes]:
    """The packets of a whole, well-formed file whose times do not go back."""
    magic, major, minor, _, _, longest, kind = struct.unpack_from("<IHHiIII", data)
    assert (magic, major, minor, kind) == (0xA1B23C4D, 2, 4, 1)
    found, at, before = [], 24, 0
    while at < len(data):
        seconds, nanoseconds, kept_bytes, whole_bytes = struct.unpack_from("<IIII", data, at)
        when = seconds * 1_000_000_000 + nanoseconds
        assert nanoseconds < 1_000_000_000
        assert abs(when - time.time_ns()) < 600e9
        assert when >= before
        assert kept_bytes == whole_bytes <= longest
        found.append(data[at + 16 : at + 16 + kept_bytes])
        assert len(found[-1]) == kept_bytes
        at, before = at + 16 + kept_bytes, when
    return found


def protocol(packet: bytes) -> int | None:
    return packet[23] if packet[12:14] == b"\x08\x00" else None
