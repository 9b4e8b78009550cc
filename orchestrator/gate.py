"""The gate: the one way from the orchestrator, and from a browser, to the inside of a fleet.

    python -m orchestrator.gate SOCKET
    python -m orchestrator.gate --listen HOST:PORT --token-file FILE --to NETWORK:PORT [--to NETWORK:PORT…]

In the box it relays what comes in on a Unix socket. Whoever connects says `HOST PORT` in one line, gets `ok`
or a complaint in one, and from then on speaks with that port. The socket lies in a folder that only its owner
can enter, so it asks for no further proof. In a container it listens on a port, which every user of the host
can reach: there a caller says `TOKEN HOST PORT`, and is let through to the ports of `--to` alone.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hmac
import http.client
import ipaddress
import socket
import socketserver
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from node.contract import ShoalError

LINE_BYTES = 200
PIECE_BYTES = 1 << 16
CONNECT_TIMEOUT_S = 5.0
SHOWN_BYTES = 400


class GateError(ShoalError):
    """The inside of the fleet did not answer."""


# -- inside the fleet


@dataclass(frozen=True)
class Target:
    """A port of every address of a network."""

    network: ipaddress.IPv4Network
    port: int

    @staticmethod
    def parse(text: str) -> Target:
        network, _, port = text.rpartition(":")
        return Target(ipaddress.IPv4Network(network), int(port))


@dataclass(frozen=True)
class Watchman:
    """Who may come through to where; without a token whoever reaches the socket, to everywhere."""

    token: str | None = None
    targets: tuple[Target, ...] = ()

    def admit(self, line: str) -> tuple[str, int]:
        """Where the caller may go; PermissionError or ValueError if nowhere."""
        if self.token is None:
            host, port = line.split()
            return host, int(port)
        said, _, where = line.partition(" ")
        # In a time that says nothing of how much of it was right.
        if not hmac.compare_digest(said.encode(), self.token.encode()):
            raise PermissionError("the token is wrong")
        host, port = where.split()
        address = ipaddress.IPv4Address(host)
        if not any(address in target.network and int(port) == target.port for target in self.targets):
            raise PermissionError(f"{host} {port} is not among what the gate leads to")
        return host, int(port)


class Relay:
    """Serves every caller whom the watchman admits."""

    def __init__(self, watchman: Watchman) -> None:
        self._watchman = watchman

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                host, port = self._watchman.admit((await reader.readline()).decode())
                there_reader, there_writer = await asyncio.open_connection(host, port)
        except (OSError, ValueError, TimeoutError) as err:
            await complain(writer, f"{type(err).__name__}: {err}")
            return
        writer.write(b"ok\n")
        await asyncio.gather(copy(reader, there_writer), copy(there_reader, writer))


async def complain(writer: asyncio.StreamWriter, about: str) -> None:
    with contextlib.suppress(OSError):
        writer.write(f"{about}\n".encode())
        await writer.drain()
    await close(writer)


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One direction, to its end."""
    with contextlib.suppress(OSError):
        while piece := await reader.read(PIECE_BYTES):
            writer.write(piece)
            await writer.drain()
    await close(writer)


