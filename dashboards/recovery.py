"""What broke, and how did it recover?"""

from __future__ import annotations

from typing import Final

from dashboards.metric import metric
from dashboards.page import NODE, PEER, Part, page
from dashboards.panel import (
    BITS_PER_SECOND,
    BLUE,
    COUNT,
    FULL_WIDTH,
    GREEN,
    PACKETS_PER_SECOND,
    RATIO,
    RED,
    SECONDS,
    YELLOW,
    AnyPanel,
    Query,
    bars,
    figure,
    lines,
    states,
)
from dashboards.queries import by_node, mean_so_far, rate_by_node

ACTIVE: Final = metric("shoal_fault_active")
ANY_FAULT: Final = f"(max({ACTIVE}) or vector(0))"
BEHIND: Final = (
    f"scalar(max({metric('shoal_round')})) - max by (node) ({metric('shoal_accepted_round', NODE)})"
)
# In a healthy run a worker is one round behind while that round is open.
SECONDS_BEHIND: Final = (
    f"sum_over_time((({BEHIND}) > bool 1)[$__range:1s]) - "
    f"sum_over_time(((({BEHIND}) > bool 1) * on () group_left () {ANY_FAULT})[$__range:1s])"
)
REFUSED: Final = metric("shoal_updates_total", 'outcome!="accepted"')
MISMATCHES: Final = "shoal_link_mismatches_total"


def dashboard() -> str:
    return page(
        "recovery",
        "What broke, and how did it recover?",
        "The faults, what they did to the links, and how soon everybody took part again.",
        (_now(), _when(), _workers(), _packets(), _links()),
        peers=True,
    )


def _now() -> Part:
    return Part(
        "Now",
        (
            figure(
                "Faults in force",
                "How many faults of the scenario are in force.",
                Query(f"sum({ACTIVE}) or vector(0)", "faults"),
                unit=COUNT,
                steps=((None, GREEN), (1, RED)),
            ),
            figure(
                "Links cut",
                "Directed links over which nothing is heard, on purpose.",
                Query(f"sum({metric('shoal_link_cut')})", "links"),
                unit=COUNT,
                steps=((None, GREEN), (1, RED)),
            ),
            figure(
                "Not as asked",
                "Differences between a link that was asked for and what the kernel had, since the start. "
                "Each is in the history. Above zero the network was not the planned one for a while.",
                Query(f"sum({metric(MISMATCHES)})", "differences"),
                unit=COUNT,
                steps=((None, GREEN), (1, RED)),
            ),
            figure(
                "Updates refused",
                "All so far, for any reason; late ones are among them.",
                Query(f"sum({REFUSED}) or vector(0)", "updates"),
                unit=COUNT,
                steps=((None, GREEN), (1, YELLOW)),
            ),
            figure(
                "Rounds behind, at most",
                "Of the worker whose newest accepted update is the oldest. 1 while a round is open is "
                "normal.",
                Query(f"max({BEHIND})", "rounds"),
                unit=COUNT,
                steps=((None, GREEN), (2, YELLOW), (4, RED)),
            ),
            figure(
                "Nodes that answer",
                "Nodes whose agent Prometheus could scrape.",
                Query(f"sum({metric('up')})", "nodes"),
                unit=COUNT,
            ),
        ),
    )


def _when() -> Part:
    return Part(
        "What was when",
        (
            states(
                "Faults",
                "From the moment at which a fault is in force on all nodes until it is healed on all.",
                Query(f"max by (fault, kind) ({ACTIVE})", "{{fault}}"),
                words={"0": ("not in force", GREEN), "1": ("in force", RED)},
                nothing="the scenario has no faults",
            ),
            states(
                "Parts",
                "Whether each part of the chosen nodes runs. No colour means that the agent did not answer.",
                Query(
                    f"""min by (node, part) ({metric("shoal_part_up", 'part!="supervisor"', NODE)})""",
                    "{{node}} {{part}}",
                ),
                words={"0": ("has ended", RED), "1": ("runs", GREEN)},
            ),
            states(
                "Cut off",
                "How many peers a node does not hear, on purpose.",
                Query(f"sum by (node) ({metric('shoal_link_cut', NODE)}) > bool 0", "{{node}}"),
                words={"0": ("hears everybody", GREEN), "1": ("is cut from some", RED)},
            ),
        ),
    )


