"""Emulated links against what was asked of them, in fleets of agents alone, asked through their own HTTP."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Final, Literal

from node.contract import HostError
from node.contract.links import InForce, LinkTable, PeerLinks, Shape
from node.contract.plan import LinkPlan, Plan
from node.contract.schema import from_json, to_json
from node.links.table import tables
from orchestrator.faults.agents import AgentFleet
from orchestrator.faults.fault import Scene
from orchestrator.faults.partition import Partition
from orchestrator.measuring.calibrate import AgentsAlone, agents_alone
from orchestrator.measuring.calibration import Figure as Measured
from orchestrator.measuring.calibrator import Calibrator, measure
from orchestrator.measuring.measurements import Network, stream_job
from orchestrator.measuring.probing import Prober
from orchestrator.planning import plan as plans
from orchestrator.planning import scenario
from tests.bench.figures import Figure
from tests.bench.hold import busy_processors

RATES_MBIT: Final = (1, 10, 100, 1000)
LATENCIES_MS: Final = (1, 5, 20, 50, 100, 200)
RATES_WITH_LATENCIES_MS: Final = (1, 20, 200)  # at these latencies the rates are measured
GOODPUT_BOUND: Final = 3.0  # % off, as for a calibration
RAMP_S: Final = 15.0  # a stream's own, on long links
LINK_COUNTS: Final = (16, 64, 256)
BOUND_64_MS: Final = 50.0
TRIES: Final = 5
SKEW_NODES: Final = 16
SKEW_BOUND_MS: Final = 100.0
WATCHED_NODES: Final = 10
REST_S: Final = 5.0
WATCH_S: Final = 40.0
WATCH_BOUND: Final = 1.0  # % of one core, of the whole fleet
ASK_S: Final = 60.0
SCENARIO: Final = """\
summary: links to be measured
fleet: {{workers: [{{count: {workers}}}]}}
network: {{delay_engine: {engine}, default: {{latency: {latency}, rate: {rate}}}}}
workload: {{dataset: digits, rounds: 1}}
faults: [{{partition: halves, at: 1 s}}]
checks: [rounds_completed == 1]
"""
Engine = Literal["hold", "netem"]


def planned(folder: Path, workers: int, engine: str, latency: str = "20 ms", rate: str = "20 Mbit") -> Plan:
    file = folder / "links.yaml"
    file.write_text(SCENARIO.format(workers=workers, engine=engine, latency=latency, rate=rate))
    return plans.make_plan(scenario.load(file))


def alone(plan: Plan) -> AbstractContextManager[AgentsAlone]:
    return agents_alone(plan, lambda _: None)


@cache
def engines(folder: Path) -> list[Engine]:
    """Those that this kernel has, by a fleet that asks for them."""
    found: list[Engine] = []
    names: tuple[Engine, ...] = ("hold", "netem")
    for engine in names:
        try:
            with alone(planned(folder, 1, engine)):
                found.append(engine)
        except HostError as none:
            print(f"without {engine}: {none.message}", flush=True)
    return found


# -- intended and measured


def intended(folder: Path, engine: Engine) -> Iterator[Figure]:
    """Round trips and rates of one pair of links, told anew for each."""
    plan = planned(folder, 1, engine)
    with alone(plan) as fleet:
        for latency_ms in LATENCIES_MS:
            worst = furthest(fleet, with_links(plan, latency_ms, None), "round_trip_ms")
            yield Figure(
                f"{engine}: round trip, {latency_ms} ms each way: off by",
                off(worst),
                "ms",
                max(abs(worst.high - worst.intended), abs(worst.low - worst.intended)),
                f"{told(worst.measured)} of {worst.intended:g} ms; {worst.how}",
            )
        for latency_ms in RATES_WITH_LATENCIES_MS:
            for rate_mbit in RATES_MBIT:
                worst = furthest(fleet, with_links(plan, latency_ms, rate_mbit), "goodput_bit_s")
                measured = None if worst.measured is None else worst.measured / 1e6
                yield Figure(
                    f"{engine}: {rate_mbit} Mbit, {latency_ms} ms each way: off by",
                    100 * off(worst) / worst.intended,
                    "%",
                    GOODPUT_BOUND,
                    f"{told(measured)} of {worst.intended / 1e6:.4g} Mbit/s; {worst.how}"
                    + (f"; {worst.said}" if worst.said else ""),
                )
        yield ramp(fleet, with_links(plan, 100, 100), engine)


def with_links(plan: Plan, latency_ms: float, rate_mbit: int | None) -> Plan:
    rate_bit_s = None if rate_mbit is None else rate_mbit * 1_000_000
    links = tuple(replace(link, latency_ms=latency_ms, rate_bit_s=rate_bit_s) for link in plan.links)
    return replace(plan, links=links)


def furthest(fleet: AgentsAlone, plan: Plan, what: str) -> Measured:
    """Tell the agents, measure as a calibration does, and take the direction that is furthest off."""
    tell(fleet, plan)
    found = Calibrator(fleet.post).measure(plan, everything=True)
    return max((figure for figure in found.figures if figure.what == what), key=off)


def tell(fleet: AgentsAlone, plan: Plan) -> None:
    agents = AgentFleet(plan, fleet.call)
    for name, table in tables(plan).items():
        if wrong := agents.put_links(name, table).mismatches:
            raise SystemExit(f"{name} is not as asked: {'; '.join(wrong)}")


def off(figure: Measured) -> float:
    return float("inf") if figure.measured is None else abs(figure.measured - figure.intended)


def told(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"


def ramp(fleet: AgentsAlone, plan: Plan, engine: Engine) -> Figure:
    """What one TCP stream gets of a long link in the end: its own limits count, so there is no bound."""
    tell(fleet, plan)
    network = Network(plan)
    link: LinkPlan = network.links["w01", "agg"]
    job = replace(stream_job(network, link, link.rate_bit_s or 0), warm_up_s=RAMP_S, window_s=3.0)
    measured = measure(network, Prober(fleet.post, plan), job)
    name = f"{engine}: 100 Mbit, 100 ms each way, one TCP stream"
    return Figure(name, measured / 1e6, "Mbit/s", None, f"payload over 3 s, after {RAMP_S:g} s; 95.6 is all")


# -- how long a table takes


def applying(folder: Path, engine: Engine) -> Iterator[Figure]:
    plan = planned(folder, 1, engine)
    own = tables(plan)["w01"]
    with alone(plan) as fleet:
        for count in LINK_COUNTS:
            built, changed, asked = [], [], []
            for _ in range(TRIES):
                put(fleet, filled(own, 1, 20.0))
                began = time.monotonic()
                built.append(put(fleet, filled(own, count, 20.0)).applied_ms)
                asked.append(1000 * (time.monotonic() - began))
                changed.append(put(fleet, filled(own, count, 40.0)).applied_ms)
            bound = BOUND_64_MS if count == 64 else None
            how = f"by the agent's own account, median of {TRIES}"
            name = f"{engine}: {count} links"
            yield Figure(f"{name} built", statistics.median(built), "ms", bound, how)
            yield Figure(f"{name} changed", statistics.median(changed), "ms", bound, f"each of them; {how}")
            yield Figure(
                f"{name} built, read back, answered",
                statistics.median(asked),
                "ms",
                None,
                f"the request, as the orchestrator sees it, median of {TRIES}",
            )


def filled(own: LinkTable, count: int, latency_ms: float) -> LinkTable:
    """A table of so many peers, who need not be there."""
    shape = Shape(latency_ms=latency_ms, jitter_ms=1.0, loss=0.001, rate_bit_s=round(1e6 * latency_ms))
    peers = tuple(
        PeerLinks(f"x{number}", f"10.77.{1 + number // 200}.{1 + number % 200}", shape, shape)
        for number in range(count)
    )
    return replace(own, peers=peers)


def put(fleet: AgentsAlone, table: LinkTable) -> InForce:
    answer = from_json(InForce, fleet.call(table.node, "PUT", "/links", to_json(table), ASK_S))
    if answer.mismatches:
        raise SystemExit(f"not as asked: {'; '.join(answer.mismatches[:4])}")
    return answer


# -- how far apart nodes are cut


def skew(folder: Path, engine: Engine) -> Iterator[Figure]:
    plan = planned(folder, SKEW_NODES - 1, engine)
    talking = [(link.to, link.from_) for link in plan.links]
    with alone(plan) as fleet:
        agents = AgentFleet(plan, fleet.call)
        agents.read_clocks()
        fault = Partition(plan.faults[0], talking)
        cases: tuple[tuple[str, Callable[[], AbstractContextManager[None]]], ...] = (
            ("idle", nullcontext),
            ("two busy processes", lambda: busy_processors(2)),
        )
        for name, load in cases:
            cuts: list[float] = []
            heals: list[float] = []
            with load():
                for _ in range(TRIES):
                    for act, found in ((fault.inject, cuts), (fault.heal, heals)):
                        done = act(agents, Scene({}, plan.links), 0)
                        if done.problems or len(done.effective_ns) != SKEW_NODES:
                            raise SystemExit(f"a cut failed: {dict(done.problems)}")
                        found.append(done.skew_ms)
            how = f"first to last of {SKEW_NODES} nodes, by their own clocks, worst of {TRIES}; {name}"
            yield Figure(f"{engine}: partition's skew, {name}", max(cuts), "ms", SKEW_BOUND_MS, how)
            yield Figure(f"{engine}: heal's skew, {name}", max(heals), "ms", SKEW_BOUND_MS, how)


# -- what it costs to look again and again


def watching(folder: Path, engine: Engine) -> Iterator[Figure]:
    """Fleets of agents that do nothing else, with links and without."""
    shaped = planned(folder, WATCHED_NODES - 1, engine)
    free = replace(
        shaped, links=tuple(replace(link, latency_ms=0.0, rate_bit_s=None) for link in shaped.links)
    )
    used = []
    for plan in (shaped, free):
        with alone(plan) as fleet:
            time.sleep(REST_S)  # what is measured is a fleet that was left alone
            began, before_s = time.monotonic(), processor_s(fleet)
            time.sleep(WATCH_S)
            used.append(100 * (processor_s(fleet) - before_s) / (time.monotonic() - began))
    name = f"{engine}: {WATCHED_NODES} agents at rest"
    how = f"all processes of the agents, of one core, over {WATCH_S:g} s"
    yield Figure(f"{name}, of one core", used[0], "%", None, how)
    yield Figure(
        f"{name}, beyond those without links",
        used[0] - used[1],
        "%",
        WATCH_BOUND,
        f"{how}; less {used[1]:.2f}",
    )


def processor_s(fleet: AgentsAlone) -> float:
    """Of all agents and what they started."""
    wanted = 'shoal_part_cpu_seconds_total{part="agent"} '
    found = 0.0
    for node in fleet.plan.nodes:
        page = fleet.get(node.name, "/metrics")[0].decode()
        found += sum(float(line.split()[1]) for line in page.splitlines() if line.startswith(wanted))
    return found