async def close(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        writer.close()
        await writer.wait_closed()


async def serve(options: argparse.Namespace) -> None:
    if options.socket is not None:
        server = await asyncio.start_unix_server(Relay(Watchman()).serve, options.socket, limit=LINE_BYTES)
    else:
        watchman = Watchman(options.token_file.read_text().strip(), tuple(options.to))
        host, _, port = options.listen.rpartition(":")
        server = await asyncio.start_server(Relay(watchman).serve, host, int(port), limit=LINE_BYTES)
    print("ready", flush=True)
    await server.serve_forever()


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m orchestrator.gate", allow_abbrev=False)
    parser.add_argument("socket", nargs="?", help="the Unix socket to listen on")
    parser.add_argument("--listen", metavar="HOST:PORT")
    parser.add_argument("--token-file", type=Path, metavar="FILE", help="what callers must know")
    parser.add_argument("--to", type=Target.parse, action="append", default=[], metavar="NETWORK:PORT")
    options = parser.parse_args(argv)
    if (options.socket is None) == (options.listen is None):
        parser.error("either SOCKET or --listen is needed")
    if options.listen is not None and (options.token_file is None or not options.to):
        parser.error("--listen needs --token-file and --to")
    return options


# -- outside


class Gate:
    """Connections through the gate, from the orchestrator: by its socket, or by its port with the token."""

    def __init__(self, address: Path | tuple[str, int], token: str | None = None) -> None:
        self.address, self._token = address, token

    @property
    def path(self) -> Path:
        """The socket, for whoever starts a gate that has one."""
        assert isinstance(self.address, Path)
        return self.address

    def connect(self, host: str, port: int, timeout_s: float) -> socket.socket:
        conn = socket.socket(socket.AF_UNIX if isinstance(self.address, Path) else socket.AF_INET)
        words = [host, str(port)] if self._token is None else [self._token, host, str(port)]
        try:
            conn.settimeout(timeout_s)
            conn.connect(str(self.address) if isinstance(self.address, Path) else self.address)
            conn.sendall(f"{' '.join(words)}\n".encode())
            said = bytearray()
            while not said.endswith(b"\n") and (byte := conn.recv(1)):
                said += byte
            if said != b"ok\n":
                raise GateError(
                    f"{host}:{port} does not answer: {said.decode().strip() or 'the gate closed'}"
                )
        except OSError as err:
            conn.close()
            raise GateError(f"{host}:{port} cannot be reached through the gate: {err}") from err
        except BaseException:
            conn.close()
            raise
        return conn

    def get(
        self, host: str, port: int, path: str, *, headers: Mapping[str, str], timeout_s: float
    ) -> tuple[bytes, Mapping[str, str]]:
        """The body and headers of an HTTP page inside the fleet."""
        return self.ask(host, port, "GET", path, None, headers=headers, timeout_s=timeout_s)

    def ask(
        self,
        host: str,
        port: int,
        method: str,
        path: str,
        body: bytes | None,
        *,
        headers: Mapping[str, str],
        timeout_s: float,
    ) -> tuple[bytes, Mapping[str, str]]:
        """One HTTP request to the inside of the fleet; the answer's body and headers."""
        request = http.client.HTTPConnection(host, port, timeout=timeout_s)
        request.sock = self.connect(host, port, timeout_s)
        try:
            request.request(method, path, body=body, headers=dict(headers))
            reply = request.getresponse()
            answer = reply.read()
        except (OSError, http.client.HTTPException) as err:
            raise GateError(f"{host}:{port}{path}: {type(err).__name__}: {err}") from err
        finally:
            request.close()
        if reply.status != 200:
            raise GateError(
                f"{host}:{port}{path}: HTTP {reply.status}: {answer[:SHOWN_BYTES].decode(errors='replace')}"
            )
        return answer, {name.lower(): value for name, value in reply.getheaders()}


class Door(socketserver.ThreadingTCPServer):
    """A port on 127.0.0.1 for the user's browser, that leads through the gate to one port inside."""

    daemon_threads = True

    def __init__(self, gate: Gate, host: str, port: int) -> None:
        door = self

        class Visit(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(OSError, GateError), door.gate.connect(host, port, 10.0) as inner:
                    inner.settimeout(None)
                    back = threading.Thread(target=pump, args=(inner, self.request), daemon=True)
                    back.start()
                    pump(self.request, inner)
                    back.join()

        self.gate = gate
        super().__init__(("127.0.0.1", 0), Visit)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def close(self) -> None:
        self.shutdown()
        self.server_close()


def pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(PIECE_BYTES):
            sink.sendall(piece)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


if __name__ == "__main__":
    asyncio.run(serve(parse(sys.argv[1:])))
