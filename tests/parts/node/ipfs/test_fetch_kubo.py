"""make kubo, against a server on loopback."""

from __future__ import annotations

import hashlib
import http.server
import io
import socket
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.contract import HostError
from node.ipfs import fetch_kubo
from node.ipfs.cache import TOP

BINARY = b"#!/bin/sh\necho ipfs version 0.43.1\n"


class Site:
    """A release site; `pages` by path, `torn` ones announce more than they send."""

    def __init__(self) -> None:
        self.pages: dict[str, bytes] = {}
        self.torn: set[str] = set()
        self.asked: list[str] = []
        site = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.asked.append(self.path)
                page = site.pages.get(self.path)
                self.send_response(404 if page is None else 200)
                body = page or b""
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: len(body) // 2] if self.path in site.torn else body)

            def log_message(self, *args: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def release(self, member: str = "kubo/ipfs", kind: bytes = tarfile.REGTYPE) -> str:
        """Publish an archive with one member, and its hash; its path."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as tar:
            info = tarfile.TarInfo(member)
            info.size, info.type, info.linkname = len(BINARY), kind, "/etc/passwd"
            tar.addfile(info, io.BytesIO(BINARY))
        version = fetch_kubo.VERSION
        path = f"/kubo/v{version}/kubo_v{version}_linux-amd64.tar.gz"
        self.pages[path] = packed.getvalue()
        self.pages[path + ".sha512"] = f"{hashlib.sha512(packed.getvalue()).hexdigest()}  {path}\n".encode()
        return path


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("SHOAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    made = Site()
    thread = threading.Thread(target=made.server.serve_forever, args=(0.01,))
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join(10)


def leftovers() -> list[str]:
    return sorted(p.name for p in fetch_kubo.binary_path().parent.iterdir())


def test_the_release_is_fetched_once(site: Site) -> None:
    site.release()
    assert fetch_kubo.fetched() is None
    binary = fetch_kubo.fetch(site.url)
    assert subprocess.run([binary], stdout=subprocess.PIPE, check=True).stdout == b"ipfs version 0.43.1\n"
    assert fetch_kubo.fetched() == binary
    asked = len(site.asked)
    assert fetch_kubo.fetch(site.url) == binary
    assert len(site.asked) == asked
    assert leftovers() == ["ipfs"]


def test_a_wrong_checksum(site: Site) -> None:
    path = site.release()
    site.pages[path + ".sha512"] = b"0" * 128 + b"  x\n"
    with pytest.raises(HostError, match="SHA-512"):
        fetch_kubo.fetch(site.url)
    assert leftovers() == []


def test_a_torn_download(site: Site) -> None:
    path = site.release()
    site.torn.add(path)
    with pytest.raises(HostError, match=r"broke off|cannot fetch"):
        fetch_kubo.fetch(site.url)
    assert leftovers() == []
    site.torn.clear()
    assert fetch_kubo.fetch(site.url).exists()


def test_a_checksum_page_that_is_none(site: Site) -> None:
    path = site.release()
    site.pages[path + ".sha512"] = b"<html>log in first</html>"
    with pytest.raises(HostError, match="holds no SHA-512"):
        fetch_kubo.fetch(site.url)


def test_a_release_that_is_not_there(site: Site) -> None:
    with pytest.raises(HostError, match=r"Not Found|404"):
        fetch_kubo.fetch(site.url)


@pytest.mark.parametrize(
    ("member", "kind"), [("kubo/ipfs", tarfile.SYMTYPE), ("kubo/other", tarfile.REGTYPE)]
)
def test_an_archive_without_the_binary(site: Site, member: str, kind: bytes) -> None:
    site.release(member, kind)
    with pytest.raises(HostError, match="kubo/ipfs"):
        fetch_kubo.fetch(site.url)
    assert leftovers() == []


def test_an_unknown_machine(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(HostError, match="riscv64"):
        fetch_kubo.fetch(site.url)


def test_unreachable_is_69_with_the_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    script = [
        sys.executable,
        str(TOP / "node" / "ipfs" / "fetch_kubo.py"),
        "--from",
        f"http://127.0.0.1:{port}",
    ]
    ran = subprocess.run(script, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (ran.returncode, ran.stdout) == (69, "")
    assert "Connection refused" in ran.stderr
    assert "SHOAL_KUBO" in ran.stderr
