"""The figures of a run, from its history and its counters: pure.

Every key of results.json is explained in KEYS; a test keeps the two alike.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Final

from node.contract.plan import FaultPlan, Plan
from orchestrator import processors
from orchestrator.history import Event
from orchestrator.verdict import doubts
from orchestrator.verdict.evidence import Evidence
from orchestrator.verdict.recovery import recovery_seconds

KEYS: Final = {
    "verdict": "held, violated or unknown",
    "exit_code": "0, 1 or 2 for the verdict; see shoal --help",
    "failure": "what kept the run from its end; null when nothing did",
    "checks": "each check as written, its state, and what was seen",
    "scenario": "name of the scenario",
    "run": "this run's id",
    "driver": "how the nodes came to life",
    "ipfs_engine": "engine and version of every node's IPFS daemon, `mixed` where they differ",
    "delay_engine": "what delays packets; none: links are not shaped",
    "network_doubts": "why the network may not have been as planned; with any the run is unknown",
    "calibration": "links measured before round 1: figures, links, seconds, outside, not_measured; "
    "calibration.json has the table; null when no link is shaped",
    "lateness": "packets that a holder delayed, and those let through beyond the tolerance; null without one",
    "link_probes": "round trips probed during the run: count, and how many were outside what can be",
    "faults": "each fault: nodes, skew_ms between the first and the last of them, whether start and heal "
    "were verified",
    "stolen_processor_share": "of the processors' time during the run: what the host gave to others (steal); "
    "much of it makes packets late and links slow; null when the run did not come to its end",
    "unwatched_seconds": "by node: how long nobody watched its links, since a fault had taken its agent",
    "recovery_seconds": "by fault and worker that it cut off or took down: from the instant at which the "
    "heal was in force to the worker's first answered control request (answered; null when it was not "
    "waiting for an answer at the heal, or for less than 2.5 s) and to its first accepted update (accepted)",
    "transport": "how soon TCP and the daemon notice a dead link and its return",
    "limits": "which nodes' CPU and memory were to be limited, whether they were, and what the "
    "kernel counted: seconds held back, processes killed for memory, peak; null when none; runtime_bytes is "
    "what nodes of containers have on top of their memory, by part: resident in a fresh process, no file's",
    "seed": "the seed that the plan was made with",
    "synthetic_data": "whether the data set was generated",
    "repeatable": "whether another run ends with the same final_model_cid; null when this one did not end",
    "repeatable_reason": "why not; null when it is",
    "rounds_completed": "rounds that made a new model",
    "final_model_cid": "CID of the last model's safetensors file",
    "head": "CID of the newest round record; the chain hangs on it",
    "final_accuracy": "share of the held-out examples that the last model gets right",
    "precision": "macro average over classes, held-out examples",
    "recall": "macro average over classes, held-out examples",
    "f1": "macro average over classes, held-out examples",
    "round_seconds": "from a round's opening to its stored record: first; median and p95 of the later",
    "overhead_ratio": "median later round / median over these rounds of the longest training in it",
    "wire_bytes_ratio": "bytes received on all data interfaces from the opening of round 2 to the last "
    "record, / (2 x workers x bytes of the model file x rounds in between)",
    "worker_memory_bytes": "median over workers of the sum of their parts' peaks of proportional set size",
    "fleet_memory_bytes": "sum over all parts of all nodes of their peaks of proportional set size",
    "container_memory_bytes": "by node, what the engine counts for its containers together, without pages "
    "of files that the kernel may drop: the most that was seen as rounds closed; null in a box",
    "startup_seconds": "from the start of the run until all workers ask for work",
    "time_to_accuracy_seconds": "from the opening of round 1 to the first record at which the check of "
    "final_accuracy held; null without such a check, or when it never did",
    "inference_seconds": "one batch of 1 and of 32 on one thread, median of 100",
    "rounds": "each round: seconds, accuracy, loss, updates accepted, refused, missing, each sender's times",
}

# Of a run that went well these may still be null.
MAY_BE_NULL: Final = {
    "failure",
    "limits",
    "container_memory_bytes",
    "repeatable_reason",
    "time_to_accuracy_seconds",
    "calibration",
    "lateness",
}


def figures(
    plan: Plan,
    history: Sequence[Event],
    counters: Mapping[str, Mapping[str, float]],
    calibration: Mapping[str, Any] | None = None,
    lateness: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What can be computed of a run; what was not observed is null.

    counters: bytes received on `data` by node at the end (`end`), and the most memory that was seen, by node:
    by its agent (`memory`), by a container engine (`containers`).
    calibration: calibration.json. lateness: of all holders together.
    """
    by_record: dict[str, Event] = {}
    for event in history:
        if event["kind"] == "round_closed":  # a restarted aggregator may tell of one a second time
            by_record.setdefault(event["record"], event)
    closed = list(by_record.values())
    completed = [e for e in closed if e["completed"]]
    finished = next((e for e in history if e["kind"] == "run_finished"), None)
    later = [e["seconds"] for e in completed[1:]]
    accepted = [e for e in history if e["kind"] == "update_accepted"]
    return {
        "rounds_completed": len(completed),
        "final_model_cid": finished and finished["model"],
        "head": finished and finished["head"],
        "final_accuracy": finished and finished["accuracy"],
        "precision": finished and finished["precision"],
        "recall": finished and finished["recall"],
        "f1": finished and finished["f1"],
        "round_seconds": {
            "first": completed[0]["seconds"] if completed else None,
            "median": statistics.median(later) if later else None,
            "p95": percentile(later, 0.95),
        },
        "overhead_ratio": overhead(completed[1:], accepted),
        "wire_bytes_ratio": wire_ratio(plan, history, counters),
        "worker_memory_bytes": worker_memory(plan, counters.get("memory", {})),
        "fleet_memory_bytes": sum(counters["memory"].values()) if "memory" in counters else None,
        "container_memory_bytes": dict(counters["containers"]) if "containers" in counters else None,
        "startup_seconds": between(history, "run_started", "all_ready"),
        "time_to_accuracy_seconds": time_to_accuracy(plan, history, completed),
        "inference_seconds": finished
        and {"1": finished["inference_ms_1"] / 1000, "32": finished["inference_ms_32"] / 1000},
        "rounds": [round_row(e, accepted) for e in closed],
        **network_figures(plan, history, calibration, lateness),
    }


