"""Which delay engines this kernel can do: found out by doing, never by reading lists of modules.

python -m node.links.engine [WANTED.json]    in the box: what works, as JSON; and the engine for these links
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from node.contract import HostError, ShoalError
from node.contract.links import DelayEngine, LinkTable, Shape
from node.contract.schema import from_json, to_json
from node.links import copies
from node.links.delays import impossible, is_held
from node.links.kernel import Kernel
from node.links.leaf import Leaf
from node.links.nfqueue import Mailbox, Queue
from node.links.queue_messages import SMALL_BYTES

DEVICE: Final = "shoal-probe"
PEER: Final = "shoal-probe2"
CHAIN: Final = "SHOAL-PROBE"
QUEUE: Final = 65_000
MOST_TOLD: Final = 5


@dataclass(frozen=True)
class Probed:
    """Of each ability the kernel's own words why it is not there; empty: it is there."""

    htb: str
    ifb: str
    netem: str
    doubling: str  # of packets, where netem delays
    hold: str


def probe() -> Probed:
    """Try everything on throw-away things; needs to be root of the network namespace."""
    with tempfile.TemporaryDirectory() as folder:
        kernel = Kernel(Path(folder))
        kernel.run(["ip", "link", "add", DEVICE, "type", "veth", "peer", "name", PEER])
        try:
            root = f"qdisc replace dev {DEVICE} root handle 1: htb default 0"
            a_class = f"class add dev {DEVICE} parent 1: classid 1:1 htb rate 1mbit quantum 1514"
            htb = _words(kernel, root, a_class)
            plain = Leaf("netem", 1000, delay_ms=1.0, jitter_ms=0.1, distribution="normal")
            queue = f"qdisc add dev {DEVICE} parent 1:1 {' '.join(plain.words())}"
            netem = htb or _words(kernel, queue)
            ingress = f"qdisc add dev {DEVICE} handle ffff: ingress"
            doubling = netem or _words(kernel, ingress, copies.add(DEVICE, "192.0.2.1", 1))
            ifb = _tried(lambda: kernel.run(["ip", "link", "add", "shoal-ifb", "type", "ifb"]))
            if not ifb:
                kernel.run(["ip", "link", "delete", "shoal-ifb"])
        finally:
            kernel.run(["ip", "link", "delete", DEVICE])
        return Probed(htb, ifb, netem, doubling, _tried(lambda: _try_hold(kernel)))


def choose(
    wanted: Literal["auto", "netem", "hold"], tables: Iterable[LinkTable], probed: Probed
) -> DelayEngine:
    """netem where it works, else hold; none where nothing is to be delayed or lost."""
    if not any(is_held(shape) for table in tables for shape in _shapes(table)):
        return "none"
    reasons = {"netem": probed.netem or probed.ifb, "hold": probed.hold}
    names: tuple[Literal["netem", "hold"], ...] = ("netem", "hold")
    for engine in names:
        if wanted in ("auto", engine) and not reasons[engine]:
            return engine
    said = "; ".join(f"{name}: {words}" for name, words in reasons.items() if wanted in ("auto", name))
    raise HostError(
        f"this host cannot delay packets: {said}",
        "load sch_netem (modprobe sch_netem, as root), or the kernel's NFQUEUE target for iptables",
    )


def refusals(tables: Iterable[LinkTable], engine: DelayEngine, probed: Probed) -> list[str]:
    """What of these links this host cannot do, for people; empty: all of it."""
    tables = list(tables)
    said = []
    if probed.htb:
        said.append(f"rates and classes need HTB: {probed.htb}")
    if probed.ifb and any(table.down_bit_s is not None for table in tables):
        said.append(f"`down` needs the ifb device: {probed.ifb}")
    for table in tables:
        said += [
            f"{links.peer} → {table.node}: {why}"
            for links in table.peers
            if (why := _shape_refusal(links.into, engine, probed))
        ]
    return said


def _shape_refusal(shape: Shape, engine: DelayEngine, probed: Probed) -> str | None:
    if why := impossible(shape):
        return why
    if engine == "netem" and shape.duplicate and probed.doubling:
        return f"this kernel cannot double packets: {probed.doubling}"
    return None


def _shapes(table: LinkTable) -> list[Shape]:
    return [shape for links in table.peers for shape in (links.out, links.into)]


def _words(kernel: Kernel, *lines: str) -> str:
    return _tried(lambda: kernel.batch(lines))


def _tried(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except (ShoalError, OSError) as error:
        return str(error.message if isinstance(error, ShoalError) else error)
    return ""


def _try_hold(kernel: Kernel) -> None:
    """A rule that leads to a queue, where no packet comes by, and a queue that is bound."""
    kernel.restore(f"*mangle\n:{CHAIN} - [0:0]\n-A {CHAIN} -j NFQUEUE --queue-num {QUEUE}\n")
    kernel.restore(f"*mangle\n:{CHAIN} - [0:0]\n-X {CHAIN}\n")
    mailbox = Mailbox(1, SMALL_BYTES)
    with closing(Queue(QUEUE, mailbox, mailbox)):
        pass


@dataclass(frozen=True)
class Wanted:
    """Every table that a run may ask for, with and without its faults."""

    delay_engine: Literal["auto", "netem", "hold"]
    tables: tuple[LinkTable, ...]


def bound(wanted: Wanted) -> dict[str, Any]:
    """What works here, and the engine for these links; HostError where they cannot be made."""
    probed = probe()
    engine = choose(wanted.delay_engine, wanted.tables, probed)
    if said := refusals(wanted.tables, engine, probed):
        raise HostError(
            "this host cannot make these links: " + "; ".join(said[:MOST_TOLD]),
            "change the scenario, or take a kernel that can",
        )
    return {"engine": engine, "probed": to_json(probed)}


def main(arguments: Sequence[str]) -> int:
    if len(arguments) > 1:
        print(__doc__, file=sys.stderr)
        return 64
    try:
        if arguments:
            print(json.dumps(bound(from_json(Wanted, json.loads(Path(arguments[0]).read_text())))))
        else:
            print(json.dumps(to_json(probe())))
    except ShoalError as error:
        print(error, file=sys.stderr)
        return int(error.exit_code)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
