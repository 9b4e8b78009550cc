"""The helper that cuts the data, as the orchestrator runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

TOP = Path(__file__).resolve().parents[4]


def run(tmp_path: Path, recipe: Any) -> subprocess.CompletedProcess[str]:
    """As the orchestrator runs it; prints what it imported."""
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    code = (
        "import sys, atexit, node.data.prepare as p\n"
        "sys.argv[1:] = ['recipe.json', 'out']\n"
        "status = p.main()\n"
        "import node.learning.encoding, node.data.sources\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))\n"
        "sys.exit(status)"
    )
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(TOP)},
        capture_output=True,
        text=True,
        check=False,
    )


def recipe(**changes: Any) -> dict[str, Any]:
    plan = {"dataset": "digits", "model": "cnn", "partition": {"kind": "iid"}, "rounds": 1, "local_epochs": 1}
    plan |= {"batch_size": 8, "learning_rate": 0.1}
    return {"seed": 1, "workload": plan | changes, "nodes": ["w01"], "task_file": None}


def test_the_helper_loads_no_tensorflow(tmp_path: Path) -> None:
    said = run(tmp_path, recipe())
    assert said.returncode == 0, said.stderr
    loaded = set(said.stdout.split())
    assert "numpy" in loaded
    assert loaded.isdisjoint({"tensorflow", "tensorflow_federated", "jax", "keras"})
    assert (tmp_path / "out" / "w01.safetensors").exists()


def test_the_helper_says_what_is_wrong(tmp_path: Path) -> None:
    said = run(tmp_path, recipe(partition={"kind": "label", "labels_per_node": 11}))
    assert said.returncode == 64
    assert said.stderr.startswith("data: workload.partition.labels_per_node")
    said = run(tmp_path, recipe(colour="red"))
    assert said.returncode == 64
    assert "workload.colour: unknown key" in said.stderr
