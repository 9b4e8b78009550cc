"""Measure what a federated round costs beside its training: `make bench`.

The fleet, TFF's own simulation of the same rounds in one process, and the compute floor (the same client
work called directly, nothing else running, spread over the same cores) are measured in this one run, so
that their ratios can be compared though machines differ. The exit status is 1 when a bound is not met.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from node.contract import ExitCode
from node.contract.plan import Plan
from node.contract.schema import from_json, to_json
from orchestrator.driver import ENV_DRIVER
from tests.bench.figures import Figure, show

TOP = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
RESULT = Path("runs/bench/latest.json")
RUN_S = 900.0
LATER_ROUNDS = 5
STARTS = 3


def shoal(*words: str, cwd: Path) -> str:
    """The command line, with runs that go to `cwd`."""
    argv = [sys.executable, "-m", "orchestrator.cli", *words]
    environment = {**os.environ, "PYTHONPATH": str(TOP), ENV_DRIVER: "netns"}
    done = subprocess.run(argv, cwd=cwd, env=environment, stdout=subprocess.PIPE, timeout=RUN_S, check=False)
    return done.stdout.decode()


def run(scenario: Path, cwd: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(shoal("run", str(scenario), "--json", cwd=cwd))
    if found["verdict"] != "held":
        raise SystemExit(f"{scenario}: {found['verdict']}: {found['failure'] or found['checks']}")
    return found


def import_seconds() -> float:
    """One import of TFF in a fresh process."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", "import tensorflow_federated"], check=True, capture_output=True)
    return time.monotonic() - began


def starts(cwd: Path) -> tuple[list[float], list[float]]:
    """Of fleets of eight, and of imports in between: what others do on a shared machine comes and goes."""
    import_seconds()  # to have the files cached
    imports, readies = [], []
    for _ in range(STARTS):
        imports.append(import_seconds())
        readies.append(run(HERE / "start.yaml", cwd)["startup_seconds"])
    return readies, imports


# -- the compute floor


def prepare(plan: Plan, into: Path) -> list[Path]:
    """The shards that the fleet trains on."""
    names = [node.name for node in plan.nodes if "trainer" in node.roles]
    recipe = {"seed": plan.seed, "workload": to_json(plan.workload), "nodes": names, "task_file": None}
    (into / "recipe.json").write_text(json.dumps(recipe))
    argv = [sys.executable, "-m", "node.data.prepare", str(into / "recipe.json"), str(into)]
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    return [into / f"{name}.safetensors" for name in names]


def floor_seconds(plan: Plan, shards: list[Path]) -> list[float]:
    """Later rounds of bare client work, the clients dealt out over the cores."""
    cores = len(os.sched_getaffinity(0))
    fork = multiprocessing.get_context("spawn")
    gate, times = fork.Barrier(cores), fork.Queue()
    workers = [
        fork.Process(target=train_bare, args=(plan, shards[core::cores], gate, times))
        for core in range(cores)
    ]
    for worker in workers:
        worker.start()
    rounds: list[float] = [times.get(timeout=RUN_S) for _ in range(LATER_ROUNDS)]
    for worker in workers:
        worker.join()
    return rounds


def train_bare(plan: Plan, shards: list[Path], gate: Any, times: Any) -> None:
    """One core's clients, one after another; a round has ended when every core's have."""
    from node.data.shard import from_bytes
    from node.learning.tff import Learner

    data = [from_bytes(shard.read_bytes()) for shard in shards]
    learner = Learner(plan.workload, data[0].features.shape[1:], 10, None)
    weights = learner.initial_weights(plan.seed)
    workload = plan.workload
    learner.trace()
    for _ in range(LATER_ROUNDS):
        gate.wait()
        began = time.monotonic()
        for number, one in enumerate(data):
            learner.train(
                weights,
                one,
                local_epochs=workload.local_epochs,
                batch_size=workload.batch_size,
                learning_rate=workload.learning_rate,
                seed=number,
            )
        if gate.wait() == 0:
            times.put(time.monotonic() - began)


# -- TFF's own simulation


