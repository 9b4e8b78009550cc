"""Where an engine's control groups of a run's nodes are. Pure.

The containers of a node that a class limits have a group in common, below the run's own. Docker can hold only
single containers to something; the group above them is written to by orchestrator/containers/group_keeper.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from orchestrator.boxes.cgroups import Refused
from orchestrator.boxes.limits import Setting

ROOTLESS: Final = "rootless"


@dataclass(frozen=True)
class Layout:
    """How an engine arranges its groups: by which cgroup driver, and of which version they are."""

    driver: Literal["cgroupfs", "systemd"]
    version: Literal[1, 2]

    def parent(self, fleet: str, node: str) -> str:
        """The group of a node, as Compose calls it: `cgroup_parent`."""
        if self.driver == "systemd":
            return f"{fleet}-{node}.slice"
        return f"/{self.group(fleet, node)}"

    def group(self, fleet: str, node: str) -> str:
        """The same as a path below the root of a hierarchy."""
        if self.driver == "systemd":
            return f"{self.top(fleet)}/{fleet}-{node}.slice"
        return f"{self.top(fleet)}/{node}"

    def top(self, fleet: str) -> str:
        """The run's own: below Docker's, which has every controller; systemd nests slices at each dash."""
        if self.driver == "systemd":
            words = fleet.split("-")
            return "/".join("-".join(words[: count + 1]) + ".slice" for count in range(len(words)))
        return f"docker/{fleet}"


def layout(info: Mapping[str, Any]) -> Layout | Refused:
    """From what `docker info` says."""
    if any(ROOTLESS in str(option) for option in info.get("SecurityOptions") or []):
        return Refused("a rootless engine's control groups are not ours to change")
    driver, version = info.get("CgroupDriver"), str(info.get("CgroupVersion") or "1")
    if driver not in ("cgroupfs", "systemd") or version not in ("1", "2"):
        return Refused(f"the engine has the cgroup driver {driver!r} with cgroup v{version}")
    return Layout(driver, 1 if version == "1" else 2)


def rows(settings: Sequence[Setting]) -> list[tuple[str, str, bool]]:
    """Settings as the keeper reads them."""
    return [(setting.file, setting.value, setting.is_optional) for setting in settings]
