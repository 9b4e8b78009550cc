"""Run a node, or some of its parts, in the network namespace that this process is in.

python -m node SETTINGS.json [--parts agent,ipfs,trainer]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from node.cgroup import Group
from node.contract import HostError, ShoalError, UsageError
from node.contract.schema import from_json
from node.contract.settings import NodeSettings
from node.events import wait_event
from node.supervisor import events_of, parts_of, supervise

# Of the node's other containers, which the engine starts one after the other.
LINKS_S: Final = 180.0


def read_settings(file: Path) -> NodeSettings:
    """The settings in a file; what is wrong in it is named with the file and the key."""
    cure = "settings are written by whoever starts the fleet"
    try:
        return from_json(NodeSettings, json.loads(file.read_text()))
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}", cure) from error
    except json.JSONDecodeError as error:
        raise UsageError(f"{file}:{error.lineno}: no valid JSON: {error.msg}", cure) from error
    except UsageError as error:
        raise UsageError(f"{file}: {error.message}", error.hint or cure) from error


def run(
    settings: NodeSettings,
    parts: Sequence[str] | None = None,
    groups: Sequence[Group] = (),
    orders: Path | None = None,
) -> int:
    """Run the parts of these names, by default all, to their end; `orders` is where somebody may meddle."""
    names = ["agent", "ipfs", *settings.roles] if parts is None else parts
    return supervise(parts_of(settings, names), events_of(settings), groups, orders)


def wait_links(settings: NodeSettings, timeout_s: float = LINKS_S) -> None:
    """Until the node's agent, wherever it runs, has told that the links are in force."""
    events = events_of(settings)
    if settings.links is not None and not wait_event(events.path, "links_applied", timeout_s):
        raise HostError(
            f"the links of {settings.name} are not in force after {timeout_s:g} s", "see agent.log beside it"
        )


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m node", description=__doc__)
    parser.add_argument("settings", type=Path, metavar="SETTINGS.json")
    parser.add_argument("--parts", help="agent, ipfs and roles, with commas between; all by default")
    options = parser.parse_args(arguments)
    try:
        parts = options.parts.split(",") if options.parts is not None else None
        settings = read_settings(options.settings)
        os.umask(0o007)  # a node's folder is shared by its parts, be they of different users of one group
        if parts is not None and "agent" not in parts:
            wait_links(settings)
        return run(settings, parts)
    except ShoalError as error:
        print(f"node: {error}", file=sys.stderr)
        return int(error.exit_code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
