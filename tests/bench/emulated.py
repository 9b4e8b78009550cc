"""Whole runs on an emulated network: how soon a worker is back after a heal, and what slow links cost a round."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tests.bench.figures import Figure
from tests.bench.rounds import shoal

CUTS_S: Final = (5, 30, 120)
DEADLINE_S: Final = 5
ROUNDS_AFTER: Final = 8  # the heal; with everybody there a round takes a fraction of a second
HEALED_BOUND_S: Final = 10.0
RATE_MBIT: Final = 20
LATENCY_MS: Final = 50
TRIPS: Final = 3  # round trips in a round, see best_s
SEGMENT_BYTES, FRAME_BYTES = 1448, 1514
ON_WIRE: Final = FRAME_BYTES / SEGMENT_BYTES
FIRST_WINDOW: Final = 10  # segments that TCP sends at first, and again after a pause such as a training
CIFAR: Final = Path(__file__).resolve().parent / "cifar.yaml"
CUT: Final = """\
summary: One worker of three is cut off for a while.
seed: 7
fleet: {{workers: [{{count: 3}}]}}
network: {{default: {{latency: 20 ms, rate: 100 Mbit}}}}
workload: {{dataset: digits, model: cnn, rounds: {rounds}}}
aggregation: {{strategy: mean, quorum: 0.5, deadline: {deadline} s}}
faults: [{{partition: {{isolate: w01}}, at: round 3, for: {cut} s}}]
checks: [rounds_completed == {rounds}, faults_verified]
"""
LINKS: Final = f"network: {{default: {{rate: {RATE_MBIT} Mbit, latency: {LATENCY_MS} ms}}}}\n"
LINES: Final = f"""\
network: {{default: {{latency: {LATENCY_MS} ms}}}}
classes: {{line: {{up: {RATE_MBIT} Mbit, down: {RATE_MBIT} Mbit}}}}
"""


def run(scenario: str, name: str, folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Results and history; a run that is not held is told, and its figures are still figures."""
    file = folder / f"{name}.yaml"
    file.write_text(scenario)
    found: dict[str, Any] = json.loads(shoal("run", str(file), "--json", cwd=folder))
    if found["failure"]:
        raise SystemExit(f"{name}: {found['failure']}")
    if found["verdict"] != "held":
        wrong = [check for check in found["checks"] if check["state"] != "held"]
        print(f"{name}: {found['verdict']}: {wrong} {found['network_doubts']}", flush=True)
    history = (folder / "runs" / name / "latest" / "history.jsonl").read_text().splitlines()
    return found, [json.loads(line) for line in history]


# -- back after a heal


def healing(folder: Path) -> Iterator[Figure]:
    for cut_s in CUTS_S:
        rounds = 2 + math.ceil(cut_s / DEADLINE_S) + ROUNDS_AFTER
        text = CUT.format(rounds=rounds, deadline=DEADLINE_S, cut=cut_s)
        found, history = run(text, f"cut{cut_s}", folder)
        yield Figure(
            f"first update after a cut of {cut_s} s",
            back_s(history, "w01"),
            "s",
            HEALED_BOUND_S,
            f"from the heal until the aggregator accepted it; rounds with somebody missing last {DEADLINE_S} s;"
            f" run {found['verdict']}",
        )


def back_s(history: list[dict[str, Any]], worker: str) -> float:
    """From the last node's heal to the worker's next accepted update; without end when none came."""
    (healed,) = [event for event in history if event["kind"] == "fault_healed"]
    healed_ns = max(healed["effective_ns"].values())
    later: list[int] = [
        event["mono_ns"] - healed_ns
        for event in history
        if event["kind"] == "update_accepted" and event["sender"] == worker and event["mono_ns"] > healed_ns
    ]
    return float(min(later)) / 1e9 if later else math.inf


# -- what slow links cost


def training(folder: Path) -> Iterator[Figure]:
    """The work of `make bench` over slow links, against the best that they allow."""
    cifar = CIFAR.read_text()
    plain, history = run(cifar, "plain", folder)
    model_bytes = next(event["size_bytes"] for event in history if event["kind"] == "round_opened")
    workers = next(event["trainers"] for event in history if event["kind"] == "all_ready")
    base_s = plain["round_seconds"]["median"]
    what = f"{len(workers) if isinstance(workers, list) else workers} workers, model of {model_bytes} bytes"
    yield Figure("round, links not limited", base_s, "s", None, f"median of the later rounds; {what}")
    lines = LINES + cifar.replace("{count: 10}", "{count: 10, class: line}").replace(
        "fleet:\n", "fleet:\n  aggregator: {class: line}\n"
    )
    for name, text, copies in (("links", LINKS + cifar, 2), ("lines", lines, 11)):
        found, history = run(text, name, folder)
        best = best_s(base_s, model_bytes, copies)
        limits = f"{name} of {RATE_MBIT} Mbit, {LATENCY_MS} ms each way"
        measured = found["round_seconds"]["median"]
        how = (
            f"best: {base_s:.2f} s, the round without limits, + {copies} x the model's {model_bytes} bytes"
            f" x {ON_WIRE:.3f} on the wire / rate + {TRIPS} round trips; the model may come before the round opens;"
            f" run {found['verdict']}"
        )
        yield Figure(f"round, {limits}", measured, "s", None, "median of the later rounds")
        yield Figure(f"round, {limits}: best", best, "s", None, how)
        yield Figure(f"round, {limits} / best", measured / best, "", None, how)
        if name == "links":
            slow = best + copies * slow_start_s(model_bytes)
            how = f"the same, + {copies} x what a cold TCP loses until its window fills the link"
            yield Figure(f"round, {limits} / best of a cold TCP", measured / slow, "", None, how)
        yield Figure(
            f"round, {limits}: fetch", median_s(history, "fetch_s"), "s", None, "of the model, median"
        )


def best_s(base_s: float, model_bytes: int, copies: int) -> float:
    """What the links allow at best, nothing overlapping, from the moment when there is a model for the round.

    It is fetched while the aggregator evaluates it, before the round opens: a round may be shorter than this by
    as much as that takes, and the ratio below 1.

    With a rate for each link: the model to each worker, side by side, and each update back: 2 copies. With one
    line at each node: the model leaves the aggregator once, workers pass it on, and one update of each of the
    ten comes in through one line: 11. Round trips: half of one for the news of the round, one for asking for
    the model, half of one for the manifest, one for asking for the update.
    """
    return base_s + copies * model_bytes * ON_WIRE * 8 / (RATE_MBIT * 1e6) + TRIPS * 2 * LATENCY_MS / 1000


def slow_start_s(size_bytes: int) -> float:
    """What TCP loses in one transfer that begins with the first window, which doubles with each round trip."""
    trip_s = 2 * LATENCY_MS / 1000
    frame_s = FRAME_BYTES * 8 / (RATE_MBIT * 1e6)
    window, left, lost_s = FIRST_WINDOW, math.ceil(size_bytes / SEGMENT_BYTES), 0.0
    while window * frame_s < trip_s and window < left:
        lost_s += trip_s - window * frame_s  # the link is idle until the acknowledgement
        left -= window
        window *= 2
    return lost_s


def median_s(history: list[dict[str, Any]], key: str) -> float:
    values = sorted(
        float(event[key]) for event in history if event["kind"] == "trained" and event["round"] > 1
    )
    return values[len(values) // 2]
