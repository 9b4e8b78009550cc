"""What is made before a fleet starts: data, identities, secrets. Done by modules of `node` in processes of
their own, since importing them here would break the import law.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
from collections.abc import Callable, Mapping, Sequence
from errno import ENOSPC
from pathlib import Path
from typing import Any

from node.contract import ExitCode, HostError, ShoalError, UsageError
from node.contract.plan import Plan
from node.contract.schema import to_json
from orchestrator import process
from orchestrator.disk import full_disk, is_full

PREPARE_TIMEOUT_S = 900.0  # data sets may be downloaded, the daemon compiled


class Preparation:
    """Everything lies in the folder of secrets."""

    def __init__(self, plan: Plan, hidden: Path, task_file: str | None) -> None:
        self._plan, self._hidden, self._task_file = plan, hidden, task_file
        self.token = secrets.token_hex(16)  # the agents demand it
        self.data_folder = hidden / "data"

    def data(self) -> dict[str, Any]:
        """Fetch and cut the data; what they are."""
        trainers = [node.name for node in self._plan.nodes if "trainer" in node.roles]
        recipe = {
            "seed": self._plan.seed,
            "workload": to_json(self._plan.workload),
            "nodes": trainers,
            "task_file": self._task_file,
        }
        file = self._hidden / "recipe.json"
        file.write_text(json.dumps(recipe))
        run_module(["node.data.prepare", str(file), str(self.data_folder)], self._hidden)
        described: dict[str, Any] = json.loads((self.data_folder / "data.json").read_text())
        return described

    def nodes(self, data: Mapping[str, Any], prepare: Callable[[Path], str]) -> dict[str, Any]:
        """Make folders and keys; identities and the data's names on IPFS are made where the daemons are."""
        key = self._hidden / "swarm-key"
        write_secret(key, secrets.token_hex(32))
        write_secret(self._hidden / "token", self.token)
        for node in self._plan.nodes:
            (self._hidden / node.name).mkdir(exist_ok=True)  # it may be a disk of its own
        request = {
            "nodes": {
                node.name: {
                    "folder": str(self._hidden / node.name),
                    "engine": node.ipfs,
                    "data_address": node.data_address,
                    "transport": self._plan.network.transport,
                }
                for node in self._plan.nodes
            },
            "swarm_key_file": str(key),
            "files": [str(self.data_folder / shard["file"]) for shard in data["shards"].values()],
        }
        file = self._hidden / "request.json"
        file.write_text(json.dumps(request))
        made: dict[str, Any] = json.loads(prepare(file))
        return made


def run_module(module: Sequence[str], hidden: Path) -> str:
    """What a module of `node` answers in a process of its own."""
    try:
        return process.run([sys.executable, "-m", *module], timeout_s=PREPARE_TIMEOUT_S).stdout
    except process.CommandFailedError as err:
        # What it complained may not have found room itself.
        if is_full(hidden) or os.strerror(ENOSPC) in err.stderr:
            raise full_disk() from None
        raise failed(err) from None


def failed(err: process.CommandFailedError) -> ShoalError:
    """Our own module's complaint, of the kind that its exit status says."""
    return failure(err.status, err.stderr, err.message)


def failure(status: int | None, said: str, otherwise: str) -> ShoalError:
    """What a program of ours said when it ended with this status, wherever it ran."""
    kinds: dict[int | None, type[ShoalError]] = {
        int(ExitCode.USAGE): UsageError,
        int(ExitCode.HOST): HostError,
    }
    return kinds.get(status, ShoalError)(said.strip() or otherwise)


def write_secret(file: Path, text: str) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w") as out:
        out.write(text)
