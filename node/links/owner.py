"""The owner of a node's links: puts a table in force, reads back what is, and brings back what went."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from node.contract import ShoalError, UsageError
from node.contract.links import MOST_PEERS, Cut, CutDone, CutHow, DelayEngine, InForce, LinkTable
from node.links import copies, cuts, readback, tree, ways
from node.links.cuts import KernelRules, Rule
from node.links.cutting import NS_PER_S, Cutting
from node.links.delays import is_held, shape_at
from node.links.hold import Holder, HolderGoneError, HoldState
from node.links.kernel import Kernel
from node.links.memory import Memory, Remembered
from node.links.readback import KernelTree
from node.links.states import Seen, link_states
from node.links.tree import DATA, IFB, Branch, Tree

HOLDER_LOG: Final = "holder.log"


class Links:
    """All calls come from one thread: the agent's, which is the holder's parent as well."""

    def __init__(self, node: str, folder: Path, engine: DelayEngine) -> None:
        self._node, self._folder = node, folder
        self.engine: DelayEngine = engine
        self.kernel = Kernel(folder)
        self._memory = Memory(folder)
        self._cutting = Cutting(self.kernel, self._memory)
        self._holder: Holder | None = None  # once something is to be held
        self._queues: dict[str, int] = {}  # who was held once stays so: nothing is lost when that changes
        self._sent: dict[tuple[str, int], Branch] = {}
        self._told: LinkTable | None = None  # the moment of the traces that the kernel was told last

    @property
    def table(self) -> LinkTable | None:
        return self._memory.now.table

    @property
    def is_cut(self) -> bool:
        return bool(self._memory.now.cuts)

    @property
    def deaf_to(self) -> Mapping[str, CutHow]:
        return cuts.united(self._memory.now.cuts)

    def resume(self, first: LinkTable | None) -> InForce | None:
        """What an earlier agent of this node was told last, else what the node was told at its start."""
        self._memory.now = self._memory.read() or Remembered(first)
        if self.table is None:
            return None
        self._cutting.repair(self.kernel.rules())
        return self.apply(self.table)

    def apply(self, table: LinkTable) -> InForce:
        """Put a whole table in force; the answer is read back."""
        began_ns = time.monotonic_ns()
        self._check(table)
        # A later table goes on with the traces where they are.
        traces_began_ns = self._memory.now.began_mono_ns or began_ns
        self._memory.remember(
            dataclasses.replace(self._memory.now, table=table, began_mono_ns=traces_began_ns)
        )
        self._put_trees()
        self._put_hold(self.kernel.rules())
        self._put_way()
        applied_ms = (time.monotonic_ns() - began_ns) / 1e6
        return dataclasses.replace(self.read(), applied_ms=applied_ms)

    def read(self) -> InForce:
        """What is in force, from the kernel and the holder alone."""
        table = self._memory.table()
        seen = self.see()
        peer = table.peers[0].address if table.peers else None
        congestion_control = self.kernel.congestion_control(peer) if peer else table.congestion_control
        gso_max_segs = self._gso_max_segs()
        mismatches = self.differences(seen)
        if congestion_control != table.congestion_control:
            asked = table.congestion_control
            mismatches.append(f"congestion control is {congestion_control} instead of {asked}")
        if gso_max_segs != 1:
            mismatches.append(f"packets of {gso_max_segs} segments instead of 1")
        return InForce(
            engine=self.engine,
            links=tuple(link_states(table, self.engine, seen)),
            mismatches=tuple(mismatches),
            up_bit_s=seen.line(seen.out),
            down_bit_s=seen.line(seen.into),
            congestion_control=congestion_control,
            gso_max_segs=gso_max_segs,
            applied_ms=0.0,
            lateness=seen.held.lateness if seen.held is not None else None,
            waking=seen.held.waking if seen.held is not None else None,
        )

    async def cut(self, cut: Cut, at_mono_ns: int) -> CutDone:
        """Stop hearing some peers at an instant."""
        return await self._cutting.cut(cut, at_mono_ns)

    async def heal(self, fault: str, at_mono_ns: int) -> CutDone:
        """End a fault's cut at an instant."""
        return await self._cutting.heal(fault, at_mono_ns)

    def see(self) -> Seen:
        """One look at everything that has counters."""
        return Seen(
            out=self.kernel.tree(DATA, tree.OUT_HANDLE),
            into=self.kernel.tree(IFB, tree.IN_HANDLE),
            rules=self.kernel.rules(),
            held=self._held(),
            past_cut_packets=self._cutting.past_packets,
            ways=self.kernel.ways() if ways.wanted(self._memory.table()) else {},
        )

    def differences(self, seen: Seen) -> list[str]:
        """Where there is something else than was asked; for people."""
        table = self._told or self.table_now()
        said = readback.compare(self._egress(table), seen.out)
        if (into := tree.ingress(table, self.engine)) is not None:
            said += readback.compare(into, seen.into)
            if seen.out.redirects_to != IFB:
                said.append(f"{DATA}: what comes in does not go through {IFB}")
        said += copies.differences(copies.wanted(table, self.engine), seen.out.copies)
        said += self._hold_differences(seen.held)
        said += cuts.compare_hold(self._hold_rules(), seen.rules)
        said += ways.differences(table, seen.ways)
        return said + self._cutting.differences(seen.rules)

    def repair(self, seen: Seen) -> None:
        """Bring back what was asked; what is as asked is not broken for it."""
        self._put_trees(seen.out, seen.into)
        self._put_hold(seen.rules)
        self._cutting.repair(seen.rules)
        self._put_way()

    def holder_ended(self) -> int | None:
        """The holder's exit status; nothing while it lives or is not needed."""
        return self._holder.poll() if self._queues and self._holder is not None else None

    def close(self) -> None:
        """End the holder; what is in the kernel stays."""
        if self._holder is not None:
            self._holder.stop()

    def follow_traces(self) -> float:
        """Bring the kernel to this moment of the traces; after how many seconds something changes next."""
        table = self._told = self.table_now()
        lines = []
        for wanted in filter(None, (self._egress(table), tree.ingress(table, self.engine))):
            for branch in wanted.branches:
                if self._sent.get((wanted.device, branch.minor)) != branch:
                    lines += tree.branch_changes(wanted, branch)
                    self._sent[wanted.device, branch.minor] = branch
        self.kernel.batch(lines)
        elapsed_s = self._elapsed_s()
        shapes = [shape for links in self._memory.table().peers for shape in (links.out, links.into)]
        return min((shape_at(shape, elapsed_s)[1] for shape in shapes), default=float("inf")) - elapsed_s

    def table_now(self) -> LinkTable:
        """The table at this moment of its traces."""
        table, elapsed_s = self._memory.table(), self._elapsed_s()
        peers = tuple(
            dataclasses.replace(
                links,
                out=dataclasses.replace(shape_at(links.out, elapsed_s)[0], trace=links.out.trace),
                into=dataclasses.replace(shape_at(links.into, elapsed_s)[0], trace=links.into.trace),
            )
            for links in table.peers
        )
        return dataclasses.replace(table, peers=peers)

    def _put_trees(self, out: KernelTree | None = None, into: KernelTree | None = None) -> None:
        table = self._told = self.table_now()
        out = out or self.kernel.tree(DATA, tree.OUT_HANDLE)
        lines = self._lines(self._egress(table), out)
        wanted = tree.ingress(table, self.engine)
        has_ifb = self.kernel.has(IFB)
        if wanted is None and has_ifb:  # it stays, and limits nothing: taking it away would lose packets
            wanted = tree.idle_ingress()
        if wanted is not None:
            if not has_ifb:
                self.kernel.add_ifb()
            lines += self._lines(wanted, into or self.kernel.tree(IFB, tree.IN_HANDLE))
            if out.redirects_to != IFB:
                lines += tree.redirect(anew=out.has_ingress)
                out = dataclasses.replace(out, copies={})
            lines += copies.put(DATA, copies.wanted(table, self.engine), out.copies)
        self.kernel.batch(lines)

    def _lines(self, wanted: Tree, actual: KernelTree) -> list[str]:
        for branch in wanted.branches:
            self._sent[wanted.device, branch.minor] = branch
        if actual.handle != wanted.handle:
            return tree.build(wanted)
        classes = [branch.minor for branch in wanted.branches]
        if (actual.rest, sorted(actual.leaves)) != (wanted.rest, classes):
            return [tree.remove(wanted), *tree.build(wanted)]
        if dict(actual.minors) == wanted.minors():
            return tree.changes(wanted)
        gone = [tree.remove_filters(wanted)] if actual.minors else []
        return [*tree.changes(wanted), *gone, *tree.filters(wanted)]

    def _put_hold(self, actual: KernelRules) -> None:
        table = self._memory.table()
        if self.engine == "hold":
            known = {links.peer for links in table.peers}
            self._queues = {peer: queue for peer, queue in self._queues.items() if peer in known}
            for number, links in enumerate(table.peers, 1):
                if is_held(links.into):
                    self._queues.setdefault(links.peer, number)
            if self._queues:
                # Before any packet is sent there.
                self._running_holder().apply(table, self._queues, self._memory.now.began_mono_ns)
        rules = self._hold_rules()
        if cuts.compare_hold(rules, actual):
            self.kernel.restore(cuts.put_hold(rules, actual))

    def _put_way(self) -> None:
        """What packets have in common, and those to whom they take another way."""
        table = self._memory.table()
        self.kernel.set_way(table.subnet, table.address, table.congestion_control, ways.wanted(table))

    def _running_holder(self) -> Holder:
        if self._holder is None:
            self._holder = Holder(self._folder / HOLDER_LOG)
        if self._holder.pid is None or self._holder.poll() is not None:
            self._holder.start()
        return self._holder

    def _held(self) -> HoldState | None:
        """What the holder says; nothing when it does not answer, which is a mismatch of its own."""
        if not self._queues or self._holder is None or self._holder.poll() is not None:
            return None
        try:
            return self._holder.state()
        except HolderGoneError:
            return None

    def _hold_differences(self, held: HoldState | None) -> list[str]:
        if not self._queues:
            return []
        if held is None:
            return ["the holder has ended: what it should hold is lost"]
        has = {link.peer: link for link in held.links}
        said = []
        for links in self.table_now().peers:
            if links.peer in self._queues:
                link = has.get(links.peer)
                is_, asked = (link and (link.latency_ms, link.loss)), (links.into.latency_ms, links.into.loss)
                if is_ != asked and not links.into.trace:  # between two looks a trace may have moved on
                    said.append(f"the holder has (ms, loss) {is_} from {links.peer} instead of {asked}")
        return said

    def _hold_rules(self) -> list[Rule]:
        return cuts.hold_rules(self._memory.addresses(), self._queues)

    def _egress(self, table: LinkTable) -> Tree:
        self._memory.keep_distributions(table)
        return tree.egress(table, self.engine)

    def _gso_max_segs(self) -> int:
        shown = self.kernel.interface(DATA)
        if shown is None:
            raise ShoalError(
                f"node {self._node} has no interface {DATA}", "the driver makes it before the agent"
            )
        return int(shown["gso_max_segs"])

    def _elapsed_s(self) -> float:
        return (time.monotonic_ns() - self._memory.now.began_mono_ns) / NS_PER_S

    def _check(self, table: LinkTable) -> None:
        if table.node != self._node:
            raise UsageError(f"these are the links of {table.node}, and this is {self._node}")
        if len(table.peers) > MOST_PEERS:
            raise UsageError(f"{len(table.peers)} peers are too many", f"at most {MOST_PEERS} are possible")
        if self.engine == "none" and any(is_held(links.out) or is_held(links.into) for links in table.peers):
            raise UsageError(
                f"the links of {self._node} are to be delayed or lossy, and no engine was chosen for that",
                "choose one for all that the run will ask for, its faults as well",
            )
