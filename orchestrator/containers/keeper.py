"""The keeper of a run's control groups: group_keeper.py in a container, asked in turns.

Root there, because the groups are root's, but without any capability and without network; nothing of the
host is shown to it but the control groups. It ends when its input does, that is with us, whatever happens.
"""

from __future__ import annotations

import json
import os
import select
import struct
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from docker import DockerClient
from docker.models.containers import Container
from docker.types import Mount

from node.contract import ShoalError
from orchestrator.containers import errand, group_keeper
from orchestrator.containers.containers import NODE, PART
from orchestrator.containers.dockerd import gone_is_fine, told
from orchestrator.containers.errand import Errand
from orchestrator.containers.groups import Layout

NAME: Final = "limits"
HIERARCHIES: Final = Path("/sys/fs/cgroup")
PROGRAM: Final = Path(group_keeper.__file__)
ROOT: Final = "0:0"
ANSWER_S: Final = 30.0
FRAME: Final = struct.Struct(">BxxxL")  # of the engine: which stream, how many bytes
STDOUT: Final = 1


def command(layout: Layout, *more: str) -> list[str]:
    # Its text, and not its name: then it matters little what the image has.
    return ["python3", "-I", "-S", "-c", PROGRAM.read_text(), str(HIERARCHIES), str(layout.version), *more]


class Keeper:
    def __init__(self, client: DockerClient, image: str, labels: Mapping[str, str], layout: Layout) -> None:
        self._lock = threading.Lock()
        self._lost: ShoalError | None = None  # then what comes may be the answer to something earlier
        argv = command(layout)
        with told("the keeper of control groups"):
            self._container: Container = client.containers.create(
                image,
                entrypoint=argv[:1],
                command=argv[1:],
                user=ROOT,
                cap_drop=["ALL"],
                security_opt=["no-new-privileges:true"],
                read_only=True,
                network_mode="none",
                labels={**labels, NODE: "", PART: NAME},
                mounts=[Mount(str(HIERARCHIES), str(HIERARCHIES), type="bind")],
                stdin_open=True,
            )
            streams = {"stdin": 1, "stdout": 1, "stream": 1}
            self._socket = client.api.attach_socket(str(self._container.id), params=streams)
            self._container.start()

    def ask(self, **request: Any) -> Mapping[str, Any]:
        """Its answer; ShoalError with the reason when it could not do what it was asked."""
        with self._lock:
            if self._lost is not None:
                raise self._lost
            try:
                # The socket is of no type that could be named: the SDK gives what lies under its HTTP.
                os.write(self._socket.fileno(), json.dumps(request).encode() + b"\n")
                answer: dict[str, Any] = json.loads(self._line(time.monotonic() + ANSWER_S))
            except OSError as error:
                self._lost = ShoalError(f"the keeper of control groups is gone: {error.strerror}")
                raise self._lost from error
            except ShoalError as error:
                self._lost = error
                raise
        if answer["error"] is not None:
            raise ShoalError(answer["error"])
        return answer

    def close(self) -> None:
        """It ends by itself; its container stays, and says to whoever removes it that there are groups."""
        self._socket._response.close()  # where the SDK keeps it; else nothing ever ends the connection
        self._socket.close()

    def _line(self, deadline: float) -> bytes:
        line = b""
        while not line.endswith(b"\n"):
            stream, size = FRAME.unpack(self._exactly(FRAME.size, deadline))
            said = self._exactly(size, deadline)
            if stream == STDOUT:
                line += said
        return line

    def _exactly(self, size: int, deadline: float) -> bytes:
        read = b""
        while len(read) < size:
            left_s = max(0.0, deadline - time.monotonic())
            if not select.select([self._socket.fileno()], [], [], left_s)[0]:
                raise ShoalError(f"the keeper of control groups does not answer after {ANSWER_S:g} s")
            if not (piece := os.read(self._socket.fileno(), size - len(read))):
                said = self._container.logs(tail=3).decode(errors="replace").strip()
                raise ShoalError(f"the keeper of control groups has ended: {said}")
            read += piece
        return read


def remove_groups(
    client: DockerClient, image: str, labels: Mapping[str, str], layout: Layout, top: str
) -> None:
    """Remove a run's groups when all of its containers have ended; what stays is an error."""
    asked = Errand(command(layout, "--remove", top), user=ROOT, writes=(HIERARCHIES,))
    left = json.loads(errand.answer(client, image, {**labels, PART: NAME}, asked))
    if left:
        raise ShoalError(
            f"these control groups cannot be removed: {', '.join(left)}", f"sudo rmdir {left[0]}"
        )


def left_by(client: DockerClient, labels: Mapping[str, str]) -> str | None:
    """The image of a run's keeper, whose container is there as long as there may be groups; else nothing."""
    wanted = [f"{key}={value}" for key, value in {**labels, PART: NAME}.items()]
    with told("the keeper of control groups"), gone_is_fine():
        for one in client.containers.list(all=True, filters={"label": wanted}):
            return str(one.attrs["Image"])
    return None
