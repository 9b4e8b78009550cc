"""The gate over loopback, with real sockets."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from orchestrator.gate import Door, Gate, GateError

TOKEN = "0123456789abcdef"


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


@contextmanager
def relaying(*words: str) -> Iterator[None]:
    argv = [sys.executable, "-m", "orchestrator.gate", *words]
    with subprocess.Popen(argv, cwd=Path(__file__).resolve().parents[3], stdout=subprocess.PIPE) as relay:
        assert relay.stdout is not None
        assert relay.stdout.readline() == b"ready\n"
        yield
        relay.terminate()


@pytest.fixture(scope="module")
def published(inside: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    """Where a gate listens that lets callers with the token through to the page server alone."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address: tuple[str, int] = free.getsockname()
    token = tmp_path_factory.mktemp("gate") / "token"
    token.write_text(f"{TOKEN}\n")
    listen = f"{address[0]}:{address[1]}"
    with relaying("--listen", listen, "--token-file", str(token), "--to", f"127.0.0.0/30:{inside}"):
        yield address


@pytest.fixture(scope="module", params=["socket", "port"])
def gate(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    if request.param == "port":
        yield Gate(request.getfixturevalue("published"), TOKEN)
        return
    path = tmp_path_factory.mktemp("gate") / "gate.sock"
    with relaying(str(path)):
        yield Gate(path)


def test_a_page_comes_through_whole_with_its_headers(gate: Gate, inside: int) -> None:
    body, headers = gate.get("127.0.0.1", inside, "/here", headers={"Authorization": "me"}, timeout_s=10)
    assert body == b"/here me" * 1000
    assert headers["x-next-offset"] == "17"


def test_a_page_that_is_refused_is_told(gate: Gate, inside: int) -> None:
    with pytest.raises(GateError, match="HTTP 404"):
        gate.get("127.0.0.1", inside, "/gone", headers={}, timeout_s=10)


def test_a_port_where_nobody_is_is_told(tmp_path: Path) -> None:
    with relaying(str(tmp_path / "gate.sock")), pytest.raises(GateError, match=r"not answer: .*[Rr]efused"):
        Gate(tmp_path / "gate.sock").get("127.0.0.1", 9, "/", headers={}, timeout_s=10)


@pytest.mark.parametrize("token", [None, "0123456789abcdeX", "0123456789abcde", "é"])
def test_without_the_token_nobody_comes_through_the_port(
    token: str | None, published: tuple[str, int], inside: int
) -> None:
    with pytest.raises(GateError, match="the token is wrong"):
        Gate(published, token).get("127.0.0.1", inside, "/here", headers={}, timeout_s=10)


def test_the_port_leads_nowhere_but_to_what_the_gate_is_for(published: tuple[str, int], inside: int) -> None:
    allowed = Gate(published, TOKEN)
    for host, port in (("127.0.0.1", published[1]), ("127.0.0.4", inside)):
        with pytest.raises(GateError, match=f"{host} {port} is not among what the gate leads to"):
            allowed.get(host, port, "/here", headers={}, timeout_s=10)
    with pytest.raises(GateError, match="localhost"):  # a name could mean anything
        allowed.get("localhost", inside, "/here", headers={}, timeout_s=10)


@pytest.mark.parametrize("said", [b"\n", b"\xff\n", TOKEN.encode() + b"\n", b"x" * 1000 + b"\n"])
def test_whoever_says_nonsense_is_let_go(said: bytes, published: tuple[str, int]) -> None:
    with socket.create_connection(published, timeout=10) as caller:
        caller.sendall(said)
        answer = b"".join(iter(lambda: caller.recv(1000), b""))
    assert answer
    assert not answer.startswith(b"ok")


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