def _workers() -> Part:
    return Part(
        "How the workers came back",
        (
            lines(
                "Rounds behind",
                "The open round less the newest that took the worker's update. It grows by one in each "
                "round that a worker misses, and falls to 0 at once when it is back: that is its recovery.",
                Query(BEHIND, "{{node}}"),
                unit=COUNT,
                is_stepped=True,
            ),
            bars(
                "Time to recover",
                "Seconds in which a worker was two rounds or more behind though no fault was in force any "
                "more. Whoever is always late adds up all the time.",
                Query(SECONDS_BEHIND, "{{node}}"),
                unit=SECONDS,
                steps=((None, GREEN), (5, YELLOW), (20, RED)),
            ),
            lines(
                "Updates refused, by reason",
                "All so far. `late` came after its round was over; `unfetchable` could not be had in time.",
                Query(f"sum by (outcome) ({REFUSED})", "{{outcome}}"),
                unit=COUNT,
                is_stepped=True,
                nothing="no update was refused",
            ),
            bars(
                "Silence until the aggregator answered again",
                "Mean of a worker's silences of some seconds and more, from the last sign to the next; a "
                "cut counts with all its length. Only workers that had one are shown.",
                Query(mean_so_far("shoal_control_silent_seconds", NODE, by="node"), "{{node}}"),
                unit=SECONDS,
                steps=((None, BLUE),),
                nothing="the aggregator was never silent for long",
            ),
        ),
    )


def _packets() -> Part:
    return Part(
        "Packets",
        (
            lines(
                "Cut",
                "Packets that met a cut, by the node that did not get them. None while a fault is in force "
                "means that nobody tried.",
                rate_by_node("shoal_link_cut_packets_total"),
                unit=PACKETS_PER_SECOND,
                width=8,
            ),
            lines(
                "Lost on purpose",
                "Packets that the links' loss took, by the node that did not get them.",
                rate_by_node("shoal_link_lost_packets_total"),
                unit=PACKETS_PER_SECOND,
                width=8,
            ),
            lines(
                "Queue full",
                "Packets that found their link's queue full, by sender: more was sent than the rate allows.",
                rate_by_node("shoal_link_overflowed_packets_total"),
                unit=PACKETS_PER_SECOND,
                width=8,
            ),
        ),
    )


def _links() -> Part:
    return Part(
        "Links, as asked and as they are",
        (
            _both("Latency", "latency_seconds", "One way, at the end that makes it.", SECONDS),
            _both("Rate", "rate_bits_per_second", "Of links with a limit, at the sender.", BITS_PER_SECOND),
            _both("Loss", "loss_ratio", "Share of packets, of links that lose any.", RATIO),
            lines(
                "Differences found",
                "How many differences from what was asked each node has found in its links since the start; "
                "each was repaired, and is in the history.",
                by_node(MISMATCHES),
                unit=COUNT,
                is_stepped=True,
            ),
            lines(
                "Held packets' lateness",
                "All but one of a hundred packets were let through at most so late, within the last minute. "
                "Only where the kernel has no netem and packets are held by a process.",
                Query(
                    f"histogram_quantile(0.99, sum by (le, node)"
                    f" (rate({metric('shoal_holder_lateness_seconds_bucket', NODE)}[1m])))",
                    "{{node}}",
                ),
                unit=SECONDS,
                width=FULL_WIDTH,
                nothing="no packet is held by a process",
            ),
        ),
    )


def _both(title: str, what: str, about: str, unit: str) -> AnyPanel:
    return lines(
        title,
        f"{about} Dashed is what was asked; where the lines part, the network is not the planned one.",
        Query(metric(f"shoal_link_{what}", NODE, PEER), "{{node}} {{direction}} {{peer}}"),
        Query(
            metric(f"shoal_link_intended_{what}", NODE, PEER),
            "{{node}} {{direction}} {{peer}}, asked",
            is_dashed=True,
        ),
        unit=unit,
        is_stepped=True,
        nothing=f"no link of the scenario has a {title.lower()}",
    )
