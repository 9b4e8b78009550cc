"""`shoal calibrate` from the command line: agents alone, their links measured, and nothing left of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
MEASURE_S = 180.0
GONE_S = 20.0
SCENARIO = """\
summary: one pair of links
fleet: {workers: [{count: 1}]}
network: {default: {latency: 10 ms, rate: 10 Mbit}}
workload: {dataset: digits, rounds: 1}
checks: [rounds_completed == 1]
"""
# Both ends of one link are told another rate than the plan's, and it is in force as they were told.
OTHER_TABLES = """
import sys
from dataclasses import replace
from orchestrator import cli
from orchestrator.emulation import Emulation

told = Emulation.table

def other(self, node):
    table = told(self, node)
    (links,) = table.peers
    way = "out" if node == "w01" else "into"
    slower = replace(getattr(links, way), rate_bit_s=8_000_000)
    return replace(table, peers=(replace(links, **{way: slower}),))

Emulation.table = other
sys.exit(cli.main(sys.argv[1:]))
"""


class Place:
    """A folder of its own; all that works for it is found by a mark in its environment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        (folder / "pair.yaml").write_text(SCENARIO)

    def shoal(self, *words: str, program: tuple[str, ...] = ("-m", "orchestrator.cli")) -> list[str]:
        return [sys.executable, *program, *words]

    def env(self) -> dict[str, str]:
        own = {"PYTHONPATH": str(TOP), "TMPDIR": str(self.temporary), "XDG_RUNTIME_DIR": ""}
        return {**os.environ, **own, "SHOAL_TEST_MARK": str(self.folder)}

    def run(self, *words: str, program: tuple[str, ...] = ("-m", "orchestrator.cli")) -> tuple[int, str]:
        done = subprocess.run(
            self.shoal(*words, program=program),
            cwd=self.folder,
            env=self.env(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=MEASURE_S,
            check=False,
        )
        return done.returncode, done.stdout

    def start_measuring(self) -> subprocess.Popen[str]:
        """Until it says that it measures: its nodes live then."""
        process = subprocess.Popen(
            self.shoal("calibrate", "pair.yaml"),
            cwd=self.folder,
            env=self.env(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        assert process.stdout is not None
        heard = []
        for line in process.stdout:
            heard.append(line)
            if "measuring 2 links" in line:
                assert len(self.processes()) > 2
                return process
        raise AssertionError(f"it ended too soon: {''.join(heard)}")

    def processes(self) -> list[int]:
        mark = f"SHOAL_TEST_MARK={self.folder}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    words = (entry / "environ").read_bytes().split(b"\0")
                except OSError:
                    continue
                if mark in words:
                    found.append(int(entry.name))
        return found

    def wait_nobody(self) -> None:
        deadline = time.monotonic() + GONE_S
        while left := self.processes():
            assert time.monotonic() < deadline, f"left behind: {left}"
            time.sleep(0.05)

    def left(self) -> list[str]:
        """Files; the empty folder where living runs are listed may stay."""
        return [str(path) for path in self.temporary.rglob("*") if not path.name.startswith("shoal-living-")]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    here = Place(tmp_path)
    yield here
    here.wait_nobody()


def test_links_that_are_as_intended(place: Place) -> None:
    status, said = place.run("calibrate", "pair.yaml")
    assert status == 0, said
    rows = [line for line in said.splitlines() if line.startswith("  + ")]
    assert [row.split()[1:3] for row in rows] == [
        ["agg>w01", "round"],
        ["agg>w01", "goodput"],
        ["w01>agg", "goodput"],
    ]
    assert "intended 20 (19 to 21)" in rows[0]
    assert said.splitlines()[-1].startswith("3 of 3 figures of 2 links as intended")
    place.wait_nobody()
    assert place.left() == []


def test_a_link_that_is_not_as_intended_is_named(place: Place) -> None:
    status, said = place.run("calibrate", "pair.yaml", "--json", program=("-c", OTHER_TABLES))
    assert status == 2, said
    found = json.loads(said)
    (outside,) = found["outside"]
    assert outside.startswith("goodput_bit_s of w01>agg is 7.")
    (wrong,) = [figure for figure in found["figures"] if not figure["ok"]]
    assert (wrong["link"], wrong["attempts"]) == ("w01>agg", 2)


def end_in_the_middle(place: Place, process: subprocess.Popen[str], number: signal.Signals) -> None:
    process.send_signal(number)
    said, _ = process.communicate(timeout=GONE_S)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    place.wait_nobody()
    assert place.left() == []


def test_told_to_end_in_the_middle_it_leaves_nothing(place: Place) -> None:
    with place.start_measuring() as process:
        end_in_the_middle(place, process, signal.SIGTERM)


def test_its_nodes_can_be_entered_and_have_room_for_long_fat_links_until_ctrl_c(place: Place) -> None:
    with place.start_measuring() as process:
        status, said = place.run("exec", "w01", "--", "cat", "/proc/sys/net/ipv4/tcp_wmem")
        end_in_the_middle(place, process, signal.SIGINT)
    assert status == 0, said
    assert int(said.split()[2]) >= 8 << 20


def test_killed_its_box_ends_and_the_next_command_removes_its_files(place: Place) -> None:
    with place.start_measuring() as process:
        process.kill()
    place.wait_nobody()
    status, said = place.run("down", "--all")
    assert status == 0, said
    assert place.left() == []
