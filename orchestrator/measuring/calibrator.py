"""Measures the links of a running fleet against its plan: the effects of a calibration."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from node.contract import ShoalError
from node.contract.plan import Plan
from node.contract.probes import TCP_SEGMENT_SHARE, UDP_HEADERS_BYTES, Received
from orchestrator.measuring import calibration, tolerance
from orchestrator.measuring.calibration import Calibration, Figure
from orchestrator.measuring.measurements import BUDGET_S, SIDE_BY_SIDE, Job, Network, jobs, waves, within
from orchestrator.measuring.probing import Post, ProbeFailedError, Prober

ATTEMPTS: Final = 2  # a figure outside is measured once more before it counts


class Calibrator:
    """`post` sends JSON to a path of a node's agent and returns what it answers."""

    def __init__(self, post: Post, tell: Callable[[Figure], None] = lambda _: None) -> None:
        self._post, self._tell = post, tell

    def measure(self, plan: Plan, everything: bool) -> Calibration:
        """One link of each kind in about 15 s, or all links in whatever that takes."""
        began = time.monotonic()
        network = Network(plan)
        wanted = jobs(plan, everything)
        planned = waves(wanted)
        left: list[Job] = []
        if not everything:
            planned, left = within(planned, BUDGET_S)
        measuring = [job for wave in planned for job in wave]
        alpha = tolerance.doubt(len(measuring))
        prober = Prober(self._post, plan)
        figures: dict[Job, Figure] = {}
        for attempt in range(1, ATTEMPTS + 1):
            again = [job for job in measuring if job not in figures or not figures[job].ok]
            for wave in waves(again):
                figures.update(self._measure_wave(network, prober, wave, alpha, attempt))
        for job in measuring:
            self._tell(figures[job])
        ordered = {job: figures[job] for job in measuring}
        return calibration.table(network, ordered, left, everything, time.monotonic() - began)

    def _measure_wave(
        self, network: Network, prober: Prober, wave: Sequence[Job], alpha: float, attempt: int
    ) -> dict[Job, Figure]:
        def figure(job: Job) -> Figure:
            try:
                measured, said = measure(network, prober, job), ""
            except ShoalError as error:
                measured, said = None, error.message
            return calibration.judged(network, job, measured, alpha, attempt, said)

        with ThreadPoolExecutor(SIDE_BY_SIDE, thread_name_prefix="calibrate") as pool:
            return dict(zip(wave, pool.map(figure, wave), strict=True))


def measure(network: Network, prober: Prober, job: Job) -> float:
    """One figure, as its probe gave it."""
    if job.what == "round_trip_ms":
        back = prober.echo(job.source, job.target, job.packets, 1000 / job.per_s)
        middle = calibration.median(back.rtt_ms)
        if middle is None:
            raise ProbeFailedError(f"{len(back.rtt_ms)} of {back.sent} echoes came back")
        return middle
    if job.carrier == "tcp":
        told = prober.stream(job.source, job.target, job.warm_up_s, job.window_s)
        return rate_bit_s(told)
    told = prober.packets(
        job.source,
        job.target,
        job.packets,
        job.per_s,
        payload_bytes=job.payload_bytes,
        warm_up_s=job.warm_up_s,
        window_s=job.window_s,
    )
    if told.overflowed and job.what == "loss" and not network.links[job.source, job.target].corrupt:
        raise ProbeFailedError(f"{told.overflowed} packets came, but {job.target} was too busy to take them")
    if job.what == "goodput_bit_s":
        on_wire = (job.payload_bytes + UDP_HEADERS_BYTES) / job.payload_bytes
        return rate_bit_s(told) * on_wire * TCP_SEGMENT_SHARE  # what full segments of a stream would carry
    if job.what == "duplicates":
        return told.duplicates / max(1, told.packets)
    return 1.0 - told.packets / job.packets


def rate_bit_s(told: Received) -> float:
    if not told.rate_s:
        raise ProbeFailedError(f"no more than {told.packets} packets came, {told.bytes} bytes")
    return 8 * told.rate_bytes / told.rate_s
