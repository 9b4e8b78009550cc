"""Measure the emulated network and what it costs: `make bench-network`, or parts of it: ARGS="--only skew".

Parts that need nothing but links are measured in fleets of agents alone, the others by whole runs; everything is
measured in this one call. The exit status is 1 when a bound is not met.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from node.contract import ExitCode
from tests.bench import emulated, hold, links
from tests.bench.figures import Figure, show

RESULT: Final = Path("runs/bench/network.json")
HOLD_S: Final = 600.0


def holder(_: Path) -> Iterator[Figure]:
    """What the holder takes of a processor, by its own benchmark in a box of its own."""
    bench = [sys.executable, "-m", "tests.bench.hold", "--quick", "--only", "streams"]
    command = [sys.executable, "-m", "orchestrator.boxes.box", "run", "--", *bench]
    subprocess.run(command, stdout=subprocess.DEVNULL, timeout=HOLD_S, check=True)
    for figure in json.loads(hold.RESULT.read_text()):
        yield Figure(**{**figure, "name": f"hold: {figure['name']}"})


def for_engines(part: Callable[[Path, links.Engine], Iterator[Figure]]) -> Callable[[Path], Iterator[Figure]]:
    """The part with every delay engine that this kernel has."""

    def measure(folder: Path) -> Iterator[Figure]:
        for engine in links.engines(folder):
            yield from part(folder, engine)

    return measure


PARTS: Final[dict[str, tuple[str, Callable[[Path], Iterator[Figure]]]]] = {
    "intended": ("round trips and rates against what was asked, about 2 min", for_engines(links.intended)),
    "apply": ("how long tables of 16, 64, 256 links take", for_engines(links.applying)),
    "skew": ("how far apart sixteen nodes are cut", for_engines(links.skew)),
    "watch": ("what agents at rest cost, about 2 min", for_engines(links.watching)),
    "hold": ("what the holder costs for each Mbit", holder),
    "heal": ("first update after cuts of 5, 30, 120 s, about 4 min", emulated.healing),
    "training": ("a round over slow links against the best that they allow, about 4 min", emulated.training),
}


def main() -> int:
    listed = "\n".join(f"  {name:<9} {what}" for name, (what, _) in PARTS.items())
    parser = argparse.ArgumentParser(
        description=f"{__doc__}\nparts:\n{listed}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", metavar="PART", nargs="+", choices=PARTS, default=list(PARTS))
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="shoal-bench-") as folder:
        for name in parser.parse_args().only:
            for figure in PARTS[name][1](Path(folder)):
                figures.append(figure)
                print(f"{show(figure)}\n{'':6}{figure.how}", flush=True)
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps([figure.as_json() for figure in figures], indent=2) + "\n")
    print(f"written to {RESULT}")
    outside = [show(figure).strip() for figure in figures if not figure.holds]
    print("\n".join(["outside:", *outside]) if outside else "held: every bound")
    return ExitCode.VIOLATED if outside else ExitCode.HELD


if __name__ == "__main__":
    sys.exit(main())
