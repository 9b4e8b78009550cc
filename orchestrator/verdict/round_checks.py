"""What checks of rounds, models and transfers observe. Pure."""

from __future__ import annotations

import math
import statistics

from orchestrator.verdict.evidence import Event, Evidence, Observed, UnobservedError


def final_accuracy(evidence: Evidence) -> Observed:
    finish = evidence.finish()
    if finish is None or finish["accuracy"] is None:
        raise UnobservedError("no final model was evaluated")
    accuracy = float(finish["accuracy"])
    return Observed(accuracy, accuracy, f"the final model's accuracy is {accuracy:.4f}")


def rounds_completed(evidence: Evidence) -> Observed:
    return counted(evidence, len(evidence.completed()), "rounds were completed")


def participants(evidence: Evidence) -> Observed:
    """The fewest updates in any model."""
    counts = [len(event["accepted"]) for event in evidence.completed().values()]
    if not counts:
        raise UnobservedError("no round was completed")
    fewest = min(counts)
    if evidence.is_whole():
        return Observed(fewest, fewest, f"every round had at least {fewest} participants")
    return Observed(0, fewest, f"a round had {fewest} participants, and the history is not whole")


def rounds_with_everyone(evidence: Evidence) -> Observed:
    """Rounds that made a new model from an accepted update of everybody who was asked."""
    workers = sum("trainer" in node.roles for node in evidence.plan.nodes)
    full = sum(len(event["accepted"]) == workers for event in evidence.completed().values())
    return counted(evidence, full, f"rounds had accepted updates of all {workers} workers")


def missing_updates(evidence: Evidence) -> Observed:
    missing = {e["round"]: len(e["missing"]) for e in evidence.of("round_closed")}
    return counted(evidence, sum(missing.values()), "updates were missing when their round was closed")


def late_updates(evidence: Evidence) -> Observed:
    late = evidence.of("update_refused", reason="late")
    return counted(evidence, len(late), "updates came too late")


def counted(evidence: Evidence, count: int, said: str) -> Observed:
    """A count that can only have grown in what was not heard."""
    if evidence.is_whole():
        return Observed(count, count, f"{count} {said}")
    return Observed(count, math.inf, f"{count} {said} as far as was seen; the history is not whole")


def round_time(evidence: Evidence) -> Observed:
    """The median of the rounds after the first."""
    return middle(evidence, [float(e["seconds"]) for e in list(evidence.completed().values())[1:]], "a round")


def fetch_time(evidence: Evidence) -> Observed:
    """What it takes a worker to fetch a model."""
    times = [float(e["fetch_s"]) for e in fetched(evidence)]
    return middle(evidence, times, "fetching a model")


def upload_time(evidence: Evidence) -> Observed:
    """What it takes the aggregator to fetch a worker's update."""
    times = [float(e["seconds"]) for e in evidence.of("update_accepted") if e["sender"] in evidence.nodes]
    return middle(evidence, times, "fetching an update")


def middle(evidence: Evidence, times: list[float], what: str) -> Observed:
    if not times:
        raise UnobservedError(f"{what} was never timed")
    if not evidence.is_whole():
        raise UnobservedError(f"{what} was timed {len(times)} times, and the history is not whole")
    median = statistics.median(times)
    return Observed(median, median, f"{what} took {median:.3g} s, the median of {len(times)}")


def fetch_rate(evidence: Evidence) -> Observed:
    """The fastest fetch of a model."""
    sizes = {e["round"]: int(e["size_bytes"]) for e in evidence.of("round_opened")}
    trained = [e for e in fetched(evidence) if e["round"] in sizes]
    return fastest(evidence, [(sizes[e["round"]], float(e["fetch_s"])) for e in trained], "a model")


def fetched(evidence: Evidence) -> list[Event]:
    """Trainings whose model came over the network: a trainer that gets ready has its first one already."""
    ready: set[str] = set()
    found = []
    for event in evidence.history:
        if event["kind"] == "trainer_ready":
            ready.add(event["node"])
        elif event["kind"] == "trained":
            if event["node"] in evidence.nodes and event["node"] not in ready:
                found.append(event)
            ready.discard(event["node"])
    return found


def upload_rate(evidence: Evidence) -> Observed:
    """The fastest fetch of an update by the aggregator."""
    accepted = [e for e in evidence.of("update_accepted") if e["sender"] in evidence.nodes]
    return fastest(evidence, [(int(e["bytes"]), float(e["seconds"])) for e in accepted], "an update")


def fastest(evidence: Evidence, fetches: list[tuple[int, float]], what: str) -> Observed:
    rates = [8 * size_bytes / seconds for size_bytes, seconds in fetches if seconds > 0]
    if not rates:
        raise UnobservedError(f"no fetch of {what} was timed")
    most = max(rates)
    said = f"the fastest of {len(rates)} fetches of {what} had {most / 1e6:.3g} Mbit/s"
    return Observed(most, most if evidence.is_whole() else math.inf, said)


def repeatable(evidence: Evidence) -> Observed:
    promise = evidence.results.get("repeatable")
    if not isinstance(promise, bool):
        raise UnobservedError("nothing is said about whether the run is repeatable")
    why = evidence.results.get("repeatable_reason") or ""
    return Observed(promise, promise, f"repeatable is {str(promise).lower()}" + (f": {why}" if why else ""))
