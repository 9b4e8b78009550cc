"""Wakes everybody who waits for something to change."""

from __future__ import annotations

import asyncio


class News:
    """Whoever waits looks again at what he waits for; there is nothing in the news itself."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def tell(self) -> None:
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self, timeout_s: float) -> None:
        """Until the next news, or until time is up."""
        event = self._event
        try:
            async with asyncio.timeout(max(0.0, timeout_s)):
                await event.wait()
        except TimeoutError:
            return
