"""What the nodes' kernel and engine allow, found out by throw-away containers: never by versions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from docker import DockerClient
from docker.types import Ulimit

from node.contract import ShoalError
from orchestrator import transport
from orchestrator.containers import errand
from orchestrator.containers.compose_file import RT_PERIOD_US, RealTime
from orchestrator.containers.errand import Errand

NOBODY: Final = "65534:65534"
# What each fresh network namespace has of these settings; a kernel may not know them all.
SETTINGS: Final = """
import json, pathlib, sys
files = {name: pathlib.Path("/proc/sys/net/ipv4", name) for name in sys.argv[1:]}
print(json.dumps({name: file.read_text().strip() for name, file in files.items() if file.exists()}))
"""
# As it is done for the holder of packets, see node/links/priority.py.
REAL_TIME: Final = """
import os
os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(os.sched_get_priority_min(os.SCHED_FIFO)))
"""
RAISED: Final = "from node.links import priority; priority.lend(0)"
ROOMY_US, NARROW_US = int(0.9 * RT_PERIOD_US), int(0.45 * RT_PERIOD_US)
# Where real time is shared out: what all agents ask for of each core; half of it beside another fleet.
WAYS: Final = (
    RealTime("asked"),
    RealTime("raised"),
    RealTime("asked", ROOMY_US),
    RealTime("asked", NARROW_US),
)


class Look:
    def __init__(self, client: DockerClient, image: str, labels: Mapping[str, str]) -> None:
        self._client, self._image, self._labels = client, image, labels

    def sysctls(self, chosen: str) -> dict[str, str]:
        """What is to be set in each node, for this transport."""
        asked = Errand(["python3", "-c", SETTINGS, *transport.names(chosen)], user=NOBODY)
        return transport.settings(chosen, json.loads(self._answer(asked)))

    def real_time(self, agents: int) -> RealTime | None:
        """How agents' holders may come before all others; nothing where this engine or kernel lets nobody.

        Agents had better ask for it themselves, since then they cut in time, too. Where the kernel shares
        real time out by groups, each agent needs its part of it.
        """
        for wanted in WAYS:
            if self._is_given(wanted):
                part_us = wanted.runtime_us // agents if wanted.runtime_us is not None else None
                return RealTime(wanted.way, part_us)
        return None

    def _is_given(self, wanted: RealTime) -> bool:
        shared = {"cpu_rt_period": RT_PERIOD_US, "cpu_rt_runtime": wanted.runtime_us}
        is_raised = wanted.way == "raised"
        asked = Errand(
            ["python3", "-c", RAISED if is_raised else REAL_TIME],
            user="0:0",
            capabilities=("SYS_NICE",) if is_raised else (),
            more={
                "ulimits": [] if is_raised else [Ulimit(name="rtprio", soft=1, hard=1)],
                **(shared if wanted.runtime_us is not None else {}),
            },
        )
        try:
            return errand.run(self._client, self._image, self._labels, asked).status == 0
        except ShoalError:  # the engine refuses to start it
            return False

    def _answer(self, asked: Errand) -> str:
        return errand.answer(self._client, self._image, self._labels, asked)
