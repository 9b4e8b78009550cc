"""Asks agents to probe their links: an echo, packets one way, a stream one way. It judges nothing."""

from __future__ import annotations

import secrets
import statistics
from collections.abc import Callable, Mapping
from typing import Any, Final

from node.contract import ExitCode, ShoalError
from node.contract.plan import LinkPlan, Plan
from node.contract.probes import (
    Answer,
    CloseSink,
    Echo,
    Echoed,
    Knock,
    Knocked,
    Opened,
    OpenSink,
    Received,
    Send,
    Sent,
)
from node.contract.schema import T, from_json, to_json
from node.contract.settings import SWARM_PORT

Post = Callable[[str, str, Mapping[str, Any]], Mapping[str, Any]]  # node, path, body → its answer

PATH: Final = "/probes"
ON_ITS_WAY_MS: Final = 500.0  # beyond the latency: queues, a busy host
FAR_JITTER: Final = 4.0
HEARD_PACKETS: Final = 10
HEARD_LOSSY_PACKETS: Final = 60
LOSSY: Final = 0.2
PACKETS_PER_S: Final = 100.0
ECHOES: Final = 5
KNOCK_MS: Final = 1000.0
AGAIN_MS: Final = 3000.0  # a lost packet is sent again after one second, and after two more


class ProbeFailedError(ShoalError):
    """An agent could not probe: nothing is known of the link."""

    exit_code = ExitCode.UNKNOWN


class Prober:
    """Probes between the nodes of one plan; `post` may take as long as node.contract.probes.PROBE_S."""

    def __init__(self, post: Post, plan: Plan) -> None:
        self._post = post
        self._address = {node.name: node.data_address for node in plan.nodes}
        self._links: dict[tuple[str, str], LinkPlan] = {(link.from_, link.to): link for link in plan.links}

    def hears(self, node: str, peer: str) -> bool:
        """Whether packets of the peer arrive at the node; nothing is said of the other direction."""
        link = self._links.get((peer, node))
        packets = HEARD_LOSSY_PACKETS if link is not None and link.loss > LOSSY else HEARD_PACKETS
        return self.packets(peer, node, packets, PACKETS_PER_S, enough=1).packets > 0

    def rtt_ms(self, node: str, peer: str) -> float | None:
        """The median of some round trips; None when nothing came back."""
        back = self.echo(node, peer, ECHOES, 20.0).rtt_ms
        return statistics.median(back) if back else None

    def echo(self, node: str, peer: str, count: int, interval_ms: float) -> Echoed:
        timeout_ms = self.way_ms(node, peer) + self.way_ms(peer, node) + ON_ITS_WAY_MS
        return self._ask(Echoed, node, "echo", Echo(self._address[peer], count, interval_ms, timeout_ms))

    def knock(self, node: str, peer: str) -> Answer:
        """Whether the peer's daemon speaks to the node; a handshake, then what the daemon says."""
        pairs = ((node, peer), (peer, node))
        is_lossy = any(link.loss for pair in pairs if (link := self._links.get(pair)) is not None)
        timeout_ms = 2 * sum(self.way_ms(*pair) for pair in pairs) + KNOCK_MS + is_lossy * AGAIN_MS
        wanted = Knock(self._address[peer], SWARM_PORT, timeout_ms)
        return self._ask(Knocked, node, "knock", wanted).answer

    def packets(
        self,
        source: str,
        target: str,
        count: int,
        per_s: float,
        *,
        payload_bytes: int = 20,
        warm_up_s: float = 0.0,
        window_s: float = 0.0,
        enough: int | None = None,
    ) -> Received:
        """Numbered packets, one way; `enough` of them end the wait."""
        opened, nonce = self._open(target, "udp", warm_up_s, window_s)
        there = self._address[target]
        wanted = Send("udp", there, opened.port, nonce, count, payload_bytes, per_s)
        try:
            self._ask(Sent, source, "send", wanted)
        except ShoalError:
            self._close(target, CloseSink(opened.sink))
            raise
        wait_ms = self.way_ms(source, target) + ON_ITS_WAY_MS
        return self._close(target, CloseSink(opened.sink, count if enough is None else enough, wait_ms))

    def stream(self, source: str, target: str, warm_up_s: float, window_s: float) -> Received:
        """One TCP stream, one way, hung up by the receiver."""
        opened, nonce = self._open(target, "tcp", warm_up_s, window_s)
        limit_s = 3 * (warm_up_s + window_s) + 2.0
        wanted = Send("tcp", self._address[target], opened.port, nonce, lasts_s=limit_s)
        try:
            self._ask(Sent, source, "send", wanted)
        except ShoalError:
            self._close(target, CloseSink(opened.sink))
            raise
        return self._close(target, CloseSink(opened.sink, wait_ms=ON_ITS_WAY_MS))

    def way_ms(self, source: str, target: str) -> float:
        """How long a packet may be on its way, without queues."""
        link = self._links.get((source, target))
        return link.latency_ms + FAR_JITTER * link.jitter_ms if link is not None else 0.0

    def _open(self, node: str, carrier: Any, warm_up_s: float, window_s: float) -> tuple[Opened, str]:
        nonce = secrets.token_hex(8)
        return self._ask(Opened, node, "open", OpenSink(carrier, nonce, warm_up_s, window_s)), nonce

    def _close(self, node: str, wanted: CloseSink) -> Received:
        return self._ask(Received, node, "close", wanted)

    def _ask(self, kind: type[T], node: str, do: str, wanted: object) -> T:
        answer = self._post(node, PATH, {"do": do, **to_json(wanted)})
        if "error" in answer:
            raise ProbeFailedError(f"{node} could not {do}: {answer['error']}")
        return from_json(kind, answer)
