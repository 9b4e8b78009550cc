"""Limits of nodes that are containers, as orchestrator/boxes/limits.py has them for nodes in a box.

What a class has is for a node's roles and its IPFS daemon together, so they have a control group in
common, which a keeper writes to; the agent is outside of it. Memory is limited as soon as the containers
run, which is before the parts begin to work, CPU from the moment the node is ready.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

from docker import DockerClient

from node.contract import ShoalError
from node.contract.plan import NodePlan
from orchestrator.boxes.cgroups import KINDS, Kind, Refused
from orchestrator.boxes.limits import COUNTED, Setting, counted, cpu_settings, memory_settings
from orchestrator.containers import groups, keeper, runtime
from orchestrator.containers.compose_file import PartLimit
from orchestrator.containers.containers import Containers
from orchestrator.containers.dockerd import told
from orchestrator.containers.groups import Layout

NEVER: Final = Refused("its containers were never started")


class Asked(Protocol):
    """A keeper, see orchestrator/containers/group_keeper.py."""

    def ask(self, **request: Any) -> Mapping[str, Any]: ...

    def close(self) -> None: ...


class ContainerLimits:
    """The groups of one run: `prepare`, the containers start, `enforce`, `begin` each node, `close`."""

    def __init__(
        self,
        nodes: Sequence[NodePlan],
        fleet: str,
        layout: Layout | Refused,
        open_keeper: Callable[[Layout], Asked],
    ) -> None:
        self._nodes = {n.name: n for n in nodes if n.cpu is not None or n.memory_bytes is not None}
        self._fleet, self._layout, self._open_keeper = fleet, layout, open_keeper
        self._keeper: Asked | None = None
        self.runtime_bytes: Mapping[str, int] = {}  # by part, see runtime.py; before all else
        self._refused: dict[Kind, Refused] = {}
        self._held: dict[tuple[str, Kind], tuple[Setting, ...]] = {}
        self._begun: set[str] = set()
        self._counted: dict[str, dict[str, float]] = {}

    def prepare(self) -> dict[tuple[str, str], PartLimit]:
        """What Compose is to be told of each part; its groups are there then, where the engine needs that."""
        if not self._nodes:
            return {}
        if isinstance(self._layout, Refused):
            self._refused = dict.fromkeys(KINDS, self._layout)
            return part_limits(list(self._nodes.values()), self._fleet, None, self.runtime_bytes)
        self._keeper = self._open_keeper(self._layout)
        # Otherwise the engine makes them itself: systemd wants to know of its own, those of v2 need no care.
        if self._layout == Layout("cgroupfs", 1):
            for node in self._nodes:
                for kind in KINDS:
                    self._ask(node, kind, do="make")
            self.enforce()  # sooner than needed: nothing was ever in them without its limit
        return part_limits(list(self._nodes.values()), self._fleet, self._layout, self.runtime_bytes)

    def enforce(self) -> None:
        """The groups are there: their memory is limited from now on."""
        for node in self._nodes.values():
            if node.memory_bytes is not None and isinstance(self._layout, Layout):
                limit_bytes = node.memory_bytes + runtime.of_node(node, self.runtime_bytes)
                self._hold(node.name, "memory", memory_settings(self._layout.version, limit_bytes))

    def begin(self, node: str) -> None:
        """The node is ready: its parts must be where they belong, and its CPU is limited from now on."""
        planned = self._nodes.get(node)
        if planned is None or isinstance(self._layout, Refused) or node in self._begun:
            return
        self._begun.add(node)
        for kind in self._kinds(planned):
            found = self._ask(node, kind, do="read", files=[])
            parts = len(runtime.parts(planned))
            if found is not None and found["containers"] < parts:
                some = f"{found['containers']} of {parts} parts of {node} are in {self._group(node)}"
                self._refused[kind] = Refused(f"only {some}")
        if planned.cpu is not None:
            self._hold(node, "cpu", cpu_settings(self._layout.version, planned.cpu))

    def said(self) -> dict[str, Any] | None:
        """For binding and results: which nodes, how much, and whether it is so; None when none is limited."""
        if not self._nodes:
            return None
        self._count()
        limits = {n.name: {"cpu": n.cpu, "memory_bytes": n.memory_bytes} for n in self._nodes.values()}
        kinds = {kind for node in self._nodes.values() for kind in self._kinds(node)}
        states: dict[str, str] = {kind: self._state(kind) for kind in KINDS if kind in kinds}
        runtimes = {"runtime_bytes": dict(self.runtime_bytes)} if "memory" in kinds else {}
        return {"nodes": limits, **states, **runtimes, "counted": self._counted}

    def close(self) -> None:
        """While the containers are still there: take the last figures, and whether the limits still hold."""
        if self._keeper is None:
            return
        self._count()
        for (node, kind), settings in self._held.items():
            found = self._ask(node, kind, do="read", files=[setting.file for setting in settings])
            files = found["files"] if found is not None else {}
            for setting in settings:
                held = files.get(setting.file, setting.value).strip()
                if held != setting.value:
                    self._refused[kind] = Refused(f"{setting.file} of {node} holds {held} at the end")
        for planned in self._nodes.values():
            for kind in self._kinds(planned):
                if (planned.name, kind) not in self._held:
                    never = Refused(f"{planned.name} was never ready") if kind == "cpu" else NEVER
                    self._refused.setdefault(kind, never)
        self._keeper.close()
        self._keeper = None

    def _hold(self, node: str, kind: Kind, settings: tuple[Setting, ...]) -> None:
        if self._ask(node, kind, do="write", settings=groups.rows(settings)) is not None:
            self._held[node, kind] = settings

    def _group(self, node: str) -> str:
        assert isinstance(self._layout, Layout)
        return self._layout.group(self._fleet, node)

    def _kinds(self, node: NodePlan) -> list[Kind]:
        limits: dict[Kind, float | None] = {"cpu": node.cpu, "memory": node.memory_bytes}
        return [kind for kind, limit in limits.items() if limit is not None]

    def _state(self, kind: Kind) -> str:
        if kind in self._refused:
            return str(self._refused[kind])
        if isinstance(self._layout, Refused):
            return str(self._layout)
        is_held = any(kind == held for _, held in self._held)
        return f"{'enforced' if is_held else 'to be enforced'} by cgroup v{self._layout.version}"

    def _count(self) -> None:
        if self._keeper is None:
            return
        for name, node in self._nodes.items():
            figures: dict[str, float] = {}
            for kind in self._kinds(node):
                found = self._ask(name, kind, do="read", files=COUNTED) or {"files": {}}
                figures |= counted(found["files"])
                if "ooms" in found:
                    figures["killed_for_memory"] = found["ooms"]
            self._counted.setdefault(name, {}).update(figures)

    def _ask(self, node: str, kind: Kind, **request: Any) -> Mapping[str, Any] | None:
        """Nothing when it could not be done, which is then said of this kind of limit."""
        if self._keeper is None:
            return None
        try:
            return self._keeper.ask(kind=kind, group=self._group(node), **request)
        except ShoalError as error:
            self._refused.setdefault(kind, Refused(error.message))
            return None


def part_limits(
    nodes: Sequence[NodePlan], fleet: str, layout: Layout | None, runtime_bytes: Mapping[str, int]
) -> dict[tuple[str, str], PartLimit]:
    """By node and part: the group in which its container is to be, and the most memory without a keeper.

    That most is the whole node's, so that with a keeper it is the group whose memory ends first.
    """
    limits = {}
    for node in nodes:
        most = None
        if node.memory_bytes is not None:
            most = node.memory_bytes + runtime.of_node(node, runtime_bytes)
        parent = layout.parent(fleet, node.name) if layout is not None else None
        for part in runtime.parts(node):
            limits[node.name, part] = PartLimit(most, parent)
    return limits


def limits(
    nodes: Sequence[NodePlan], containers: Containers, client: DockerClient, image: str
) -> ContainerLimits:
    """Those of a run on this engine."""
    with told("its control groups"):
        layout = groups.layout(client.info())
    labels = containers.labels
    return ContainerLimits(
        nodes, containers.fleet, layout, lambda found: keeper.Keeper(client, image, labels, found)
    )


def remove(containers: Containers, client: DockerClient) -> None:
    """A run's containers, networks and volumes, and then the control groups in which they were."""
    image = keeper.left_by(client, containers.labels)
    containers.remove()
    if image is not None:
        with told("its control groups"):
            layout = groups.layout(client.info())
        if isinstance(layout, Layout):
            keeper.remove_groups(client, image, containers.labels, layout, layout.top(containers.fleet))
