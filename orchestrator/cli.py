"""shoal: experiments with decentralized machine learning on an emulated network.

A scenario is a YAML file that says which fleet, network and workload there are and what is expected.
With a seed it becomes a plan, the same on every machine; a run carries the plan out, and ends with
a verdict on every expectation.

    shoal list                       the scenarios that there are
    shoal run baseline               run one; everything about it ends in runs/baseline/
    shoal new mine                   begin one of your own: scenarios/mine.yaml, with comments
    shoal validate mine              see whether it is right, before anything is started
    shoal plan mine --seed 8         see exactly what a run would do
    shoal calibrate mine             measure its links against what it asks for
    shoal doctor                     see whether this host can do it, and what cures it if not

    shoal run baseline --keep        leave its fleet up after the verdict; then, from another terminal:
    shoal exec w01 -- ip address     run a command in a node
    shoal logs w01 -f                read what its parts say
    shoal capture w01 --seconds 10   write its packets to w01.pcap
    shoal down                       end the run
    shoal report baseline            read the latest report again
    shoal dashboards baseline        look at its series: Grafana, or Prometheus' own page

exit status:
  0   all checks held (or the command did what it was told)
  1   a check is violated
  2   unknown: something could not be observed or verified
  64  the scenario or the call is wrong
  69  this host cannot run it; the message says what is missing and what cures it
  70  a bug of Shoal's own
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Final, NoReturn

from node.contract import ExitCode, ShoalError, UsageError
from orchestrator import doctor, driver, nearest
from orchestrator.planning import listing, plan
from orchestrator.runs import finished, inside, logs

INTERRUPTED: Final = 130


class Parser(argparse.ArgumentParser):
    """argparse with the project's exit code for a wrong call."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, f"see: {self.prog} --help")


def validate(options: argparse.Namespace) -> int:
    """Every named scenario; the first wrong one ends it."""
    rows = []
    for named in options.scenarios or [path.stem for path in listing.files()]:
        made = plan.make_plan(listing.load(named))
        size = {"nodes": len(made.nodes), "links": len(made.links), "checks": len(made.checks)}
        rows.append({"name": made.scenario, **size})
        if not options.json:
            print(f"{made.scenario}: right, " + ", ".join(f"{count} {what}" for what, count in size.items()))
    if options.json:
        print(json.dumps(rows))
    return ExitCode.HELD


def show_plan(options: argparse.Namespace) -> int:
    """The plan's own bytes, and nothing else."""
    made = plan.make_plan(listing.load(options.scenario), options.seed)
    sys.stdout.buffer.write(plan.plan_bytes(made))
    return ExitCode.HELD


def show_list(options: argparse.Namespace) -> int:
    """Name and summary of each scenario."""
    rows = listing.listed()
    if options.json:
        print(json.dumps([asdict(row) for row in rows]))
        return ExitCode.HELD
    width = max((len(row.name) for row in rows), default=0)
    for row in rows:
        print(f"{row.name:<{width}}  {row.summary or 'WRONG: ' + row.complaint}")
    print("\nrun one: make scenario NAME=… [SEED=…], or: .venv/bin/shoal run NAME", file=sys.stderr)
    return ExitCode.HELD


def new(options: argparse.Namespace) -> int:
    """Write a scenario to begin with."""
    path = listing.shown(listing.begin(options.name))
    print(f"wrote {path}; change it, then: shoal validate {options.name}")
    return ExitCode.HELD


def examine(options: argparse.Namespace) -> int:
    """One line per check, as it is done."""
    findings = []
    for finding in doctor.examine():
        findings.append(finding)
        if not options.json:
            print(f"{'ok ' if finding.is_good else 'NO '} {finding.name:<12} {finding.said}", flush=True)
            if finding.cure:
                print(f"    {'':<12} cure: {finding.cure}", flush=True)
    if options.json:
        print(json.dumps([asdict(finding) for finding in findings]))
    return ExitCode.HELD if all(finding.is_good for finding in findings) else ExitCode.HOST


def run(options: argparse.Namespace) -> int:
    """Carry a plan out; loaded only now, so that the other commands start at once."""
    from orchestrator import run as job

    return job.main(options)


