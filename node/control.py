"""HTTP between trainers and aggregator over the daemons' tunnel: a trainer's end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import aiohttp

from node.contract import ShoalError
from node.contract.messages import LONG_POLL_S, Answer, Signed, Work
from node.contract.schema import from_json, to_json
from node.contract.settings import PROTOCOL
from node.ipfs.client import Client
from node.ipfs.config import LOOPBACK, Peer
from node.ipfs.errors import IpfsError

MAX_REPLY_BYTES: Final = 1 << 16
CALL_S: Final = LONG_POLL_S + 10.0
SEND_S: Final = 150.0
DIAL_S: Final = 5.0
PAUSES_S: Final = (0.05, 0.1, 0.2, 0.5)  # a heal may come in any of them
NOT_YET: Final = 503
SILENT_S: Final = 2.5  # without a pulse; then somebody may be cut off, or the link be busy


class UnansweredError(ShoalError):
    """The aggregator was away for longer than we are willing to wait."""


class NotYetError(ValueError):
    """The aggregator is there and cannot say yet: nothing is wrong with the way to it."""


class Control:
    """A trainer's calls; the tunnel is made anew whenever a call did not get through.

    Whether a connection is dead is for the daemon and the kernel to say. A call that is only silent is left
    as it is, for the link may be busy; a short one beside it is answered as soon as anything is.
    """

    def __init__(
        self,
        ipfs: Client,
        aggregator: Peer,
        patience_s: float = math.inf,
        answered: Callable[[str, float], None] = lambda *_: None,
    ) -> None:
        """`answered` hears of each answer that came after a silence, and how long that was."""
        self._ipfs = ipfs
        self._aggregator = aggregator
        self._patience_s = patience_s
        self._answered = answered
        self._port: int | None = None
        self._session: aiohttp.ClientSession | None = None
        self._heard_s = 0.0  # when a byte came last, or the first call of several was made
        self._silent_since_s: float | None = None
        self.repeated = 0  # calls that had to be made again

    async def __aenter__(self) -> Control:
        self._session = aiohttp.ClientSession()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def work(self, *, ready: bool, has: str = "") -> Work:
        """What is to be done; another model than `has` is told before there is a round that wants it."""
        question = {"ready": ready, "has": has} if has else {"ready": ready}
        answer, was_silent = await self._post("/v1/work", question, CALL_S)
        if was_silent:  # it may have been on its way for long, and be of a round that is over
            answer, _ = await self._post("/v1/work", question, CALL_S)
        return from_json(Work, answer)

    async def send(self, signed: Signed) -> Answer:
        """The answer; `replayed` after a call that broke off means that it had been taken."""
        before = self.repeated
        answer = from_json(Answer, (await self._post("/v1/update", to_json(signed), SEND_S))[0])
        if answer.reason == "replayed" and self.repeated > before:
            return Answer(accepted=True, detail="known already")
        return answer

    async def _post(self, path: str, body: Mapping[str, Any], timeout_s: float) -> tuple[Any, bool]:
        """The answer, and whether the last try was silent before it came."""
        self._heard_s = time.monotonic()
        deadline = self._heard_s + self._patience_s
        looking = asyncio.create_task(self._look())
        try:
            tries = 0
            while True:
                try:
                    return await self._try(path, body, timeout_s)
                except (aiohttp.ClientError, TimeoutError, OSError, IpfsError, ValueError) as err:
                    last = f"{type(err).__name__}: {err}"
                    is_cut = not isinstance(err, NotYetError)
                if time.monotonic() >= deadline:
                    raise UnansweredError(
                        f"the aggregator did not answer for {self._patience_s:g} s; last: {last}",
                        "see the aggregator's log",
                    )
                self._fall_silent()
                self.repeated += 1
                await asyncio.sleep(PAUSES_S[min(tries, len(PAUSES_S) - 1)])
                tries += 1
                if is_cut:  # else each try would leave another open connection behind, and it takes only some
                    await self._reconnect()
        finally:
            looking.cancel()  # and not waited for: whoever cancels us in that moment must not be swallowed

    async def _try(self, path: str, body: Mapping[str, Any], timeout_s: float) -> tuple[Any, bool]:
        if self._port is None:
            self._port = await self._ipfs.forward(PROTOCOL, self._aggregator.peer_id)
        began_s = time.monotonic()
        data, was_silent = await self._exchange(self._port, path, body, timeout_s)
        try:
            return json.loads(data), was_silent
        except ValueError as err:
            raise ValueError(f"no answer after {time.monotonic() - began_s:.1f} s") from err

    async def _exchange(
        self, port: int, path: str, body: Mapping[str, Any], timeout_s: float
    ) -> tuple[bytes, bool]:
        """What is answered to one request, and whether that was silent for a while."""
        assert self._session is not None, "use it in `async with`"
        url = f"http://{LOOPBACK}:{port}{path}"
        heard_s, was_silent = time.monotonic(), False
        data = bytearray()
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        async with self._session.post(url, json=body, timeout=timeout) as response:
            async for piece in response.content.iter_any():
                was_silent |= time.monotonic() - heard_s >= SILENT_S
                self._heard_s = heard_s = time.monotonic()
                if len(data) < MAX_REPLY_BYTES:
                    data += piece
            self._hear(path)
            if response.status == NOT_YET:
                raise NotYetError(data[:200].decode(errors="replace"))
            if response.status != 200:
                raise ValueError(f"HTTP {response.status}: {data[:200].decode(errors='replace')}")
            return bytes(data), was_silent

    async def _look(self) -> None:
        """While a call is made: when nothing comes for a while, ask whether anything is answered."""
        while True:
            await asyncio.sleep(max(PAUSES_S[0], self._heard_s + SILENT_S - time.monotonic()))
            if time.monotonic() - self._heard_s < SILENT_S:
                continue
            self._fall_silent()
            if self._port is not None:
                with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError, ValueError):
                    await self._exchange(self._port, "/v1/hello", {}, CALL_S)
                    continue
            await asyncio.sleep(PAUSES_S[-1])  # the call itself sees to the tunnel

    def _fall_silent(self) -> None:
        if self._silent_since_s is None:
            self._silent_since_s = self._heard_s

    def _hear(self, path: str) -> None:
        """A request was answered."""
        self._heard_s = time.monotonic()
        if self._silent_since_s is not None:
            silent_s, self._silent_since_s = self._heard_s - self._silent_since_s, None
            self._answered(path, silent_s)

    async def _reconnect(self) -> None:
        """Forget the tunnel, which a restarted daemon has forgotten too, and dial."""
        self._port = None
        with contextlib.suppress(IpfsError):
            await self._ipfs.close_tunnels(PROTOCOL)
        with contextlib.suppress(IpfsError):
            await self._ipfs.connect(self._aggregator, timeout_s=DIAL_S)
