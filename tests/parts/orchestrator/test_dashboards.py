"""A finished run is looked at: a real Prometheus takes its series in again, and ends with the command."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.monitoring.prometheus import WRITERS, Row

TOP = Path(__file__).resolve().parents[3]
WAIT_S = 60.0
BEGAN_MS = 1_795_000_000_000

# What Grafana would be told, told by one that only answers that it is healthy.
GRAFANA = """#!{python}
import http.server, json, os, sys

class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({{"argv": sys.argv[1:], "env": dict(os.environ)}}).encode()
        self.send_response(200 if self.path in ("/api/health", "/told") else 404)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

address = os.environ["GF_SERVER_HTTP_ADDR"], int(os.environ["GF_SERVER_HTTP_PORT"])
http.server.ThreadingHTTPServer(address, Page).serve_forever()
"""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The directory of a run of half a minute, of which only the aggregator's accuracy is known."""
    directory = tmp_path / "a run"
    (directory / "series").mkdir(parents=True)
    (directory / "plan.json").write_text(json.dumps({"nodes": [{}, {}]}))
    rows: list[Row] = [
        (BEGAN_MS + 1000 * second, '{"job":"node","node":"agg"}', second / 100) for second in range(30)
    ]
    for name in ("shoal_accuracy", "up"):
        WRITERS["parquet"](directory / "series" / f"{name}.parquet", rows)
    return directory


def command(tmp_path: Path, run: Path, *more: str, **env: str) -> subprocess.Popen[str]:
    (tmp_path / "tmp").mkdir(exist_ok=True)
    clean = {key: value for key, value in os.environ.items() if key != "SHOAL_GRAFANA"}
    own = {"PYTHONPATH": str(TOP), "TMPDIR": str(tmp_path / "tmp"), "SHOAL_TEST_MARK": str(tmp_path)}
    return subprocess.Popen(
        [sys.executable, "-m", "orchestrator.cli", "dashboards", str(run), *more],
        env={**clean, **own, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def heard(process: subprocess.Popen[str], last: str) -> list[str]:
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line.rstrip("\n"))
        if last in line:
            return said
    raise AssertionError(f"it ended: {said}")


def url_of(said: list[str], name: str) -> str:
    (line,) = [line for line in said if line.startswith(f"{name}: ")]
    return line.removeprefix(f"{name}: ")


def fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=WAIT_S) as reply:
        return bytes(reply.read())


