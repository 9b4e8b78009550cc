"""What a person does to a living run: a command in a node, a capture of its packets, and its end."""

from __future__ import annotations

import argparse
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Final

from node.contract import ExitCode, ShoalError, UsageError
from orchestrator.planning import listing
from orchestrator.runs import living, packets
from orchestrator.boxes.netns import DATA

STOP_S: Final = 10.0
STANDARD_OUTPUT: Final = "-"


def execute(options: argparse.Namespace) -> int:
    """Become a command in a node."""
    if not options.command:
        raise UsageError(
            "which command shall run in the node?", f"as in: shoal exec {options.node} -- ip address"
        )
    living.choose(options.run).node(options.node).become(options.command)


def capture(options: argparse.Namespace) -> int:
    """Write a node's packets until Ctrl-C, or so many seconds."""
    run = living.choose(options.run)
    node = run.node(options.node)
    with ExitStack() as open_files:
        name = options.output or f"{options.node}.pcap"
        out: IO[bytes] = sys.stdout.buffer
        if name != STANDARD_OUTPUT:
            out = open_files.enter_context(create(Path(name)))
        limit = [] if options.seconds is None else [str(options.seconds)]
        program = [*run.fleet().program(Path(packets.__file__)), DATA, *limit]
        writer = node.start(program, stdin=subprocess.PIPE, stdout=out, stderr=None)
        assert writer.stdin is not None
        try:
            status = writer.wait()
        except KeyboardInterrupt:
            # It ends with its standard input, so it ends even when we are killed.
            writer.stdin.close()
            status = writer.wait(STOP_S)
        finally:
            writer.stdin.close()
    if status != 0 and run.fleet().is_alive():
        raise ShoalError(f"the capture in {options.node} ended with {status}")
    if status != 0:
        print("the run has ended, and the capture with it", file=sys.stderr)
    if name != STANDARD_OUTPUT:
        print(f"wrote {listing.shown(Path(name))}; read it with Wireshark or tcpdump -r")
    return ExitCode.HELD


def create(path: Path) -> IO[bytes]:
    try:
        return path.open("xb")
    except FileExistsError as error:
        raise UsageError(f"{listing.shown(path)} exists already", "name another one: -o FILE") from error
    except OSError as error:
        raise UsageError(f"{listing.shown(path)} cannot be written: {error.strerror}") from error


def down(options: argparse.Namespace) -> int:
    """End runs; one that is gone already is no error."""
    runs = living.sweep()
    if options.run is not None:
        ending = [one for one in runs if living.is_named(one, options.run)]
        if not ending:
            print(f"no run {options.run} is living" + (", but:\n" + living.listing(runs) if runs else ""))
    elif options.all:
        ending = runs
    else:
        ending = [living.choose(None)] if runs else []
    if not runs and options.run is None:
        print("no run is living")
    for one in ending:
        print(f"ending {one.run}", flush=True)
        living.end(one)
    return ExitCode.HELD
