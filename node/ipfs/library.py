"""ipfshttpclient for the calls that it does right: blocking, so made in threads and bounded."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from node.ipfs import commands
from node.ipfs.errors import IpfsError, IpfsTimeoutError, UnreachableError, from_message

# Its patch of requests is for Unix sockets, which we do not use, and makes urllib3 warn at each call.
os.environ["PY_IPFS_HTTP_CLIENT_PATCH_REQUESTS"] = "no"

import ipfshttpclient
import ipfshttpclient.exceptions as library_errors
import ipfshttpclient.http

GRACE_S: Final = 2.0  # between the daemon's timeout, the socket's and our own
THREADS: Final = 16

Result = TypeVar("Result")


class _CheckedHttp(ipfshttpclient.http.ClientSync):  # type: ignore[misc] # the library has no types
    """Its HTTP, with our table in front and the daemon's own timeout beside the socket's."""

    def _make_session(self) -> Any:
        session = super()._make_session()
        session.trust_env = False  # a proxy of the environment must not see calls to loopback
        return session

    def _request(self, method: str, path: str, params: Any, *, timeout: float, **more: Any) -> Any:
        words = list(params)
        commands.check(path.strip("/"), (name for name, _ in words))
        words.append(("timeout", commands.go_duration(timeout)))
        return super()._request(method, path, words, timeout=timeout + GRACE_S, **more)


class _CheckedClient(ipfshttpclient.Client):  # type: ignore[misc] # the library has no types
    # The constructor asks for no version, unlike connect(), which refuses today's daemons.
    def __init__(self, address: str) -> None:
        super().__init__(address)
        self._client = _CheckedHttp(address, "api/v0")


class Library:
    """Calls of ipfshttpclient from asyncio."""

    def __init__(self, host: str, api_port: int) -> None:
        self._client = _CheckedClient(f"/ip4/{host}/tcp/{api_port}/http")
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="ipfshttpclient")

    async def call(
        self, what: str, function: Callable[..., Result], *args: Any, timeout_s: float, **options: Any
    ) -> Result:
        """One call in a thread; `function` takes the client first."""

        def run() -> Result:
            return function(self._client, *args, timeout=timeout_s, **options)

        loop = asyncio.get_running_loop()
        try:
            return await asyncio.wait_for(loop.run_in_executor(self._threads, run), timeout_s + 2 * GRACE_S)
        except (TimeoutError, library_errors.TimeoutError) as err:
            raise IpfsTimeoutError(f"{what}: no answer within {timeout_s} s") from err
        except library_errors.ConnectionError as err:
            raise UnreachableError(f"{what}: no daemon answers: {err}") from err
        except library_errors.ErrorResponse as err:
            raise from_message(f"{what}: {err}") from err
        except library_errors.Error as err:
            raise IpfsError(f"{what}: {err}") from err

    def close(self) -> None:
        """Waits for nobody: what still runs ends by its own timeout."""
        self._threads.shutdown(wait=False, cancel_futures=True)
