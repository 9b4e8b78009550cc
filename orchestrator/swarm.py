"""A swarm of IPFS daemons in a box that add, fetch from each other and tunnel to each other.

    make swarm
    python -m orchestrator.swarm --nodes 8 --bytes 5242880 --engine embedded

Each member adds an object of its own, fetches everybody else's (verified by length and CID) and
opens a tunnel to everybody else, who checks who asks. Nothing leaves this machine: the nodes are
network namespaces without an uplink, and all of it ends with this command.

exit status: 0 all was fetched and tunnelled, 1 something was not, 64 the call is wrong,
69 this host cannot run it (what is missing, and the cure), 70 a bug of Shoal's own
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import statistics
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn

from node.contract import ExitCode, ShoalError, UsageError
from orchestrator import TOP
from orchestrator.boxes.box import Box
from orchestrator.member import Event, MemberFailedError, Members, Starter

MEMBER_ARGV = (sys.executable, "-m", "node.ipfs.exercise")
ENGINES = ("auto", "embedded", "kubo")
TRANSPORTS = ("prompt", "stock", "patient")
MOST_NODES = 100
MOST_BYTES = 1 << 30
MIB = 1 << 20

READY_TIMEOUT_S = 120.0
ADD_TIMEOUT_S = 120.0
FINISH_TIMEOUT_S = 600.0
LEAVE_TIMEOUT_S = 40.0


@dataclass(frozen=True)
class Order:
    """What the person asked for."""

    nodes: int = 5
    object_bytes: int = MIB
    engine: str = "auto"
    transport: str = "prompt"


@dataclass(frozen=True)
class Row:
    """What one member did; times are medians over its peers."""

    name: str
    engine: str
    start_ms: float
    add_ms: float
    fetched: int
    fetch_ms: float
    tunnelled: int
    round_trip_ms: float
    received_bytes: int
    duplicate_bytes: int
    resident_bytes: int


def address_of(index: int) -> str:
    """The address of the n-th node, counted from 1."""
    return f"10.77.0.{index}"


def exercise(
    places: Mapping[str, Starter], order: Order, folder: Path, argv: Sequence[str] = MEMBER_ARGV
) -> list[Row]:
    """Start a member in each place and lead them through the protocol; raises when one fails."""
    swarm_key = secrets.token_hex(32)
    python_path = os.pathsep.join(filter(None, [str(TOP), os.environ.get("PYTHONPATH")]))
    with Members() as members:
        for index, (name, place) in enumerate(places.items(), start=1):
            home = folder / name
            home.mkdir()
            members.start(name, place, argv, {"PYTHONPATH": python_path}, home / "member.log")
            members.tell(
                name,
                {
                    "name": name,
                    "engine": order.engine,
                    "transport": order.transport,
                    "data_address": address_of(index),
                    "swarm_key": swarm_key,
                    "folder": str(home),
                    "object_bytes": order.object_bytes,
                },
            )
        say(f"starting {len(places)} daemons")
        ready = {name: said[-1] for name, said in members.wait_events("ready", READY_TIMEOUT_S).items()}
        who = {n: {"name": n, "peer_id": e["peer_id"], "address": e["address"]} for n, e in ready.items()}
        say(f"connecting them and adding {order.object_bytes / MIB:g} MiB on each")
        for name in places:
            members.tell(name, {"peers": [who[other] for other in places if other != name]})
        added = {name: said[-1] for name, said in members.wait_events("added", ADD_TIMEOUT_S).items()}
        objects = {
            n: {**who[n], "cid": event["cid"], "size_bytes": event["size_bytes"]}
            for n, event in added.items()
        }
        say("fetching everything from everybody, tunnelling to everybody")
        for name in places:
            members.tell(name, {"objects": [objects[other] for other in places if other != name]})
        said = members.wait_events("done", FINISH_TIMEOUT_S)
        say("stopping the daemons")
        members.leave(LEAVE_TIMEOUT_S)
    return [row(name, ready[name], added[name], objects, said[name]) for name in places]


def row(
    name: str, ready: Event, added: Event, objects: Mapping[str, Mapping[str, object]], said: Sequence[Event]
) -> Row:
    """Check one member's account against what was asked of it, and sum it up."""
    others = [other for other in objects if other != name]
    fetched = {event["name"]: event for event in said if event["event"] == "fetched"}
    tunnelled = {event["name"]: event for event in said if event["event"] == "tunnelled"}
    for other in others:
        got, asked = fetched.get(other, {}), objects[other]
        if any(got.get(key) != asked[key] for key in ("cid", "size_bytes")):
            raise MemberFailedError(f"{name} did not fetch the object of {other}.")
        if tunnelled.get(other, {}).get("asker_verified") is not True:
            raise MemberFailedError(f"{name} was not recognised through its tunnel to {other}.")
    done = said[-1]
    return Row(
        name=name,
        engine=f"{ready['engine']} {ready['version']}",
        start_ms=ready["start_ms"],
        add_ms=added["add_ms"],
        fetched=len(fetched),
        fetch_ms=statistics.median(event["ms"] for event in fetched.values()),
        tunnelled=len(tunnelled),
        round_trip_ms=statistics.median(event["round_trip_ms"] for event in tunnelled.values()),
        received_bytes=done["bytes_received"],
        duplicate_bytes=done["duplicate_bytes"],
        resident_bytes=done["resident_bytes"],
    )