def network_figures(
    plan: Plan,
    history: Sequence[Event],
    calibration: Mapping[str, Any] | None,
    lateness: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """What was verified of the network, and what was not."""
    return {
        "network_doubts": doubts.network_doubts(plan, history, calibration, lateness),
        "calibration": calibration
        and {
            "figures": len(calibration["figures"]),
            **{key: calibration[key] for key in ("links", "measured_links", "seconds")},
            **{key: list(calibration[key]) for key in ("outside", "not_measured")},
        },
        "lateness": lateness and {key: lateness[key] for key in ("packets", "beyond_tolerance")},
        "link_probes": doubts.probes_told(history),
        "faults": [fault_row(Evidence(plan, history, {}), fault) for fault in plan.faults],
        "recovery_seconds": recovery_seconds(plan, history),
        "unwatched_seconds": doubts.unwatched_seconds(plan, history),
        "stolen_processor_share": processors.stolen_share(history),
    }


def fault_row(evidence: Evidence, fault: FaultPlan) -> dict[str, Any]:
    begun = evidence.of("fault_started", fault=fault.id)
    return {
        "id": fault.id,
        "text": fault.text,
        "nodes": list(fault.targets),
        "skew_ms": begun[0]["skew_ms"] if begun else None,
        "start_verified": evidence.is_verified(fault.id, "start"),
        "heal_verified": evidence.is_verified(fault.id, "heal") if fault.heal is not None else None,
    }


def repeatable(plan: Plan, history: Sequence[Event]) -> str | None:
    """Why another run need not end with the same model; None when it must."""
    if plan.aggregation.strategy == "dp":
        return "TFF's noise for differential privacy cannot be seeded"
    if any(e["kind"] == "round_closed" and e["closed_by"] == "deadline" for e in history):
        return "a round was closed by its deadline"
    lost = sorted({e["node"] for e in history if e["kind"] == "part_ended" and not e["expected"]})
    if lost:
        return f"lost: {', '.join(lost)}"
    if not any(e["kind"] == "run_finished" for e in history):
        return "the run did not finish"
    return None


def percentile(values: Sequence[float], share: float) -> float | None:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else None


def between(history: Sequence[Event], begin: str, end: str) -> float | None:
    """Seconds by the wall clock from the first event of one kind to the first of another."""
    first = next((e["wall"] for e in history if e["kind"] == begin), None)
    last = next((e["wall"] for e in history if e["kind"] == end), None)
    return None if first is None or last is None else float(last - first)


def overhead(rounds: Sequence[Event], accepted: Sequence[Event]) -> float | None:
    longest = [
        max((e["train_s"] for e in accepted if e["round"] == closed["round"]), default=0.0)
        for closed in rounds
    ]
    if not longest or statistics.median(longest) <= 0:
        return None
    return float(statistics.median(e["seconds"] for e in rounds) / statistics.median(longest))


def wire_ratio(
    plan: Plan, history: Sequence[Event], counters: Mapping[str, Mapping[str, float]]
) -> float | None:
    before, after = received_before_round_2(history), counters.get("end")
    opened = [e for e in history if e["kind"] == "round_opened" and e["round"] >= 2]
    workers = sum("trainer" in node.roles for node in plan.nodes)
    if not before or not after or not opened or before.keys() != after.keys():
        return None
    model_bytes: int = opened[0]["size_bytes"]
    moved = sum(after[name] - before[name] for name in before)
    return moved / (2 * workers * model_bytes * len(opened))


def received_before_round_2(history: Sequence[Event]) -> dict[str, float]:
    """What had come in at each node when its second round began, by its own account."""
    begun = ("round_opened", "trained")
    return {e["node"]: e["received_bytes"] for e in history if e["kind"] in begun and e["round"] == 2}


def worker_memory(plan: Plan, peaks: Mapping[str, float]) -> float | None:
    workers = [peaks[node.name] for node in plan.nodes if "trainer" in node.roles and node.name in peaks]
    return statistics.median(workers) if workers else None


def time_to_accuracy(plan: Plan, history: Sequence[Event], completed: Sequence[Event]) -> float | None:
    target = next(
        (c.value for c in plan.checks if c.kind == "final_accuracy" and c.operator in (">", ">=")), None
    )
    opened = next((e["wall"] for e in history if e["kind"] == "round_opened"), None)
    if target is None or opened is None:
        return None
    reached = next((e["wall"] for e in completed if e["accuracy"] >= target), None)
    return None if reached is None else float(reached - opened)


def round_row(closed: Event, accepted: Sequence[Event]) -> dict[str, Any]:
    keys = (
        "round",
        "completed",
        "closed_by",
        "seconds",
        "aggregate_s",
        "accuracy",
        "loss",
        "accepted",
        "refused",
        "missing",
    )
    senders = {
        e["sender"]: {key: e[key] for key in ("examples", "bytes", "seconds", "train_s")}
        for e in accepted
        if e["round"] == closed["round"]
    }
    return {**{key: closed[key] for key in keys}, "updates": senders}
