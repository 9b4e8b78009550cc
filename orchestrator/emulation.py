"""The emulated network of one run: which engine makes it, whether it is as planned, what breaks it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from node.contract import ShoalError
from node.contract.links import DelayEngine, InForce, LinkTable
from node.contract.plan import Plan
from node.contract.probes import PROBE_S
from node.contract.schema import to_json
from node.links.table import tables
from orchestrator.faults import schedule
from orchestrator.faults.agents import AgentFleet, Call
from orchestrator.faults.fault import PartControl
from orchestrator.faults.timeline import Timeline
from orchestrator.history import Event, History
from orchestrator.measuring.calibration import Calibration
from orchestrator.measuring.calibrator import Calibrator
from orchestrator.measuring.measurements import Network

LINKS_S: Final = 60.0  # for all nodes to put their links in force
FIRST_ROUND: Final = 1


class Emulation:
    """Of a plan that asks nothing of its links, and breaks nothing, nothing of this is done."""

    def __init__(self, plan: Plan, history: History, say: Callable[[str], None], call: Call) -> None:
        self._plan, self._history, self._say = plan, history, say
        self.is_shaped = Network(plan).is_shaped()
        self.is_asked = self.is_shaped or bool(plan.faults)
        self.engine: DelayEngine = "none"
        self.probed: Mapping[str, Any] | None = None
        self._loses = any(link.loss for links in schedule.link_states(plan) for link in links)
        self._tables = tables(plan)
        self._fleet = AgentFleet(plan, call)
        self._call = call
        self._timeline = Timeline(plan, history, self._fleet, say)
        self._is_begun = False
        self.calibration: Calibration | None = None
        self.lateness: dict[str, Any] | None = None
        self.in_force: Mapping[str, InForce] = {}  # by node, read back at the end

    @property
    def pauses(self) -> tuple[int, ...]:
        """Rounds that the aggregator opens when it is told: the first, and those with faults."""
        return tuple(sorted({*schedule.pauses(self._plan), *((FIRST_ROUND,) if self.is_asked else ())}))

    def table(self, node: str) -> LinkTable | None:
        return self._tables[node] if self.is_asked else None

    # -- before the nodes start
    def bind(
        self,
        try_links: Callable[[str], str],
        parts: PartControl | None = None,
        trunks: str | None = None,
    ) -> None:
        """Choose the engine; HostError when this host cannot make the plan's links.

        `parts`: for faults; `trunks`: where nodes have to send what goes through one.
        """
        self._fleet.parts, self._fleet.trunks = parts, trunks
        self._tables = tables(self._plan, trunks)
        if not self.is_asked:
            return
        states = [replace(self._plan, links=links) for links in schedule.link_states(self._plan)]
        wanted = {
            "delay_engine": self._plan.network.delay_engine,
            "tables": [to_json(table) for state in states for table in tables(state).values()],
        }
        found = json.loads(try_links(json.dumps(wanted)))
        self.engine, self.probed = found["engine"], found["probed"]

    # -- while it lives
    def heard(self, event: Event) -> None:
        """Before round 1 the links are measured; from then on the timetable holds."""
        if not self.is_asked or self._is_begun or event["kind"] != "round_due":
            return
        self._is_begun = True
        self._wait_links()
        if self.is_shaped:
            self._calibrate()
        if self._loses:  # the calibration's own losses are none of the rounds'
            self._note_losses("before", self._read_links()[0])
        self._fleet.read_clocks()
        self._timeline.start()
        if not self._plan.faults:  # else the timetable releases it, as every round that waits
            self._fleet.release(FIRST_ROUND)
            self._history.note("round_released", round=FIRST_ROUND)

    def _wait_links(self) -> None:
        """Agents tell it before their node's other parts start, so this is mostly over."""
        names = {node.name for node in self._plan.nodes}
        self._history.wait(
            lambda events: names <= {e["node"] for e in events if e["kind"] == "links_applied"}, LINKS_S
        )

    def _calibrate(self) -> None:
        began_s = time.monotonic()
        self._say("measuring the links, one of each kind")
        calibrator = Calibrator(lambda node, path, body: self._call(node, "POST", path, body, PROBE_S))
        self.calibration = found = calibrator.measure(self._plan, everything=False)
        self._history.note(
            "calibrated",
            figures=len(found.figures),
            outside=list(found.outside),
            seconds=time.monotonic() - began_s,
        )
        outcome = f"NOT as intended: {len(found.outside)}" if found.outside else "all as intended"
        self._say(
            f"{found.measured_links} of {found.links} links are measured after {found.seconds:.1f} s; "
            f"round trips, losses, rates: {len(found.figures)} in all, {outcome}"
        )
        for said in found.outside:
            self._say(f"  {said}")

    def leave(self) -> None:
        """The run ends early: nothing more is done to the fleet."""
        self._timeline.leave()

    def stop(self) -> None:
        """End the timetable, and take what the holders say of themselves, while the agents still answer."""
        self._timeline.stop()
        if not self.is_asked:
            return
        read, unread = self._read_links()
        for name, why in unread.items():
            self._history.note("links_unread", of=name, message=why)
        self.in_force = read
        held = [state.lateness for state in read.values() if state.lateness is not None]
        packets, late = sum(one.packets for one in held), sum(one.beyond_tolerance for one in held)
        self.lateness = {"packets": packets, "beyond_tolerance": late} if held else None
        if self._loses:
            self._note_losses("after", read)

    def _read_links(self) -> tuple[dict[str, InForce], dict[str, str]]:
        """Of all nodes by name; and why not, of those who do not answer."""
        read, unread = {}, {}
        for node in self._plan.nodes:
            try:
                read[node.name] = self._fleet.get_links(node.name)
            except ShoalError as error:
                unread[node.name] = error.message
        return read, unread

    def _note_losses(self, when: str, read: Mapping[str, InForce]) -> None:
        """Packets that were lost on purpose so far, by link."""
        if len(read) == len(self._plan.nodes):
            lost = {f"{x.peer}>{name}": x.lost_packets for name, state in read.items() for x in state.links}
            self._history.note("losses_counted", when=when, lost=lost)
