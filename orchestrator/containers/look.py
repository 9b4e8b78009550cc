"""What the nodes' kernel and engine allow, found out by throw-away containers: never by versions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

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
# As the holder of packets does it, see node/links/priority.py.
REAL_TIME: Final = """
import os
os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(os.sched_get_priority_min(os.SCHED_FIFO)))
"""
SHARES: Final = (0.9, 0.45)  # of each core, for all agents together; the half, when another fleet lives here


class Look:
    def __init__(self, client: DockerClient, image: str, labels: Mapping[str, str]) -> None:
        self._client, self._image, self._labels = client, image, labels

    def sysctls(self, chosen: str) -> dict[str, str]:
        """What is to be set in each node, for this transport."""
        asked = Errand(["python3", "-c", SETTINGS, *transport.names(chosen)], user=NOBODY)
        return transport.settings(chosen, json.loads(self._answer(asked)))

    def real_time(self, agents: int) -> RealTime | None:
        """How agents may ask to come before all others; nothing where this engine or kernel lets nobody.

        Without a capability: by a resource limit, and where the kernel shares real time out by groups, by
        each agent's part of it as well.
        """
        if self._has_real_time({}):
            return RealTime(None)
        for share in SHARES:
            total_us = int(share * RT_PERIOD_US)
            if self._has_real_time({"cpu_rt_period": RT_PERIOD_US, "cpu_rt_runtime": total_us}):
                return RealTime(total_us // agents)
        return None

    def _has_real_time(self, more: Mapping[str, Any]) -> bool:
        limits = [Ulimit(name="rtprio", soft=1, hard=1)]
        asked = Errand(["python3", "-c", REAL_TIME], user="0:0", more={"ulimits": limits, **more})
        try:
            return errand.run(self._client, self._image, self._labels, asked).status == 0
        except ShoalError:  # the engine refuses to start it
            return False

    def _answer(self, asked: Errand) -> str:
        return errand.answer(self._client, self._image, self._labels, asked)
