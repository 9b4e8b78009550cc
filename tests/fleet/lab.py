"""A small swarm of real daemons in the nodes of the box that this process runs in.

Each node has two threads in it: one that starts the daemon and lives as long as it, and one per
member for calls, so that a test can fetch in one node while it cuts the link in another.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

from node.ipfs.client import Client
from node.ipfs.config import Peer, Settings
from node.ipfs.daemon import Daemon
from node.ipfs.engine import Engine
from node.namespace import NodeThread, enter
from orchestrator.boxes.box import Box, Node

Result = TypeVar("Result")
DATA = "data"
FIRST_SUBNET = 1
SUBNETS = itertools.count(FIRST_SUBNET)
CALL_THREADS = 40


class Member:
    """A node with a daemon in it."""

    def __init__(self, node: Node, engine: Engine, folder: Path, swarm_key: str, transport: str) -> None:
        self.node = node
        self.name = node.name
        self.address = node.address(DATA)
        settings = Settings(data_address=self.address, transport=transport)
        self.daemon = Daemon(engine, folder, settings, swarm_key)
        self._keeper = NodeThread(node.name)
        self._callers = ThreadPoolExecutor(CALL_THREADS, initializer=enter, initargs=(node.name,))
        self.peer = Peer(self.daemon.prepare(), settings.swarm_address)

    def know(self, others: tuple[Peer, ...]) -> None:
        """Write the peers that the daemon keeps connections to, before its start."""
        self.daemon.settings = Settings(
            data_address=self.address, transport=self.daemon.settings.transport, peers=others
        )

    def start(self) -> None:
        self._keeper.call(self.daemon.start)
        self._keeper.call(self.daemon.wait_ready)

    def kill(self) -> None:
        self._keeper.call(self.daemon.kill)

    def begin(self, job: Callable[[Client], Awaitable[Result]]) -> Future[Result]:
        """Run calls against the daemon, from inside its node."""

        async def run() -> Result:
            async with Client() as client:
                return await job(client)

        return self._callers.submit(lambda: asyncio.run(run()))

    def call(self, job: Callable[[Client], Awaitable[Result]]) -> Result:
        return self.begin(job).result()

    def in_node(self, function: Callable[[], Result]) -> Future[Result]:
        """Run a function in a thread that is in the node."""
        return self._callers.submit(function)

    def sh(self, script: str) -> str:
        """Run a shell script in the node."""
        return self.node.run(["sh", "-ec", script], timeout_s=30).stdout

    def wait_connected(self, other: Member, timeout_s: float = 20.0) -> float:
        """Until the daemon lists the other; the seconds that it took."""
        began = time.monotonic()

        async def poll(client: Client) -> bool:
            while time.monotonic() - began < timeout_s:
                if other.peer.peer_id in await client.peers():
                    return True
                await asyncio.sleep(0.02)
            return False

        if not self.call(poll):
            raise AssertionError(f"{self.name} is not connected to {other.name} after {timeout_s} s")
        return time.monotonic() - began

    def close(self) -> None:
        self._callers.shutdown(cancel_futures=True)
        try:
            if self.daemon.process is not None and self.daemon.process.exit_status is None:
                self._keeper.call(self.daemon.kill)
        finally:
            self._keeper.close()


@contextmanager
def swarm(
    engine: Engine, count: int, *, transport: str = "prompt", peered: bool = True
) -> Iterator[list[Member]]:
    """`count` daemons in nodes and a subnet of their own; with `peered` each keeps connections to all others.

    The nodes stay until the box ends, the daemons and their folders do not.
    """
    box, subnet = Box.current(), next(SUBNETS)
    if subnet == FIRST_SUBNET:
        box.add_bridge(DATA)
    key = secrets.token_hex(32)
    with tempfile.TemporaryDirectory(prefix="shoal-swarm-") as folder, ExitStack() as members_end:
        members: list[Member] = []
        for number in range(1, count + 1):
            node = box.add_node(f"n{subnet}-{number}", {DATA: f"10.77.{subnet}.{number}/24"})
            home = Path(folder) / node.name
            home.mkdir()
            members.append(Member(node, engine, home, key, transport))
            members_end.callback(members[-1].close)
        if peered:
            for member in members:
                member.know(tuple(m.peer for m in members if m is not member))
        for member in members:
            member.start()
        if peered:
            connect_all(members)
        yield members


def connect_all(members: list[Member]) -> None:
    """Connect every pair now, rather than when a daemon's own redialling gets to it."""
    for index, member in enumerate(members):
        for other in members[index + 1 :]:
            peer = other.peer
            member.call(lambda client, peer=peer: client.connect(peer))  # type: ignore[misc]


def shape(member: Member, rate: str) -> None:
    """Limit what the node sends; a short queue, and packets of one segment, as on a real line."""
    member.sh(
        f"""
        ip link set dev {DATA} gso_max_segs 1
        tc qdisc add dev {DATA} root handle 1: htb default 10
        tc class add dev {DATA} parent 1: classid 1:10 htb rate {rate} quantum 1514
        tc qdisc add dev {DATA} parent 1:10 handle 10: pfifo limit 100
        """
    )


def cut(*members: Member) -> None:
    """Drop at every receiver: a far-away loss, which the sender's kernel cannot see."""
    for member in members:
        member.sh(f"iptables -w -I INPUT -i {DATA} -j DROP")


def heal(*members: Member) -> None:
    for member in members:
        member.sh(f"iptables -w -D INPUT -i {DATA} -j DROP")