def simulate(plan: Plan, shards: list[Path], times: Any) -> None:
    """The same rounds by TFF in one process; the seconds of each later round."""
    os.setsid()  # so that TFF's helper process, which outlives its parent, can be ended with it
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    import tensorflow as tf
    import tensorflow_federated as tff

    from node.data.shard import from_bytes
    from node.learning.models import cnn

    data = [from_bytes(shard.read_bytes()) for shard in shards]
    shape = data[0].features.shape[1:]
    workload = plan.workload
    clients = [
        tf.data.Dataset.from_tensor_slices((one.features, one.labels)).batch(workload.batch_size)
        for one in data
    ]

    def model() -> Any:
        return tff.learning.models.from_keras_model(
            cnn(tf.keras, shape, 10),
            input_spec=clients[0].element_spec,
            loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )

    process = tff.learning.algorithms.build_weighted_fed_avg(
        model,
        client_optimizer_fn=tff.learning.optimizers.build_sgdm(workload.learning_rate),
        server_optimizer_fn=tff.learning.optimizers.build_sgdm(1.0),
    )
    state = process.initialize()
    for _ in range(1 + LATER_ROUNDS):
        began = time.monotonic()
        state = process.next(state, clients).state
        times.put(time.monotonic() - began)


def simulation_seconds(plan: Plan, shards: list[Path]) -> float:
    spawn = multiprocessing.get_context("spawn")
    times = spawn.SimpleQueue()
    process = spawn.Process(target=simulate, args=(plan, shards, times))
    process.start()
    rounds: list[float] = [times.get() for _ in range(1 + LATER_ROUNDS)]
    assert process.pid is not None
    os.killpg(process.pid, signal.SIGKILL)
    process.join()
    return statistics.median(rounds[1:])


# -- all together


def measure() -> Iterator[Figure]:
    with tempfile.TemporaryDirectory(prefix="shoal-bench-") as folder:
        cwd = Path(folder)
        os.environ["TMPDIR"] = folder  # whoever is killed leaves TensorFlow's temporary files behind
        plan = from_json(Plan, json.loads(shoal("plan", str(HERE / "cifar.yaml"), cwd=cwd)))
        shards = prepare(plan, cwd)
        simulation_s = simulation_seconds(plan, shards)
        # Before and after the fleet: what others do on a shared machine comes and goes within a minute.
        floors = floor_seconds(plan, shards)
        found = run(HERE / "cifar.yaml", cwd)
        floors += floor_seconds(plan, shards)
        idle = run(HERE / "idle.yaml", cwd)
        readies, imports = starts(cwd)
    round_s, floor_s = found["round_seconds"]["median"], statistics.median(floors)
    yield Figure(
        "compute floor",
        floor_s,
        "s",
        None,
        f"bare client work on all cores, median of {len(floors)} rounds, half of them before the fleet's",
    )
    yield Figure(
        "TFF's simulation", simulation_s, "s", None, f"one process, median of {LATER_ROUNDS} later rounds"
    )
    yield Figure("round", round_s, "s", None, "median of the later rounds of the fleet")
    yield Figure("round - compute floor", round_s - floor_s, "s", None, "what all but training takes")
    yield Figure("round / compute floor", round_s / floor_s, "", 1.25, "the two above")
    yield Figure("round / TFF's simulation", round_s / simulation_s, "", 0.8, "the two above")
    yield Figure(
        "round without training", idle["round_seconds"]["median"], "s", 0.5, "ten workers, no local steps"
    )
    import_s, start_s = statistics.median(imports), statistics.median(readies)
    yield Figure("one import of TFF", import_s, "s", None, f"fresh process, files cached, median of {STARTS}")
    yield Figure("start", start_s, "s", None, f"until all of eight workers ask for work, median of {STARTS}")
    yield Figure("start / import of TFF", start_s / import_s, "", 3, "the two above, measured in turn")
    yield Figure(
        "memory of a worker", found["worker_memory_bytes"] / 1e6, "MB", 350, "peak PSS, median of workers"
    )
    yield Figure("memory of the fleet", found["fleet_memory_bytes"] / 1e9, "GB", 4, "sum of the peaks of PSS")
    yield Figure(
        "bytes on the wire / model", found["wire_bytes_ratio"], "", 1.15, "wire_bytes_ratio of the results"
    )


def main() -> int:
    figures = []
    for figure in measure():
        figures.append(figure)
        print(show(figure), flush=True)
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps([figure.as_json() for figure in figures], indent=2) + "\n")
    print(f"written to {RESULT}")
    broken = [figure.name for figure in figures if not figure.holds]
    print(f"violated: {', '.join(broken)}" if broken else "held: every bound")
    return ExitCode.VIOLATED if broken else ExitCode.HELD


if __name__ == "__main__":
    sys.exit(main())
