"""The links' part of the agent's HTTP.

PUT /links            a LinkTable, put in force whole; answers an InForce, read back
GET /links            an InForce
PUT /cuts             {"cut": a Cut, "at_mono_ns": N}; answers a CutDone once it is in force
DELETE /cuts/FAULT?at_mono_ns=N
POST /probes          what node/contract/probes.py says
GET /clock            {"mono_ns": N}: the clock of all instants here

What is refused is answered with {"error", "hint"}: 400 for a wrong request, 503 where the kernel would not.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from aiohttp import web

from node.contract import ShoalError, UsageError
from node.contract.links import Cut, LinkTable
from node.contract.schema import from_json, to_json
from node.links.owner import Links
from node.links.probes import Probes

MAX_BODY_BYTES = 16 << 20  # a table of a thousand peers with traces

T = TypeVar("T")


@dataclass(frozen=True)
class CutOrder:
    cut: Cut
    at_mono_ns: int


class LinkRoutes:
    """Answers for the links of one node; whoever comes second waits while a table is being applied."""

    def __init__(self, links: Links, probes: Probes, changed: Callable[[], None]) -> None:
        self._links, self._probes = links, probes
        self._changed = changed

    def add_to(self, router: web.UrlDispatcher) -> None:
        router.add_put("/links", self._put_links)
        router.add_get("/links", self._get_links)
        router.add_put("/cuts", self._put_cut)
        router.add_delete("/cuts/{fault}", self._delete_cut)
        router.add_post("/probes", self._probe)
        router.add_get("/clock", self._clock)

    async def _put_links(self, request: web.Request) -> web.Response:
        table = await _body(request, LinkTable)

        async def apply() -> Any:
            try:
                return self._links.apply(table)
            finally:
                self._changed()

        return await _answered(apply())

    async def _get_links(self, _: web.Request) -> web.Response:
        async def read() -> Any:
            return self._links.read()

        return await _answered(read())

    async def _put_cut(self, request: web.Request) -> web.Response:
        order = await _body(request, CutOrder)
        return await self._at_its_moment(self._links.cut(order.cut, order.at_mono_ns))

    async def _delete_cut(self, request: web.Request) -> web.Response:
        text = request.query.get("at_mono_ns", "0")
        if not (text.isascii() and text.isdigit()):
            raise web.HTTPBadRequest(text="at_mono_ns must be a number of nanoseconds\n")
        return await self._at_its_moment(self._links.heal(request.match_info["fault"], int(text)))

    async def _at_its_moment(self, change: Awaitable[Any]) -> web.Response:
        # Whoever asked may hang up; what has begun must not stop half way.
        answer = await asyncio.shield(asyncio.ensure_future(_answered(change)))
        self._changed()
        return answer

    async def _probe(self, request: web.Request) -> web.Response:
        return web.json_response(await self._probes.answer(await _json(request)))

    async def _clock(self, _: web.Request) -> web.Response:
        return web.json_response({"mono_ns": time.monotonic_ns()})


async def _body(request: web.Request, kind: type[T]) -> T:
    try:
        return from_json(kind, await _json(request))
    except UsageError as error:
        raise _refused(web.HTTPBadRequest, error) from error


async def _json(request: web.Request) -> Any:
    try:
        return await request.json()
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise _refused(web.HTTPBadRequest, UsageError(f"the body is no JSON: {error}")) from error


async def _answered(what: Awaitable[Any]) -> web.Response:
    try:
        return web.json_response(to_json(await what))
    except UsageError as error:
        raise _refused(web.HTTPBadRequest, error) from error
    except ShoalError as error:
        raise _refused(web.HTTPServiceUnavailable, error) from error


def _refused(status: type[web.HTTPException], error: ShoalError) -> web.HTTPException:
    said = json.dumps({"error": error.message, "hint": error.hint})
    return status(text=said, content_type="application/json")
