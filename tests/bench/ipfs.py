"""Measure the IPFS daemons against their bounds: `make bench-ipfs`.

Everything is measured in this one run, the embedded daemon beside Kubo where one is at hand, so that the
figures can be compared though machines differ. The exit status is 1 when a bound is not met.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path

from node.contract import ExitCode, HostError
from node.ipfs.client import Client
from node.ipfs.engine import Engine, find
from tests.bench.figures import Figure, show
from tests.fleet.echo import Echo
from tests.fleet.lab import Member, Result, swarm
from tests.fleet.recovery import MIB, cut_in_mid_fetch, restart_after_kill

RESULT = Path("runs/bench/ipfs.json")
STARTS = 9
IDLE_S = 5.0
# (bytes, how often): together a little more than 400 MB.
TRANSFERS = ((10_000, 20), (200_000, 20), (MIB, 20), (5 * MIB, 10), (20 * MIB, 6), (100 * MIB, 2))
FAN_OUT_NODES = 8
FAN_OUTS = 5
CUTS_S = (5, 30, 90)


def resident_mb(member: Member) -> float:
    process = member.daemon.process
    assert process is not None
    status = Path(f"/proc/{process.id.pid}/status").read_text()
    kib = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(kib) * 1024 / 1e6


def size_name(size_bytes: int) -> str:
    return f"{size_bytes // MIB} MiB" if size_bytes % MIB == 0 else f"{size_bytes // 1000} kB"


def binary(engine: Engine) -> Iterator[Figure]:
    yield Figure("binary", engine.path.stat().st_size / 1e6, "MB", 25, "size of the file")


def starting(engine: Engine) -> Iterator[Figure]:
    with swarm(engine, 1) as (member,):
        times = []
        for _ in range(STARTS):
            member.kill()
            began = time.monotonic()
            member.start()
            times.append(time.monotonic() - began)
    yield Figure(
        "start", statistics.median(times) * 1000, "ms", 50, f"exec until the RPC answers, median of {STARTS}"
    )


def moving(engine: Engine) -> Iterator[Figure]:
    """Memory, transfers and tunnels of one pair of daemons."""
    with swarm(engine, 2) as (one, two):
        time.sleep(IDLE_S)  # what is measured is a daemon that has been left alone
        yield Figure(
            "idle resident", max(map(resident_mb, (one, two))), "MB", 30, "VmRSS, one peer, the larger of two"
        )
        moved_bytes = 0
        for size_bytes, count in TRANSFERS:
            adds, fetches = [], []
            for _ in range(count):
                data = os.urandom(size_bytes)
                add_s, cid = one.call(timed(lambda client, data=data: client.add(data)))  # type: ignore[misc]
                fetch_s, got = two.call(
                    timed(lambda client, cid=cid, size=size_bytes: client.fetch(cid, max_bytes=size))  # type: ignore[misc]
                )
                assert got == data
                adds.append(add_s * 1000)
                fetches.append(fetch_s * 1000)
                moved_bytes += size_bytes
            how = f"by our client, which verifies; median of {count}"
            yield Figure(f"add {size_name(size_bytes)}", statistics.median(adds), "ms", None, how)
            yield Figure(f"fetch {size_name(size_bytes)}", statistics.median(fetches), "ms", None, how)
        yield Figure(
            "resident after moving",
            max(map(resident_mb, (one, two))),
            "MB",
            64,
            f"VmRSS right after {moved_bytes / 1e6:.0f} MB, the larger of sender and receiver",
        )
        with Echo(one, two) as echo:
            yield Figure(
                "tunnel round trip",
                echo.round_trip_ms(os.urandom(200), 1000),
                "ms",
                None,
                "200 B, median of 1000",
            )
            yield Figure(
                "tunnel throughput",
                echo.bytes_per_s(os.urandom(64 * MIB)) / 1e6,
                "MB/s",
                None,
                "64 MiB echoed, each way",
            )


def timed(job: Callable[[Client], Awaitable[Result]]) -> Callable[[Client], Awaitable[tuple[float, Result]]]:
    async def run(client: Client) -> tuple[float, Result]:
        began = time.monotonic()
        result = await job(client)
        return time.monotonic() - began, result

    return run


def fanning_out(engine: Engine, size_bytes: int, bound: float | None) -> Iterator[Figure]:
    """Eight nodes fetch one object at once; what was sent, in sizes of the object."""
    runs = [fan_out(engine, size_bytes) for _ in range(FAN_OUTS)]
    seconds, by_provider, by_all, duplicates = (
        statistics.median(column) for column in zip(*runs, strict=True)
    )
    name = f"{FAN_OUT_NODES} fetch {size_name(size_bytes)}"
    how = f"bitswap/stat, median of {FAN_OUTS} swarms"
    yield Figure(f"{name}: time", seconds, "s", None, f"until the last has it, median of {FAN_OUTS}")
    yield Figure(f"{name}: sent by the provider", by_provider, "sizes", None, how)
    worst = max(run[2] for run in runs)
    yield Figure(f"{name}: sent by all", by_all, "sizes", bound, f"{how}, worst {worst:.1f}")
    yield Figure(f"{name}: duplicates", duplicates, "sizes", None, how)


def fan_out(engine: Engine, size_bytes: int) -> tuple[float, float, float, float]:
    with swarm(engine, FAN_OUT_NODES + 1) as members:
        provider, *fetchers = members
        data = os.urandom(size_bytes)
        cid = provider.call(lambda client: client.add(data))
        together = threading.Barrier(FAN_OUT_NODES + 1)

        async def fetch(client: Client) -> bytes:
            await client.peer_id()  # the connection to the daemon is no part of it
            together.wait()
            return await client.fetch(cid, max_bytes=size_bytes)

        fetches = [member.begin(fetch) for member in fetchers]
        together.wait()
        began = time.monotonic()
        assert all(fetch.result() == data for fetch in fetches)
        seconds = time.monotonic() - began
        stats = [member.call(lambda client: client.bitswap()) for member in members]
        sent = [stat["DataSent"] / size_bytes for stat in stats]
        return seconds, sent[0], sum(sent), sum(stat["DupDataReceived"] for stat in stats) / size_bytes


def recovering(engine: Engine) -> Iterator[Figure]:
    for cut_s in CUTS_S:
        yield Figure(
            f"moves again after a cut of {cut_s} s",
            cut_in_mid_fetch(engine, "prompt", cut_s),
            "s",
            3,
            "20 MiB over 20 Mbit, cut at both receivers after 3 s; from the heal until 100 kB more have come",
        )
    yield Figure(
        "connected again after kill -9",
        restart_after_kill(engine),
        "s",
        1,
        "from the restarted peer's readiness until the other lists it",
    )


def measure(engine: Engine, with_recovery: bool) -> Iterator[Figure]:
    yield from binary(engine)
    yield from starting(engine)
    yield from moving(engine)
    yield from fanning_out(engine, 490_000, None)
    yield from fanning_out(engine, 5 * MIB, 9.5)
    if with_recovery:
        yield from recovering(engine)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--without-recovery", action="store_true", help="leave out the cuts, which take some minutes"
    )
    options = parser.parse_args()
    figures: list[Figure] = []
    for engine in engines():
        print(f"{engine.name} {engine.version}")
        for measured in measure(engine, not options.without_recovery):
            # The bounds are the embedded daemon's; beside them Kubo's figures stand for comparison.
            bound = measured.bound if engine.name == "embedded" else None
            figure = replace(measured, name=f"{engine.name}: {measured.name}", bound=bound)
            figures.append(figure)
            print(show(figure), flush=True)
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps([figure.as_json() for figure in figures], indent=2) + "\n")
    print(f"written to {RESULT}")
    broken = [figure.name for figure in figures if not figure.holds]
    print(f"violated: {', '.join(broken)}" if broken else "held: every bound")
    return ExitCode.VIOLATED if broken else ExitCode.HELD


def engines() -> list[Engine]:
    try:
        return [find("embedded"), find("kubo")]
    except HostError as none:
        print(f"without Kubo: {none.message}")
        return [find("embedded")]


if __name__ == "__main__":
    sys.exit(main())
