"""Whether a node's other parts answer on its loopback: the agent asks each, whatever anybody says of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Final

from node.contract.probes import Answer
from node.ipfs.config import LOOPBACK

ANSWER_S: Final = 1.0
REQUEST: Final = b"GET / HTTP/1.0\r\n\r\n"  # any HTTP will do, be it a refusal


async def answers(ports: Mapping[str, int], timeout_s: float = ANSWER_S) -> dict[str, Answer]:
    """By part: whether something came back, nothing did, or nobody listened."""
    asked = await asyncio.gather(*(answer(port, timeout_s) for port in ports.values()))
    return dict(zip(ports, asked, strict=True))


async def answer(port: int, timeout_s: float) -> Answer:
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(LOOPBACK, port)
            try:
                writer.write(REQUEST)
                return "spoke" if await reader.read(1) else "refused"
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except TimeoutError:  # the kernel takes connections for a process that is stopped
        return "silent"
    except OSError:
        return "refused"