def calibrate(options: argparse.Namespace) -> int:
    """Measure a scenario's links."""
    from orchestrator.measuring import calibrate as job

    return job.main(options)


def dashboards(options: argparse.Namespace) -> int:
    """Show a finished run."""
    from orchestrator.monitoring import dashboards as job

    return job.main(options)


def seconds(text: str) -> float:
    """A length of time that can be waited for."""
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number of seconds")
    return value


def parser() -> tuple[Parser, list[str]]:
    """The whole command line, and the names of its commands."""
    top = Parser(prog="shoal", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = top.add_subparsers(title="commands", metavar="COMMAND ARG", parser_class=Parser)

    def add(name: str, does: Callable[[argparse.Namespace], int], summary: str, more: str = "") -> Parser:
        command: Parser = commands.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.\n{more}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.set_defaults(does=does)
        return command

    def add_scenario(command: Parser) -> None:
        command.add_argument(
            "scenario", metavar="SCENARIO", help="a name that `shoal list` shows, or the path of a file"
        )
        command.add_argument("--seed", type=int, help="instead of the scenario's own")

    def add_json(command: Parser) -> None:
        command.add_argument("--json", action="store_true", help="the answer as JSON on standard output")

    def add_run(command: argparse._ActionsContainer, more: str = "") -> None:
        command.add_argument(
            "--run", metavar="ID", help=f"ID or directory of the run; default: the only living one{more}"
        )

    one = add("list", show_list, "list the scenarios with their summaries")
    add_json(one)

    one = add(
        "validate",
        validate,
        "check scenarios, without running anything",
        "\nA mistake is told with file, line, path of keys and the nearest known word.\n"
        "scenarios/README.md explains every key.",
    )
    one.add_argument("scenarios", metavar="SCENARIO", nargs="*", help="names or paths; none: all there are")
    add_json(one)

    one = add(
        "plan",
        show_plan,
        "print the plan: exactly what `run` carries out, as JSON",
        "\nThe same scenario and seed give the same bytes on every machine. Compare two with diff.",
    )
    add_scenario(one)

    one = add(
        "new",
        new,
        "begin a scenario: a working one with comments",
        "\nA file that exists is never touched.",
    )
    one.add_argument("name", metavar="NAME", help="of scenarios/NAME.yaml, or the path of a file")

    one = add(
        "doctor",
        examine,
        "see whether this host can hold a fleet; one line per check, with the cure",
        "\nIt builds a whole box in small, as this user, and leaves nothing behind.",
    )
    add_json(one)

    one = add(
        "run",
        run,
        "run a scenario to its verdict",
        "\nEverything about the run ends in runs/SCENARIO/TIME/; its README says what each file is.\n"
        "Ctrl-C ends it in order. Nothing outlives this command.",
    )
    add_scenario(one)
    one.add_argument(
        "--driver",
        choices=driver.CHOICES,
        help="how nodes come to life: as containers (compose), or in namespaces of our own without root and\n"
        "without Docker (netns); auto, the default, is compose where a Docker engine with Compose answers",
    )
    one.add_argument(
        "--keep",
        action="store_true",
        help="leave the fleet up after the verdict, until Ctrl-C or `shoal down`",
    )
    one.add_argument(
        "-v", "--verbose", action="store_true", help="tell every event of every node, on standard error"
    )
    add_json(one)

    one = add(
        "calibrate",
        calibrate,
        "measure every link of a scenario against what it asks for",
        "\nIt starts the nodes' agents alone, on the emulated network, and ends them. A run measures one\n"
        "link of each kind by itself. Exit status 2: a link is not as intended.",
    )
    add_scenario(one)
    add_json(one)

    one = add(
        "exec",
        inside.execute,
        "run a command in a node of a living run",
        "\nIt has this terminal, this folder and the node's network; the exit status is the command's.\n"
        "With driver compose it runs in the container of the node's agent, with the files that are there.\n\n"
        "    shoal exec w01 -- ping -U -c 3 10.77.0.1\n"
        "    shoal exec w01 -- sh",
    )
    one.add_argument("node", metavar="NODE", help="agg, w01, w02, …")
    one.usage = "shoal exec [--run ID] NODE -- CMD..."
    add_run(one)

    one = add(
        "logs",
        logs.show,
        "print what the parts of the nodes say",
        "\nEvery line begins with NODE/PART. Without --run it is of the only living run.",
    )
    one.add_argument("node", metavar="NODE", nargs="?", help="of this node alone; else of all")
    one.add_argument("-f", "--follow", action="store_true", help="go on until the run ends, or Ctrl-C")
    add_run(one, "; or the directory or scenario of one that has finished")

    one = add(
        "capture",
        inside.capture,
        "write the packets of a node's data network as a pcap file",
        "\nUntil Ctrl-C, or for some seconds. Nothing needs to be installed.\n\n"
        "    shoal capture w01 -o - | tcpdump -n -r -",
    )
    one.add_argument("node", metavar="NODE", help="agg, w01, w02, …")
    one.add_argument("-o", "--output", metavar="FILE", help="instead of NODE.pcap; - is standard output")
    one.add_argument("--seconds", type=seconds, metavar="N", help="end after so long")
    add_run(one)

    one = add(
        "down",
        inside.down,
        "end a run in order, from any terminal",
        "\nAs Ctrl-C does in the run's own, and by force if it does not obey. What a killed run has left\n"
        "behind is removed, too. A run that is gone already is no error.",
    )
    which = one.add_mutually_exclusive_group()
    which.add_argument("--all", action="store_true", help="end every living run of this user")
    add_run(which)

    one = add(
        "report",
        finished.report,
        "print the report of a run that has come to its verdict",
        "\nA scenario's name means its latest run, in ./runs/SCENARIO/latest.",
    )
    one.add_argument("finished", metavar="RUN_DIR|SCENARIO", help="a run's directory, or a scenario's name")
    one.add_argument("--json", action="store_true", help="results.json instead")

    one = add(
        "dashboards",
        dashboards,
        "show the dashboards of a finished run, until Ctrl-C",
        "\nIts series are put into a Prometheus of their own on 127.0.0.1, with Grafana on it where there\n"
        "is one: on PATH, or named by SHOAL_GRAFANA. A scenario's name means its latest run.",
    )
    one.add_argument("finished", metavar="RUN_DIR|SCENARIO", help="a run's directory, or a scenario's name")
    either = one.add_mutually_exclusive_group()
    either.add_argument("--html", metavar="FILE", help="write all panels as one page, which needs no network")
    either.add_argument("--check", action="store_true", help="ask every query, and say which found nothing")
    return top, sorted(commands.choices)


def dispatch(argv: Sequence[str]) -> int:
    """Do what the command line says; raises what can go wrong."""
    known, names = parser()
    if argv and not argv[0].startswith("-") and argv[0] not in names:
        raise UsageError(f"there is no command {argv[0]!r}", nearest.hint(argv[0], names))
    command: Sequence[str] = []
    if argv[:1] == ["exec"] and "--" not in argv and not {"-h", "--help"} & set(argv):
        raise UsageError("the command to run comes after --", "as in: shoal exec w01 -- ip address")
    if argv[:1] == ["exec"] and "--" in argv:
        # Apart from argparse, which would take the command's own options for ours, or ours for the command's.
        argv, command = argv[: argv.index("--")], argv[argv.index("--") + 1 :]
    options = known.parse_args(argv, argparse.Namespace(command=list(command)))
    if "does" not in options:
        known.print_help(sys.stderr)
        return ExitCode.USAGE
    status: int = options.does(options)
    sys.stdout.flush()
    return status


def main(argv: Sequence[str] | None = None) -> int:
    """The outermost edge: every error becomes one message and an exit status."""
    try:
        return dispatch(sys.argv[1:] if argv is None else argv)
    except ShoalError as error:
        print(f"shoal: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader (head, less) has enough; without this Python complains once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.HELD
    except Exception:  # noqa: BLE001 - the edge: a bug must not look like a verdict
        traceback.print_exc()
        print("shoal: this is a bug of Shoal's own", file=sys.stderr)
        return ExitCode.BUG


if __name__ == "__main__":
    sys.exit(main())
