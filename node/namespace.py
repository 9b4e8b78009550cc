"""Entering a node's network namespace from a thread that already runs inside the box."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import ParamSpec, TypeVar

from node.contract import UsageError

CLONE_NEWNET = 0x40000000

_P = ParamSpec("_P")
_T = TypeVar("_T")


def enter(name: str) -> None:
    """Move the calling thread alone into a node; its network is /proc/thread-self/net then."""
    try:
        descriptor = os.open(f"/run/netns/{name}", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise UsageError(
            f"There is no node called {name!r} here.", "see /run/netns for those there are"
        ) from error
    try:
        # Python has os.setns from 3.12 on.
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(descriptor, CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"setns into node {name}: {os.strerror(number)}")
    finally:
        os.close(descriptor)


class NodeThread:
    """One thread that lives in a node.

    A parent-death signal fires when the forking thread ends: keep this open for as long as what it started.
    """

    def __init__(self, name: str) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"node-{name}")
        try:
            self.call(enter, name)
        except BaseException:
            self.close()
            raise

    def call(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Run a function in the node and return what it returns."""
        return self._executor.submit(function, *args, **kwargs).result()

    def close(self) -> None:
        """End the thread, once the calls before have ended."""
        self._executor.shutdown()

    def __enter__(self) -> NodeThread:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