COLUMNS = (
    "node  engine          start_ms add_ms fetched each_ms tunnels each_ms got_MiB twice_MiB resident_MiB"
)


def table(rows: Sequence[Row]) -> str:
    """The summary for a person; `each` is the median, `twice` what came more than once."""
    lines = [
        f"{r.name:<5} {r.engine[:15]:<15} {r.start_ms:>8.0f} {r.add_ms:>6.0f} {r.fetched:>7}"
        f" {r.fetch_ms:>7.0f} {r.tunnelled:>7} {r.round_trip_ms:>7.1f} {r.received_bytes / MIB:>7.2f}"
        f" {r.duplicate_bytes / MIB:>9.2f} {r.resident_bytes / MIB:>12.1f}"
        for r in rows
    ]
    return "\n".join([COLUMNS, *lines])


def say(text: str) -> None:
    """Progress, on standard error."""
    print(f"swarm: {text}", file=sys.stderr, flush=True)


class Parser(argparse.ArgumentParser):
    """argparse with the project's exit code for a wrong call."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, "python -m orchestrator.swarm --help")


def parse(argv: Sequence[str]) -> tuple[Order, bool]:
    """The order on the command line, and whether the answer shall be JSON."""
    parser = Parser(
        prog="python -m orchestrator.swarm",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--nodes", type=int, default=5, help="how many daemons (5)")
    parser.add_argument("--bytes", type=int, default=MIB, help="size of each member's object (1048576)")
    parser.add_argument(
        "--engine", choices=ENGINES, default="auto", help="auto takes Kubo where it is at hand"
    )
    parser.add_argument(
        "--transport", choices=TRANSPORTS, default="prompt", help="how soon a dead link is noticed (prompt)"
    )
    parser.add_argument("--json", action="store_true", help="the results as JSON on standard output")
    given = parser.parse_args(argv)
    if not 2 <= given.nodes <= MOST_NODES:
        raise UsageError(f"--nodes {given.nodes} is out of range.", f"between 2 and {MOST_NODES}")
    if not 1 <= given.bytes <= MOST_BYTES:
        raise UsageError(f"--bytes {given.bytes} is out of range.", f"between 1 and {MOST_BYTES}")
    return Order(given.nodes, given.bytes, given.engine, given.transport), given.json


def run(order: Order) -> list[Row]:
    """The whole job in a box of its own."""
    say(f"opening a box with {order.nodes} nodes")
    with tempfile.TemporaryDirectory(prefix="shoal-swarm-") as folder, Box.open() as box:
        box.add_bridge("data")
        nodes = [box.add_node(f"w{i}", {"data": f"{address_of(i)}/24"}) for i in range(1, order.nodes + 1)]
        return exercise({node.name: node for node in nodes}, order, Path(folder))


def main(argv: Sequence[str]) -> int:
    """Run, report, and end with the verdict."""
    # With --json, standard output is the answer or nothing.
    verdict = sys.stderr if "--json" in argv else sys.stdout
    try:
        order, as_json = parse(argv)
        rows = run(order)
    except ShoalError as error:
        print(f"swarm: {error}", file=sys.stderr)
        held = "violated" if error.exit_code == ExitCode.VIOLATED else "not run"
        print(f"verdict: {held}", file=verdict)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except Exception:  # noqa: BLE001 - the edge: a bug must not look like a verdict
        traceback.print_exc()
        print("verdict: not run", file=verdict)
        return ExitCode.BUG
    objects = f"{order.nodes * (order.nodes - 1)} objects fetched and verified"
    if as_json:
        print(json.dumps({"verdict": "held", "order": asdict(order), "members": [asdict(r) for r in rows]}))
    else:
        print(table(rows))
    print(f"verdict: held ({objects}, every tunnel's asker recognised)", file=verdict)
    return ExitCode.HELD


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
