"""One incoming link in force: the queue of its packets, the law they follow, and what is held of them."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from random import Random

from node.contract.links import Shape
from node.links.delays import CORRUPT, DOUBLE, LOSE, PASS, Law, damaged
from node.links.held import LatenessCount, Line, Packet
from node.links.nfqueue import Queue, QueueCount
from node.links.queue_messages import Arrived


@dataclass(frozen=True)
class HeldLink:
    """An incoming link that the holder serves: by whose queue, and how."""

    peer: str
    queue: int
    shape: Shape


@dataclass(frozen=True)
class HeldState:
    """What is in force on one incoming link, and its packets since the holder began."""

    peer: str
    queue: int
    latency_ms: float
    loss: float
    packets: int  # that came to an end here: let through or lost
    lost: int
    corrupted: int
    duplicated: int
    held: int
    overflowed: int  # the queue or the holder's buffer was full


class Link:
    """One incoming link in force."""

    def __init__(self, held: HeldLink, queue: Queue, random: Random, traces_began_ns: int) -> None:
        self.held = held
        self.queue = queue
        self.line = Line()
        self.random = random
        self.packets = self.lost = self.corrupted = self.duplicated = 0
        self.read_ns = 0  # since then whatever is still unread has arrived
        self.law = Law(held.shape, random, traces_began_ns)
        self._copy()

    def change(self, held: HeldLink, traces_began_ns: int) -> None:
        """A new shape for the packets to come; those held keep their time."""
        self.held = held
        before, self.law = self.law, Law(held.shape, self.random, traces_began_ns)
        self.law.follow(before)
        self._copy()

    def _copy(self) -> None:
        self.queue.copy_payload(bool(self.held.shape.corrupt or self.held.shape.duplicate))

    def read_all(self) -> None:
        """Take in what has arrived."""
        is_more = True
        while is_more:
            now_ns, wall_ns = time.monotonic_ns(), time.time_ns()
            arrived, is_more = self.queue.arrived()
            self._put(arrived, now_ns, wall_ns)
            if not is_more:
                self.read_ns = now_ns

    def _put(self, arrived: list[Arrived], now_ns: int, wall_ns: int) -> None:
        put, law, wall_before_ns = self.line.put, self.law.next, wall_ns - now_ns
        # A wall clock that was set meanwhile must not hold packets for ever, or let them through at once.
        earliest_ns = self.read_ns
        for number, stamp_ns, payload in arrived:
            arrival_ns = now_ns if stamp_ns is None else stamp_ns - wall_before_ns
            if arrival_ns < earliest_ns:
                arrival_ns = earliest_ns
            elif arrival_ns > now_ns:
                arrival_ns = now_ns
            due_ns, fate = law(arrival_ns)
            put((due_ns, number, fate, payload if fate else None))

    def release(self, now_ns: int, injector: socket.socket, address: str, late: LatenessCount) -> None:
        """Let through what is due."""
        loose, line = self.line.take(now_ns)
        if not loose and not line:
            return
        doubled: list[bytes] = []
        self.queue.tell(self._verdicts(loose, line, doubled))
        for copy in doubled:
            # Over the loopback interface: the kernel can only give a verdict on what is there.
            with contextlib.suppress(BlockingIOError):
                injector.sendto(copy, (address, 0))
                self.duplicated += 1
        # After the verdicts: the kernel hands packets to their sockets while it takes them.
        released_ns = time.monotonic_ns()
        for packets in (loose, line):
            late.note(packets, released_ns, self.law.tolerance_ns)
        self.packets += len(loose) + len(line)

    def _verdicts(self, loose: list[Packet], line: list[Packet], doubled: list[bytes]) -> Iterable[bytes]:
        for _, number, fate, payload in loose:
            yield self._single(number, fate, payload, doubled)
        waiting = 0  # up to this number all may go
        for _, number, fate, payload in line:
            if fate == PASS:
                waiting = number
                continue
            if waiting:
                yield self.queue.accept_until(waiting)
                waiting = 0
            yield self._single(number, fate, payload, doubled)
        if waiting:
            yield self.queue.accept_until(waiting)

    def _single(self, number: int, fate: int, payload: bytes | None, doubled: list[bytes]) -> bytes:
        if fate & LOSE:
            self.lost += 1
            return self.queue.drop(number)
        if fate and payload is None:
            # Its bytes did not fit, or were not asked for yet: what cannot be damaged is lost.
            if fate & CORRUPT:
                self.corrupted += 1
                return self.queue.drop(number)
            return self.queue.accept(number)
        changed = None
        if fate & CORRUPT and payload is not None:
            self.corrupted += 1
            changed = damaged(payload, self.random)
        if fate & DOUBLE and payload is not None:
            doubled.append(payload if changed is None else changed)
        return self.queue.accept(number, changed)

    def state(self, counts: Mapping[int, QueueCount]) -> HeldState:
        self.law.catch_up(time.monotonic_ns())
        now, count = self.law.now, counts.get(self.held.queue)
        return HeldState(
            peer=self.held.peer,
            queue=self.held.queue,
            latency_ms=now.latency_ms,
            loss=now.loss,
            packets=self.packets,
            lost=self.lost,
            corrupted=self.corrupted,
            duplicated=self.duplicated,
            held=len(self.line),
            overflowed=count.overflowed if count else 0,
        )
