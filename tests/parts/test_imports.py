"""What importing costs, seen in a fresh Python."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]


def test_importing_the_orchestrator_loads_no_tensorflow() -> None:
    files = sorted((TOP / "orchestrator").rglob("[a-z]*.py"))
    modules = [".".join(path.relative_to(TOP).with_suffix("").parts) for path in files]
    code = "\n".join(f"import {module}" for module in modules)
    code += "\nimport sys\nprint(*sorted({name.partition('.')[0] for name in sys.modules}))"
    said = subprocess.run(
        [sys.executable, "-c", code], cwd=TOP, capture_output=True, text=True, check=True
    ).stdout
    loaded = set(said.split())
    assert "orchestrator" in loaded
    assert loaded.isdisjoint({"tensorflow", "tensorflow_federated", "numpy", "jax"})


def test_importing_the_aggregator_loads_no_tensorflow() -> None:
    code = "import aggregator.server, aggregator.strategies.dp, node.trainer, sys\nprint(*sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], cwd=TOP, capture_output=True, text=True, check=True)
    assert "aggregator.server" in said.stdout.split()
    assert not {"tensorflow", "tensorflow_federated"} & set(said.stdout.split())


def test_set_up_leaves_the_packages_bytecode() -> None:
    code = "from importlib import util; print(util.cache_from_source(util.find_spec('tensorflow').origin))"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPYCACHEPREFIX"}
    said = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert Path(said.stdout.strip()).exists()
