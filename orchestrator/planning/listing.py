"""The scenarios that there are: found by name or path, listed, begun anew."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from node.contract import UsageError
from orchestrator import TOP, nearest
from orchestrator.planning import scenario
from orchestrator.planning.scenario import Scenario

FOLDER: Final = TOP / "scenarios"
ENDING: Final = ".yaml"


@dataclass(frozen=True)
class Listed:
    """A scenario and its summary, or what is wrong with it."""

    name: str
    summary: str
    complaint: str = ""


def find(named: str, folder: Path = FOLDER) -> Path:
    """The file of a scenario: a name is sought among the project's own, a path is taken as it is."""
    if "/" in named or named.endswith((ENDING, ".yml")):
        path = Path(named)
        if not path.is_file():
            raise UsageError(f"there is no file {named}", "`shoal list` shows the scenarios by name")
        return path
    path = folder / f"{named}{ENDING}"
    if not path.is_file():
        raise UsageError(
            f"there is no scenario {named!r}", nearest.hint(named, [path.stem for path in files(folder)])
        )
    return path


def load(named: str, folder: Path = FOLDER) -> Scenario:
    """Read a scenario by its name or path; complaints call the file as a person would."""
    path = find(named, folder)
    return scenario.load(path, shown(path))


def files(folder: Path = FOLDER) -> list[Path]:
    """The files of all scenarios, in order of name."""
    return sorted(folder.glob(f"*{ENDING}"))


def listed(folder: Path = FOLDER) -> list[Listed]:
    """All scenarios; one that is broken hides none of the others."""
    found = []
    for path in files(folder):
        try:
            found.append(Listed(path.stem, scenario.load(path, shown(path)).summary))
        except UsageError as error:
            found.append(Listed(path.stem, "", error.message))
    return found


def shown(path: Path) -> str:
    """A path relative to where the person stands, if it is below."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def begin(named: str, folder: Path = FOLDER) -> Path:
    """Write a commented scenario to begin with; an existing file is never touched."""
    is_path = "/" in named or named.endswith((ENDING, ".yml"))
    path = Path(named) if is_path else folder / f"{named}{ENDING}"
    scenario.check_name("a scenario", path.stem)
    try:
        with path.open("x") as file:
            file.write(TEMPLATE)
    except FileExistsError as error:
        raise UsageError(f"{shown(path)} exists already", "take another name, or edit that one") from error
    except OSError as error:
        raise UsageError(f"{shown(path)} cannot be written: {error.strerror}") from error
    return path


TEMPLATE: Final = """\
# What this scenario is to show, in one sentence; `shoal list` prints it.
summary: Eight workers of two kinds learn handwritten digits together.

# Everything drawn by lot derives from this number, so the same seed gives the same run.
seed: 7

fleet:
  # The aggregator is called agg, the workers are called w01, w02, … in the order of these groups.
  aggregator: {zone: core}
  workers:
    - {count: 6, class: laptop, zone: home}
    - {count: 2, class: phone, zone: away}

# What a node of a class can do, and its line. Without a class it is not limited.
classes:
  laptop: {cpu: 1.0, memory: "1 GiB"}
  phone: {cpu: 0.25, memory: "700 MiB", up: "10 Mbit", down: "40 Mbit"}    # or: profile: 4g

network:
  topology: full        # full | star | ring | regular(4) | [[agg, w01], [w01, w02], …]
  transport: prompt     # prompt | stock | patient: how soon a dead link is noticed, and its return
  default: {latency: "5 ms"}    # of every link, one way
  zones:                # between two zones; scenarios/README.md has all that can be said of links
    - {between: [home, away], latency: "30 ms", jitter: "3 ms", loss: "0.1 %"}

ipfs: auto              # auto | kubo | embedded; a class may say otherwise

workload:
  dataset: digits       # digits | mnist-5k | mnist | cifar10 | synthetic-cifar
  model: cnn
  # file: my_task.py    # instead of both: your own model() and data(seed), beside this file
  partition: {kind: dirichlet, alpha: 0.5}    # iid | dirichlet with alpha | label with labels_per_node
  rounds: 8
  local_epochs: 1
  batch_size: 16
  learning_rate: 0.1

aggregation:
  strategy: mean        # mean | robust | dp
  quorum: 60 %          # so many of the workers must have answered when the deadline comes
  deadline: 60 s

# What breaks, and when: "round 3", "20 s" or "after NAME + 5 s". Whom: one, minority, third, majority, all
# (drawn by the seed), a class, a zone, a name. Take the # away from what you want, and from `faults:`.
# faults:
#   - {partition: {isolate: third}, at: "round 3", heal: "round 5"}
#   - {partition: {one_way: {from: away, to: agg}}, at: "round 3", for: "10 s"}
#   - {name: storm, degrade: {between: [home, away], latency: "200 ms"}, at: "round 2", heal: "round 5"}
#   - {flapping: {isolate: one, period: "4 s", down: "2 s"}, at: "after storm + 1 s", heal: "round 8"}

# Each is held, violated or unknown; the run's exit status says which.
checks:
  - final_accuracy >= 0.8
  - rounds_completed == 8
  - emulation_accurate            # links were measured, and faults were seen to begin and to end
  # - missing_while_cut           # nothing came from those whom a fault had cut off
  # - recovered_within: 1 round   # they were back in the first round after it
"""
