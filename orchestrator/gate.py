"""The gate: the one way from the orchestrator, and from a browser, to the inside of a fleet.

    python -m orchestrator.gate SOCKET    in the box: relays what comes in on a Unix socket

Whoever connects says `HOST PORT` in one line, gets `ok` or a complaint in one, and from then on speaks with
that port. The socket lies in a folder that only its owner can enter, so it asks for no further proof.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import socket
import socketserver
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

from node.contract import ShoalError

LINE_BYTES = 200
PIECE_BYTES = 1 << 16
CONNECT_TIMEOUT_S = 5.0
SHOWN_BYTES = 400


class GateError(ShoalError):
    """The inside of the fleet did not answer."""


# -- inside the box


async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve one caller."""
    try:
        host, port = (await reader.readline()).decode().split()
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            there_reader, there_writer = await asyncio.open_connection(host, int(port))
    except (OSError, ValueError, TimeoutError) as err:
        writer.write(f"{type(err).__name__}: {err}\n".encode())
        await close(writer)
        return
    writer.write(b"ok\n")
    await asyncio.gather(copy(reader, there_writer), copy(there_reader, writer))


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


async def serve(path: str) -> None:
    server = await asyncio.start_unix_server(relay, path, limit=LINE_BYTES)
    print("ready", flush=True)
    await server.serve_forever()


# -- outside


class Gate:
    """Connections through the gate, from the orchestrator."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def connect(self, host: str, port: int, timeout_s: float) -> socket.socket:
        conn = socket.socket(socket.AF_UNIX)
        try:
            conn.settimeout(timeout_s)
            conn.connect(str(self.path))
            conn.sendall(f"{host} {port}\n".encode())
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
    asyncio.run(serve(sys.argv[1]))
