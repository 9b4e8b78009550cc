"""`shoal doctor`: whether this host can hold a fleet, one line per check with the cure."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from node.contract import HostError, ShoalError
from orchestrator import host, prometheus_setup, setup
from orchestrator.boxes import cgroups
from orchestrator.boxes.box import Box

CONNECT_TIMEOUT_S: Final = 10.0
# No node listens there, so a refusal is the other node's own answer: the packets went there and back.
KNOCK: Final = f"""
import socket
try:
    socket.create_connection(("10.77.0.1", 9), {CONNECT_TIMEOUT_S}).close()
except ConnectionRefusedError:
    pass
"""


@dataclass(frozen=True)
class Finding:
    """One check: what was looked at, what was found, and the cure if that will not do."""

    name: str
    is_good: bool
    said: str
    cure: str = ""


def examine() -> Iterator[Finding]:
    """Every check, each as soon as it is done; a failing one stops none of the others but the box."""
    yield _tried("machine", setup.check_machine, "Linux on x86_64 with a C library that TFF knows")
    yield _tried("python", _check_environment, f"{sys.version.split()[0]} with the locked packages")
    missing = setup.missing_tools()
    for tool in (*host.TOOLS, *setup.RUN_TOOLS):
        is_there = tool not in missing
        said = "found" if is_there else "missing"
        yield Finding(tool.program, is_there, said, "" if is_there else host.cure_for([tool]))
    yield _tried("prometheus", _check_prometheus, "found")
    for kind, found in cgroups.attempt().items():
        # A run goes on without, and says so: this host can hold a fleet.
        yield Finding(f"{kind} limits", True, cgroups.told(found))
    yield _docker()
    if missing:
        yield Finding("box", False, "not tried: programs are missing", host.cure_for(missing))
    else:
        yield _tried("box", _try_box, "two nodes in fresh namespaces reach each other, and nothing is left")


def _docker() -> Finding:
    """Never a failure: a host without Docker still holds a fleet, in a box."""
    from orchestrator.containers import engine

    try:
        with engine.found() as found:
            return Finding("docker", True, found.said)
    except ShoalError as error:
        return Finding("docker", True, f"not used: {error.message}", error.hint)


def _tried(name: str, check: Callable[[], None], good: str) -> Finding:
    try:
        check()
    except ShoalError as error:
        return Finding(name, False, error.message, error.hint)
    except OSError as error:
        return Finding(
            name, False, str(error), "see that this user may read the checkout and run .venv/bin/python"
        )
    return Finding(name, True, good)


def _check_environment() -> None:
    if not setup.is_ready():
        raise HostError("the environment is not that of the lock file", "run `make setup`")


def _check_prometheus() -> None:
    if prometheus_setup.find(setup.prometheus_folder()) is None:
        raise HostError("missing", f"run `make setup`, or {prometheus_setup.CURE}")


def _try_box() -> None:
    """A whole box in small, as this user: bridges, nodes, a connection between them."""
    with Box.open() as box:
        for bridge in ("data", "ctl"):
            box.add_bridge(bridge)
        nodes = [
            box.add_node(name, {"data": f"10.77.0.{number}/22", "ctl": f"10.77.4.{number}/22"})
            for number, name in enumerate(("w01", "w02"), start=1)
        ]
        knocked = nodes[1].run(
            [sys.executable, "-I", "-S", "-c", KNOCK], timeout_s=2 * CONNECT_TIMEOUT_S, check=False
        )
    if knocked.status:
        *_, complaint = ["", *knocked.stderr.strip().splitlines()]
        raise HostError(
            f"one node cannot reach the other: {complaint}",
            "if bridged packets pass the host's filter: sudo sysctl -w net.bridge.bridge-nf-call-iptables=0",
        )
