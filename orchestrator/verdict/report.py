"""The results of a run as text for people."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from node.contract.plan import Plan
from orchestrator.progress import few_names

MARKS = {"held": "+", "violated": "-", "unknown": "?"}
WORTH_SAYING = 0.005  # of the processors' time


def report(plan: Plan, found: Mapping[str, Any]) -> str:
    """A summary; its last line is the verdict."""
    seconds = found["round_seconds"]
    rows = [
        ("rounds completed", f"{found['rounds_completed']} of {plan.workload.rounds}"),
        ("accuracy, f1", f"{number(found['final_accuracy'])}, {number(found['f1'])}"),
        ("round: first, median, p95", ", ".join(number(seconds[k], "s") for k in ("first", "median", "p95"))),
        ("round / longest training", number(found["overhead_ratio"])),
        ("bytes on the wire / model", number(found["wire_bytes_ratio"])),
        ("memory of a worker", memory_said(plan, found)),
        ("start-up", number(found["startup_seconds"], "s")),
        ("IPFS", str(found["ipfs_engine"])),
        *network_rows(found),
        ("final model", str(found["final_model_cid"])),
        ("repeatable", "yes" if found["repeatable"] else f"no: {found['repeatable_reason']}"),
    ]
    lines = ["", *(f"  {name:28} {value}" for name, value in rows), ""]
    lines += [f"  {MARKS[c['state']]} {c['check']}: {c['state']} ({c['said']})" for c in found["checks"]]
    lines += [f"  ? the network: {doubt}" for doubt in found["network_doubts"]]
    if found["failure"]:
        lines.append(f"  ? the run failed: {found['failure']}")
    return "\n".join([*lines, "", f"verdict: {found['verdict']}"])


def network_rows(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Of the emulated network, where there is one."""
    rows = []
    if measured := found["calibration"]:
        rows.append(("delay engine", str(found["delay_engine"])))
        links = f"{measured['measured_links']} of {measured['links']} links"
        outside = f"{len(measured['outside'])} of {measured['figures']} figures outside"
        rows.append(("measured before round 1", f"{links}, {outside}"))
    if late := found["lateness"]:
        rows.append(("packets delayed too long", f"{late['beyond_tolerance']} of {late['packets']}"))
    if probed := found["link_probes"]["count"]:
        rows.append(("round trips while it ran", f"{found['link_probes']['outside']} of {probed} outside"))
    if (stolen := found["stolen_processor_share"] or 0.0) >= WORTH_SAYING:
        rows.append(("processors given to others", f"{stolen:.1%} of the time, by the host"))
    return rows + [(fault["id"], fault_said(fault)) for fault in found["faults"]]


def fault_said(fault: Mapping[str, Any]) -> str:
    """Whom it hit, and what was seen of it."""
    phases = {"start": fault["start_verified"], "heal": fault["heal_verified"]}  # None: it was not to heal
    seen = [
        f"{phase} {'verified' if yes else 'NOT verified'}" for phase, yes in phases.items() if yes is not None
    ]
    return f"{', '.join(few_names(fault['nodes']))}: {', '.join(seen)}"


def memory_said(plan: Plan, found: Mapping[str, Any]) -> str:
    """Its parts' own; where nobody may see that, what their containers take, which is another figure."""
    seen = found["container_memory_bytes"] or {}
    workers = [seen[node.name] for node in plan.nodes if "trainer" in node.roles and node.name in seen]
    if found["worker_memory_bytes"] is None and workers:
        return f"{number(statistics.median(workers) / 1e6, 'MB')}, as its containers are charged"
    return number(found["worker_memory_bytes"] and found["worker_memory_bytes"] / 1e6, "MB")


def number(value: float | None, unit: str = "") -> str:
    return "not known" if value is None else f"{value:.3g} {unit}".rstrip()
