"""Watches over a fleet while it works: what is waited for, how long, and what is lost meanwhile."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from node.contract import ExitCode, ShoalError, UsageError
from node.contract.plan import Plan, When
from orchestrator import progress
from orchestrator.history import Event, History
from orchestrator.trunks import NAME as TRUNKS

IPFS_READY_S: Final = 60.0
TRAINERS_READY_S: Final = 300.0
ROUND_GRACE_S: Final = 60.0  # beyond its deadline: aggregation and the record
RELEASE_GRACE_S: Final = 150.0  # a round waits for the calibration, and for faults to be in force
END_TOLD_S: Final = 5.0


class FleetFailedError(ShoalError):
    """The fleet did not come so far that the experiment could say anything."""

    exit_code = ExitCode.UNKNOWN


class Vigil:
    """`heard` is called with every event of the rounds, in this thread."""

    def __init__(
        self,
        plan: Plan,
        history: History,
        logs: Path,
        say: Callable[[str], None],
        heard: Callable[[Event], None],
    ) -> None:
        self._plan, self._history, self._logs, self._say, self._heard = plan, history, logs, say, heard
        self._began = time.monotonic()
        self._told_records: set[str] = set()

    def wait_ipfs(self) -> None:
        """Until every node's daemon answers."""
        names = {node.name for node in self._plan.nodes}
        all_told = self._history.wait(
            lambda _: (
                names <= self._nodes_with("ipfs_ready") | self._nodes_with("part_ended") or self._is_lost()
            ),
            IPFS_READY_S,
        )
        self._check_lost()
        if missing := sorted(names - self._nodes_with("ipfs_ready")):
            how = "ended at their start" if all_told else f"are not ready after {IPFS_READY_S:g} s"
            raise FleetFailedError(
                f"the IPFS daemons of {', '.join(missing)} {how}", self._last_heard(missing)
            )
        self._say(f"{len(names)} IPFS daemons are up after {time.monotonic() - self._began:.1f} s")

    def watch_rounds(self) -> None:
        """Tell what happens until the run has finished; every wait is bounded by what may take longest."""
        seen = 0
        limit_s = TRAINERS_READY_S
        while not self._history.of("run_finished"):
            news = self._history.wait_news(seen, limit_s)
            seen += len(news)
            if not news:
                raise FleetFailedError(f"nothing was heard for {limit_s:g} s", self._last_heard())
            for event in news:
                self._tell(event)
                if event["kind"] == "all_ready":
                    limit_s = self._plan.aggregation.deadline_s + ROUND_GRACE_S + RELEASE_GRACE_S
                    limit_s += self._longest_absence_s()
                self._heard(event)
            self._check_lost()

    def _tell(self, event: Event) -> None:
        """A restarted aggregator may tell of a record a second time: a person hears of it once."""
        if event["kind"] == "round_closed":
            if event["record"] in self._told_records:
                return
            self._told_records.add(event["record"])
        if said := progress.line(self._plan, event, time.monotonic() - self._began):
            self._say(said)

    def _longest_absence_s(self) -> float:
        """For how long a fault may keep the aggregator's node from telling anything."""
        aggregators = {node.name for node in self._plan.nodes if "aggregator" in node.roles}
        hit = [fault for fault in self._plan.faults if aggregators & fault.parts.keys()]
        return max((self._seconds_until(fault.heal) for fault in hit), default=0.0)

    def _seconds_until(self, when: When | None) -> float:
        """As far as the plan tells; what comes after another fault waits for that as well."""
        if when is None:
            return 0.0
        awaited = next((fault.heal for fault in self._plan.faults if fault.id == when.fault), None)
        return when.seconds + self._seconds_until(awaited)

    def _nodes_with(self, kind: str) -> set[str]:
        return {event["node"] for event in self._history.events if event["kind"] == kind}

    def _vital(self) -> list[str]:
        """Without whom no round will ever close, or none as planned."""
        return [*(node.name for node in self._plan.nodes if "aggregator" in node.roles), TRUNKS]

    def _is_lost(self) -> bool:
        """Whether the aggregator, or what it needs, has ended."""
        vital = self._vital()
        return any(
            event["kind"] in ("failed", "part_ended")
            and event["node"] in vital
            and not event.get("expected")
            and (event["kind"], event["part"]) != ("part_ended", "agent")  # it is started again
            and not self._is_meant(event)
            for event in self._history.events
        )

    def _is_meant(self, event: Event) -> bool:
        """Whether it says of a daemon that it does not answer, while a fault has it so."""
        return (
            event["kind"] == "failed"
            and event["part"] == "ipfs"
            and any(
                {"ipfs", "node"} & set(fault.parts.get(event["node"], ()))
                and fault.id in {begun["fault"] for begun in self._history.of("fault_started")}
                for fault in self._plan.faults
            )
        )

    def _check_lost(self) -> None:
        if not self._is_lost() or self._history.of("run_finished"):
            return
        names = self._vital()
        ends = self._ends(names)
        failures = [event for event in self._history.events if event["kind"] == "failed"]
        of_aggregator = [event for event in failures if event["node"] in names]
        if of_aggregator and any(end["status"] == ExitCode.USAGE for end in ends):
            raise UsageError(of_aggregator[0]["message"], of_aggregator[0]["hint"])
        how = [f"{end['part']} of {end['node']} ended with {end['status']}" for end in ends]
        lines = any(end["node"] == TRUNKS for end in ends)
        what = "what carries the lines that zones share" if lines else "the aggregator's node"
        raise FleetFailedError(
            f"{what} was lost" + (f": {', '.join(how)}" if how else ""), self._last_heard(names)
        )

    def _ends(self, names: list[str]) -> list[Event]:
        """The unexpected ends of parts; a part that fails says so a moment before it ends."""

        def ends(events: list[Event]) -> list[Event]:
            ended = [e for e in events if e["kind"] == "part_ended" and not e["expected"]]
            return [event for event in ended if event["node"] in names]

        self._history.wait(lambda events: bool(ends(events)), END_TOLD_S)
        return ends(list(self._history.events))

    def _last_heard(self, nodes: list[str] | None = None) -> str:
        said = [event for event in self._history.events if nodes is None or event["node"] in nodes]
        failures = [event for event in said if event["kind"] == "failed"]
        last = (failures or said)[-1:] or [{"kind": "nothing", "node": "any node"}]
        about = {key: value for key, value in last[0].items() if key not in ("wall", "mono_ns")}
        return f"last heard: {json.dumps(about)}; the parts' logs are in {self._logs}"
