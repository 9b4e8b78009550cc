"""The gate over loopback, with real sockets."""

from __future__ import annotations

import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from orchestrator.gate import Door, Gate, GateError


class Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status = 200 if self.path == "/here" else 404
        body = f"{self.path} {self.headers.get('Authorization', 'nobody')}".encode() * 1000
        self.send_response(status)
        self.send_header("X-Next-Offset", "17")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def inside() -> Iterator[int]:
    """A page server that stands for what is inside a fleet; its port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    path = tmp_path_factory.mktemp("gate") / "gate.sock"
    argv = [sys.executable, "-m", "orchestrator.gate", str(path)]
    with subprocess.Popen(argv, cwd=Path(__file__).resolve().parents[3], stdout=subprocess.PIPE) as relay:
        assert relay.stdout is not None
        assert relay.stdout.readline() == b"ready\n"
        yield Gate(path)
        relay.terminate()


def test_a_page_comes_through_whole_with_its_headers(gate: Gate, inside: int) -> None:
    body, headers = gate.get("127.0.0.1", inside, "/here", headers={"Authorization": "me"}, timeout_s=10)
    assert body == b"/here me" * 1000
    assert headers["x-next-offset"] == "17"


def test_a_page_that_is_refused_is_told(gate: Gate, inside: int) -> None:
    with pytest.raises(GateError, match="HTTP 404"):
        gate.get("127.0.0.1", inside, "/gone", headers={}, timeout_s=10)


def test_a_port_where_nobody_is_is_told(gate: Gate) -> None:
    with pytest.raises(GateError, match=r"does not answer: .*[Rr]efused"):
        gate.get("127.0.0.1", 9, "/", headers={}, timeout_s=10)


def test_a_gate_that_is_gone_is_told(tmp_path: Path) -> None:
    with pytest.raises(GateError, match="cannot be reached"):
        Gate(tmp_path / "none.sock").connect("127.0.0.1", 9, 1)


def test_a_browser_comes_in_by_the_door(gate: Gate, inside: int) -> None:
    door = Door(gate, "127.0.0.1", inside)
    try:
        with urllib.request.urlopen(f"{door.url}/here", timeout=10) as page:
            assert page.read() == b"/here nobody" * 1000
    finally:
        door.close()
