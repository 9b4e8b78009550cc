"""What is made of a container's death: news for the history, a word for the person, or nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from node.contract import ShoalError
from orchestrator.containers.container_parts import HOLDER
from orchestrator.containers.containers import Death
from orchestrator.trunks import NAME as TRUNKS

CONTAINER: Final = "container"
MORE_MEMORY: Final = "give its class more in the scenario, or this host, where no class limits it"
SIGNALLED: Final = 128  # and the signal's number: the status of whoever was killed by one


class Tail(Protocol):
    def __call__(self, node: str, part: str, /) -> str: ...


class Deaths:
    """A part that ends by itself has told so; of one that was killed, or not begun, nobody else can tell."""

    def __init__(
        self,
        tail: Tail,
        explains: Callable[[str, str], bool],  # whether it was ordered; asked once for each that was killed
        ended: Callable[[str, int, str, bool], None],
        say: Callable[[str], None],
    ) -> None:
        self._tail, self._explains, self._ended, self._say = tail, explains, ended, say

    def hear(self, death: Death) -> None:
        node, part, status = death.node, death.part, death.status
        if not node and part == TRUNKS:  # then nothing passes there any more
            self._ended(TRUNKS, status if status <= SIGNALLED else SIGNALLED - status, CONTAINER, False)
            return
        if part == HOLDER or status == 0:
            return
        if status > SIGNALLED and node:
            is_ordered = self._explains(node, part)
            if death.for_memory and not is_ordered:
                self._say(f"  {part} of {node} was killed for memory: {MORE_MEMORY}")
            self._ended(node, SIGNALLED - status, part, is_ordered)
        elif said := self._last_words(node, part):
            # Whoever gets as far as its part says nothing here, but in the part's own log and events.
            name = "-".join(filter(None, (node, part)))
            self._say(f"the container of {name} has ended with {status}; it said last:\n{said}")
            if node:
                self._ended(node, status, part, False)
        elif not node:
            self._say(f"the container of {part} has ended with {status}")

    def _last_words(self, node: str, part: str) -> str:
        """Nothing where the container is gone already."""
        try:
            return self._tail(node, part)
        except ShoalError:
            return ""
