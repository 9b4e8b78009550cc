"""Puts cuts in force and heals them, at an instant, so that many nodes do it as one."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import time
from collections.abc import Mapping
from typing import Final

from node.contract.links import Cut, CutDone
from node.links import cuts
from node.links.cuts import KernelRules, Rule
from node.links.kernel import Kernel
from node.links.memory import Memory

EARLY_S: Final = 0.001  # waking takes a moment
COUNT_EARLY_S: Final = 0.15  # all nodes read their counters at the same time
NS_PER_S: Final = 1_000_000_000


class Cutting:
    """The cuts of one node; what they shall be is in the memory."""

    def __init__(self, kernel: Kernel, memory: Memory) -> None:
        self._kernel, self._memory = kernel, memory
        self._waiting = 0
        self.past_packets: dict[str, int] = {}  # that chains which are gone had cut, by address

    async def cut(self, cut: Cut, at_mono_ns: int) -> CutDone:
        """Stop hearing some peers at an instant; again for the same fault changes it."""
        rules = cuts.cut_rules(cut, self._memory.addresses())
        return await self._at(at_mono_ns, cut.fault, cut, rules)

    async def heal(self, fault: str, at_mono_ns: int) -> CutDone:
        """Hear them again, but whom another fault cuts off; one that is over already is no error."""
        return await self._at(at_mono_ns, fault, None, [])

    def differences(self, actual: KernelRules) -> list[str]:
        """None while a cut waits for its moment: the kernel rightly has something else then."""
        return [] if self._waiting else cuts.compare_cuts(self._wanted(), actual)

    def repair(self, actual: KernelRules) -> None:
        if self.differences(actual):
            self._kernel.restore(cuts.put_cuts(self._wanted(), actual))

    async def _at(self, at_mono_ns: int, fault: str, cut: Cut | None, rules: list[Rule]) -> CutDone:
        before = self._memory.now.cuts.get(fault)
        actual = self._kernel.rules()
        if "filter" not in actual.tables:
            self._kernel.restore(cuts.put_base())
        # Remembered first: an agent that ends here comes back to what it was told.
        self._remember(fault, cut)
        armed = self._kernel.arm(
            cuts.remove_cut(fault, actual) if cut is None else cuts.put_cut(fault, rules, actual)
        )
        self._waiting += 1
        _be_prompt(self._waiting > 0, armed.pid)
        try:
            if cuts.chain_of(fault) in actual.chains:
                await _sleep_until(at_mono_ns, COUNT_EARLY_S)
                self._count_past(fault)
            await _sleep_until(at_mono_ns, EARLY_S)
            effective_mono_ns = armed.fire()
        except BaseException:
            armed.drop()
            self._remember(fault, before)
            raise
        finally:
            self._waiting -= 1
            _be_prompt(self._waiting > 0)
        return CutDone(fault, at_mono_ns, effective_mono_ns, cuts.united(self._memory.now.cuts))

    def _remember(self, fault: str, cut: Cut | None) -> None:
        wanted = {name: other for name, other in self._memory.now.cuts.items() if name != fault}
        if cut is not None:
            wanted[fault] = cut
        self._memory.remember(dataclasses.replace(self._memory.now, cuts=wanted))

    def _count_past(self, fault: str) -> None:
        """The counters of a chain go with its rules."""
        for counted in self._kernel.rules().chains.get(cuts.chain_of(fault), ()):
            address = counted.rule.address
            self.past_packets[address] = self.past_packets.get(address, 0) + counted.packets

    def _wanted(self) -> Mapping[str, list[Rule]]:
        known = self._memory.now.cuts
        addresses = self._memory.addresses() if known else {}
        return {fault: cuts.cut_rules(cut, addresses) for fault, cut in known.items()}


def _be_prompt(wanted: bool, *others: int) -> None:
    """Come before whatever keeps the processors busy, if we may; nothing that is forked inherits it."""
    least = os.sched_param(os.sched_get_priority_min(os.SCHED_FIFO))
    with contextlib.suppress(PermissionError, ProcessLookupError):
        for pid in (0, *others):
            if wanted:
                os.sched_setscheduler(pid, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, least)
            else:
                os.sched_setscheduler(pid, os.SCHED_OTHER, os.sched_param(0))


async def _sleep_until(at_mono_ns: int, early_s: float) -> None:
    await asyncio.sleep(max(0.0, (at_mono_ns - time.monotonic_ns()) / NS_PER_S - early_s))
