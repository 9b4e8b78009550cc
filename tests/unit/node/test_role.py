"""How a role ends: by itself, by what it meets, or because it is asked to."""

from __future__ import annotations

import asyncio

import pytest

from node.contract import HostError
from node.role import unless_stopped


async def test_a_life_goes_to_its_end() -> None:
    lived: list[int] = []

    async def life() -> None:
        await asyncio.sleep(0)
        lived.append(1)

    await unless_stopped(life(), asyncio.Event())
    assert lived == [1]


async def test_what_ends_it_early_is_raised() -> None:
    async def life() -> None:
        raise HostError("no disk")

    with pytest.raises(HostError, match="no disk"):
        await unless_stopped(life(), asyncio.Event())


async def test_asked_to_stop_it_leaves_in_order() -> None:
    stop, begun, left = asyncio.Event(), asyncio.Event(), []

    async def life() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            left.append("in order")

    asked = asyncio.create_task(unless_stopped(life(), stop))
    await begun.wait()
    assert not asked.done()
    stop.set()
    await asyncio.wait_for(asked, 10)
    assert left == ["in order"]