def marked(folder: Path) -> list[int]:
    """Processes of a test, by the mark in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if f"SHOAL_TEST_MARK={folder}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except (OSError, ValueError):
            continue
    return found


def wait(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture(autouse=True)
def _nothing_is_left(tmp_path: Path) -> Iterator[None]:
    yield
    wait(lambda: not marked(tmp_path))
    assert list((tmp_path / "tmp").glob("*")) == []


def test_it_is_shown_until_ctrl_c(run: Path, tmp_path: Path) -> None:
    with command(tmp_path, run) as process:
        said = heard(process, "Ctrl-C ends it")
        assert "2026-11-18" in said[0]
        assert "29 s, scraped every 1 s" in said[0]
        assert "There is no Grafana here" in said[1]
        server = url_of(said, "Prometheus")
        asked = f"{server}/api/v1/query_range?query=shoal_accuracy&step=1"
        answer = json.loads(fetch(f"{asked}&start={BEGAN_MS / 1000}&end={BEGAN_MS / 1000 + 29}"))
        (series,) = answer["data"]["result"]
        assert series["metric"] == {"__name__": "shoal_accuracy", "job": "node", "node": "agg"}
        assert [float(value) for _, value in series["values"]] == [second / 100 for second in range(30)]
        (line,) = [line for line in said if line.startswith("  Is it learning?")]
        page = line.split()[-1]
        assert page.startswith(f"{server}/graph?g0.expr=shoal_accuracy&")
        assert fetch(page)
        process.send_signal(signal.SIGINT)
        assert process.wait(WAIT_S) == 0


def test_a_killed_one_leaves_no_prometheus(run: Path, tmp_path: Path) -> None:
    with command(tmp_path, run) as process:
        heard(process, "Ctrl-C ends it")
        assert len(marked(tmp_path)) == 2
        process.kill()
    wait(lambda: not marked(tmp_path))
    for left in (tmp_path / "tmp").glob("*"):
        left.rename(tmp_path / left.name)  # of what was killed nobody can remove the folder


def test_grafana_is_started_on_it_where_there_is_one(run: Path, tmp_path: Path) -> None:
    program = tmp_path / "bin" / "grafana"
    program.parent.mkdir()
    program.write_text(GRAFANA.format(python=sys.executable))
    program.chmod(0o755)
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "defaults.ini").touch()
    with command(tmp_path, run, SHOAL_GRAFANA=str(program)) as process:
        said = heard(process, "Ctrl-C ends it")
        shown = url_of(said, "Grafana")
        told = json.loads(fetch(f"{shown}/told"))
        assert told["argv"] == ["server", f"--homepath={tmp_path}"]
        assert told["env"]["SHOAL_PROMETHEUS_URL"] == url_of(said, "Prometheus")
        assert told["env"]["SHOAL_SCRAPE_INTERVAL"] == "1s"
        copy = json.loads((Path(told["env"]["SHOAL_DASHBOARDS"]) / "recovery.json").read_text())
        assert copy["time"] == {"from": "2026-11-18T11:06:40.000Z", "to": "2026-11-18T11:07:09.000Z"}
        assert Path(told["env"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]).is_file()
        (line,) = [line for line in said if line.startswith("  Is it learning?") and shown in line]
        assert f"/d/shoal-learning?from={BEGAN_MS - 1000}&to={BEGAN_MS + 30000}" in line
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_S) == 0


def test_the_check_says_what_found_nothing(run: Path, tmp_path: Path) -> None:
    with command(tmp_path, run, "--check") as process:
        said, _ = process.communicate(timeout=WAIT_S)
    assert process.returncode == 2
    lines = said.splitlines()
    assert not [line for line in lines if "Is it learning? / Accuracy" in line]
    assert "no data: Is it learning? / Training loss by worker: shoal_train_loss{node=~" in said
    assert "no data: What broke, and how did it recover? / Faults (the scenario has no faults)" in lines
    assert "found nothing that should have" in lines[-1]


def test_the_page_of_all_panels(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    with command(tmp_path, run, "--html", str(file)) as process:
        said, _ = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0
    assert said.splitlines()[-1] == f"wrote {file}; open it in a browser"
    page = file.read_text()
    assert "newest model: last 29 %, most 29 %" in page
    assert "no data: the scenario has no faults" in page


def test_a_grafana_that_does_not_start(run: Path, tmp_path: Path) -> None:
    program = tmp_path / "bin" / "grafana"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho no room for me\nexit 3\n")
    program.chmod(0o755)
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "defaults.ini").touch()
    with command(tmp_path, run, SHOAL_GRAFANA=str(program)) as process:
        said, _ = process.communicate(timeout=WAIT_S)
    assert process.returncode == 69
    assert re.search(
        r"Grafana, started on http://\S+, ended with 3\. It said last:\n  no room for me\n  run it again",
        said,
    )


def test_what_cannot_be_shown(run: Path, tmp_path: Path) -> None:
    for file in (run / "series").iterdir():
        file.unlink()
    with command(tmp_path, run) as process:
        said, _ = process.communicate(timeout=WAIT_S)
    assert (process.returncode, "holds no samples" in said) == (64, True)
    (run / "series").rmdir()
    with command(tmp_path, run) as process:
        said, _ = process.communicate(timeout=WAIT_S)
    assert (process.returncode, "has no series" in said) == (64, True)
