"""The holder process: takes packets from their queues, keeps each until it is due, and lets it through.

The kernel stamps each packet as it arrives, so nothing is lost by reading late: while packets are held, the
queues are read only as often as the shortest latency needs, many packets at a time.
"""

from __future__ import annotations

import gc
import json
import os
import select
import socket
import time
from dataclasses import dataclass
from typing import Any, Final

from node.contract import ShoalError
from node.contract.links import Lateness, Waking
from node.contract.schema import from_json, to_json
from node.links import nfqueue
from node.links.delays import floor_ns, link_random
from node.links.held import LatenessCount
from node.links.incoming import HeldLink, HeldState, Link
from node.links.nfqueue import Mailbox, Queue
from node.links.priority import Priority
from node.links.queue_messages import LARGE_BYTES, SMALL_BYTES

LONGEST_PAUSE_NS: Final = 2_000_000
PAUSE_SHARE: Final = 4  # of the shortest delay
GRAIN_SHARE: Final = 10  # of the shortest delay: what is due within a grain is let through together
LEAST_GRAIN_NS: Final = 50_000
MOST_GRAIN_NS: Final = 1_000_000
NS_PER_S: Final = 1_000_000_000
ORDER_BYTES: Final = 1 << 16


@dataclass(frozen=True)
class Orders:
    """The whole table, as the holder needs it."""

    node: str
    address: str
    seed: int
    traces_began_ns: int
    links: tuple[HeldLink, ...]


@dataclass(frozen=True)
class HoldState:
    """What the holder says of itself; counters begin anew when it does."""

    links: tuple[HeldState, ...]
    lateness: Lateness
    waking: Waking  # how the kernel lets it in when others want to run as well


class Holding:
    """The loop: orders come in, packets are read and let through, until the orders end."""

    def __init__(self, orders: int, answers: int) -> None:
        self._orders, self._answers = orders, answers
        self._said = b""
        self._links: dict[int, Link] = {}  # by the queue's number
        self._by_descriptor: dict[int, Link] = {}
        self._poll = select.epoll()
        self._poll.register(orders, select.EPOLLIN)
        self._small = Mailbox(128, SMALL_BYTES)
        self._large = Mailbox(32, LARGE_BYTES)
        self._stamps = nfqueue.stamp_arrivals()
        self._injector = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        self._injector.setblocking(False)
        self._late = LatenessCount()
        self._address = ""
        self._pause_ns = 0
        self._grain_ns = LEAST_GRAIN_NS
        self._priority = Priority()

    def run(self) -> int:
        read_ns = released_ns = 0
        while True:
            busy = [link for link in self._links.values() if len(link.line)]
            due_ns = min(
                (due for link in busy if (due := link.line.first_due_ns()) is not None), default=None
            )
            if due_ns is None:
                # Whatever comes, and however long it takes.
                select.select([self._poll], [], [])
                is_heard = True
            else:
                due_ns = max(due_ns, released_ns + self._grain_ns)
                is_heard = self._wait(due_ns, read_ns + self._pause_ns)
            now_ns = time.monotonic_ns()
            if due_ns is not None and now_ns >= due_ns:
                # As much too early as others are too late: half a grain.
                for link in busy:
                    link.release(now_ns + self._grain_ns // 2, self._injector, self._address, self._late)
                released_ns = now_ns
            if is_heard or now_ns >= read_ns + self._pause_ns // 2:
                read_ns = now_ns
                if not self._look():
                    return 0

    def _wait(self, due_ns: int, watch_ns: int) -> bool:
        """Until something is due; or there is something to look at, for packets only from `watch_ns` on."""
        now_ns = time.monotonic_ns()
        if now_ns < watch_ns:
            # What arrives meanwhile waits in its socket and has its stamp; only orders are heard at once.
            left_ns = max(0, min(due_ns, watch_ns) - now_ns)
            if select.select([self._orders], [], [], left_ns / NS_PER_S)[0]:
                return True
            if due_ns <= watch_ns:
                return False
            now_ns = time.monotonic_ns()
        # epoll's own time-out counts in milliseconds.
        return bool(select.select([self._poll], [], [], max(0, due_ns - now_ns) / NS_PER_S)[0])

    def _look(self) -> bool:
        """Take in all that is there; False when there will be no orders any more."""
        for descriptor, _ in self._poll.poll(0):
            if descriptor == self._orders:
                if not self._hear():
                    return False
            elif link := self._by_descriptor.get(descriptor):
                link.read_all()
        return True

    def _hear(self) -> bool:
        """Take orders; False when there will be none any more."""
        piece = os.read(self._orders, ORDER_BYTES)
        *lines, self._said = (self._said + piece).split(b"\n")
        for line in lines:
            order = json.loads(line)
            answer = {**self._obey(order), "number": order["number"]}
            os.write(self._answers, json.dumps(answer).encode() + b"\n")
        return bool(piece)

    def _obey(self, order: dict[str, Any]) -> dict[str, Any]:
        try:
            if "apply" in order:
                self._apply(from_json(Orders, order["apply"]))
            return {"state": to_json(self._state())}
        except ShoalError as error:
            return {"error": error.message, "hint": error.hint}

    def _apply(self, orders: Orders) -> None:
        self._address = orders.address
        wanted = {held.queue: held for held in orders.links}
        for number, link in list(self._links.items()):
            if number not in wanted or wanted[number].peer != link.held.peer:
                self._let_go(number)
        for number, held in wanted.items():
            if number not in self._links:
                queue = Queue(number, self._small, self._large)
                random = link_random(orders.seed, orders.node, held.peer)
                link = self._links[number] = Link(held, queue, random, orders.traces_began_ns)
                self._by_descriptor[queue.fileno()] = link
                self._poll.register(queue.fileno(), select.EPOLLIN)
            elif self._links[number].held != held:
                self._links[number].change(held, orders.traces_began_ns)
        floor = min((floor_ns(held.shape) for held in orders.links), default=0)
        self._pause_ns = min(LONGEST_PAUSE_NS, floor // PAUSE_SHARE)
        self._grain_ns = min(MOST_GRAIN_NS, max(LEAST_GRAIN_NS, floor // GRAIN_SHARE))

    def _let_go(self, number: int) -> None:
        """The link is not shaped any more: what is held of it goes now, and its queue ends."""
        link = self._links.pop(number)
        link.read_all()
        link.release(1 << 62, self._injector, self._address, LatenessCount())
        self._poll.unregister(link.queue.fileno())
        del self._by_descriptor[link.queue.fileno()]
        link.queue.close()

    def _state(self) -> HoldState:
        counts = nfqueue.counts()
        links = tuple(link.state(counts) for link in self._links.values())
        return HoldState(links, self._late.read(), self._priority.waking)


def run(orders: int, answers: int) -> int:
    """The life of the holder, in a freshly forked process."""
    gc.freeze()
    gc.disable()  # nothing here makes cycles, and a collection would be a pause
    return Holding(orders, answers).run()
