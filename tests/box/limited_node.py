"""A node whose parts do nothing but take: `python -m tests.box.limited_node FOLDER GROUPS PART…`.

Each part writes what it has taken into a file of its name, again and again: CPU seconds, the clock, the groups
that it is in, bytes. `agent`, `ipfs` and `trainer` take CPU, `hog` memory without end, `modest` and `modest-too`
as much as a class of LIMIT_BYTES has room for once. Nodes in a box and nodes of containers are tried with these.
"""

from __future__ import annotations

import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import NoReturn

from node.cgroup import Group
from node.contract.schema import from_json
from node.events import Events
from node.part import Forked
from node.supervisor import supervise

PIECE_BYTES = 1 << 20
LIMIT_BYTES = 64 << 20
# A limit that does not hold must not cost the host its memory.
MOST_BYTES = {"hog": 1 << 30, "modest": 48 << 20, "modest-too": 48 << 20}


def take(folder: Path, name: str) -> NoReturn:
    taken: list[bytes] = []
    file, part = folder / name, folder / f"{name}.part"
    while True:
        groups = Path("/proc/self/cgroup").read_text()
        part.write_text(json.dumps([time.process_time(), time.monotonic(), groups, len(taken) * PIECE_BYTES]))
        part.replace(file)
        until_s = time.process_time() + 0.005
        while time.process_time() < until_s:
            pass
        if len(taken) * PIECE_BYTES < MOST_BYTES.get(name, 0):
            taken.append(b"x" * PIECE_BYTES)


def main(folder: Path, groups: str, names: list[str]) -> int:
    events = Events(folder / "events.jsonl", "w01")
    parts = [Forked(name, partial(take, folder, name), events, is_role=name != "agent") for name in names]
    return supervise(parts, events, [from_json(Group, group) for group in json.loads(groups)])


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:]))
