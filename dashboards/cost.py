"""What does it cost?"""

from __future__ import annotations

from typing import Final

from dashboards.metric import metric
from dashboards.page import NODE, Part, page
from dashboards.panel import (
    BLUE,
    BYTES,
    BYTES_PER_SECOND,
    COUNT,
    GREEN,
    RATIO,
    RED,
    SECONDS,
    YELLOW,
    Query,
    bars,
    figure,
    lines,
)
from dashboards.queries import by_node, mean_by_node, mean_so_far, rate, rate_by_node

DATA: Final = 'interface="data"'
CTL: Final = 'interface="ctl"'
MODEL: Final = 'what="model"'
RECEIVED: Final = "shoal_interface_received_bytes_total"
SENT: Final = "shoal_interface_sent_bytes_total"
STREAMS_WINDOW: Final = "20s"  # the daemon is asked every five
MODELS_MOVED: Final = (
    f"(sum({metric('shoal_fetch_seconds_count', MODEL)})"
    f""" + sum({metric("shoal_updates_total", 'outcome="accepted"')}))"""
)
OVERHEAD: Final = (
    f"sum({metric(RECEIVED, DATA)}) / (scalar(max({metric('shoal_model_bytes')})) * {MODELS_MOVED})"
)
RESIDENT: Final = metric("shoal_part_resident_bytes", NODE)
MEMORY: Final = f"{metric('shoal_part_proportional_bytes', NODE)} or {RESIDENT}"
MOST_MEMORY: Final = (
    f"{metric('shoal_part_proportional_peak_bytes', NODE)} or max_over_time({RESIDENT}[$__range])"
)
TESTBED: Final = 'part=~"agent|supervisor"'
TESTBED_SHARE: Final = (
    f"sum({metric('shoal_part_cpu_seconds_total', TESTBED)}) / sum({metric('shoal_part_cpu_seconds_total')})"
)
BELOW_STREAMS: Final = (
    f"sum by (node) ({metric(SENT, DATA, NODE)})"
    f""" / (sum by (node) ({metric("shoal_stream_bytes_total", 'direction="out"', NODE)}) > 0)"""
)


def dashboard() -> str:
    return page(
        "cost",
        "What does it cost?",
        "Bytes, seconds, processors and memory, of the training and of what surrounds it.",
        (_sum(), _bytes(), _models(), _machines()),
    )


def _sum() -> Part:
    return Part(
        "All in all",
        (
            figure(
                "Bytes on the data network",
                "What all nodes received there since the start: models, updates, data, and what carries "
                "them.",
                Query(f"sum({metric(RECEIVED, DATA)})", "received"),
                unit=BYTES,
            ),
            figure(
                "Bytes of the observer",
                "What all nodes sent on the control network: series, events, orders. It crosses no shaped "
                "link.",
                Query(f"sum({metric(SENT, CTL)})", "sent"),
                unit=BYTES,
            ),
            figure(
                "Model",
                "Size of the model that a round begins with.",
                Query(f"max({metric('shoal_model_bytes')})", "model"),
                unit=BYTES,
            ),
            figure(
                "Overhead against model size",
                "Bytes received on the data network for each byte of a model that was fetched or of an "
                "update that was accepted. 1 would be nothing but models; the workers' data at the start "
                "are in it, too.",
                Query(OVERHEAD, "overhead"),
                unit=COUNT,
                decimals=2,
                steps=((None, GREEN), (2, YELLOW), (4, RED)),
            ),
            figure(
                "Processor time",
                "Of all parts of all nodes since the start.",
                Query(f"sum({metric('shoal_part_cpu_seconds_total')})", "processor time"),
                unit=SECONDS,
            ),
            figure(
                "Of it the testbed's own",
                "Share of agents and supervisors in it. They cost the same however large the model, so in "
                "small experiments it is a large share.",
                Query(TESTBED_SHARE, "share"),
                unit=RATIO,
                decimals=1,
                steps=((None, BLUE),),
            ),
        ),
    )


def _bytes() -> Part:
    return Part(
        "Bytes",
        (
            lines(
                "Received by node, data network",
                "What arrives after losses and cuts. At a rate's limit the line is flat.",
                rate_by_node(RECEIVED, DATA),
                unit=BYTES_PER_SECOND,
            ),
            lines(
                "Sent by node, data network",
                "What goes out after shaping. Whoever has the model sends most at a round's beginning.",
                rate_by_node(SENT, DATA),
                unit=BYTES_PER_SECOND,
            ),
            lines(
                "Sent by protocol",
                "Payload of libp2p streams: bitswap carries models and updates, rounds carries the small "
                "messages between trainers and aggregator. Mean of twenty seconds.",
                Query(
                    rate(
                        "shoal_stream_bytes_total",
                        'direction="out"',
                        NODE,
                        by="protocol",
                        window=STREAMS_WINDOW,
                    ),
                    "{{protocol}}",
                ),
                unit=BYTES_PER_SECOND,
                is_stacked=True,
            ),
            lines(
                "By interface",
                "Sent by the chosen nodes on each interface. `ifb-data` is where a line's way down is "
                "shaped, `lo` is between the parts of a node.",
                Query(rate(SENT, NODE, by="interface"), "{{interface}}"),
                unit=BYTES_PER_SECOND,
            ),
            bars(
                "Sent so far, by protocol",
                "The same payload since the start.",
                Query(
                    f"""sum by (protocol) ({metric("shoal_stream_bytes_total", 'direction="out"', NODE)})""",
                    "{{protocol}}",
                ),
                unit=BYTES,
            ),
            bars(
                "Bytes on the wire for each byte of payload",
                "What a node sent on the data network against its streams' payload. Encryption and headers "
                "are some percent; the rest is what was sent again, and probes of the links.",
                Query(BELOW_STREAMS, "{{node}}"),
                unit=COUNT,
                steps=((None, GREEN), (1.5, YELLOW), (3, RED)),
            ),
        ),
    )


def _models() -> Part:
    return Part(
        "Models and updates under way",
        (
            lines(
                "Fetching the model",
                "Mean of the fetches that ended within the last minute, by worker.",
                mean_by_node("shoal_fetch_seconds", MODEL),
                unit=SECONDS,
            ),
            lines(
                "Fetching the model, nine of ten",
                "Nine of ten fetches of the last five minutes took at most so long.",
                Query(
                    f"histogram_quantile(0.9, sum by (le)"
                    f" (increase({metric('shoal_fetch_seconds_bucket', MODEL, NODE)}[5m])))",
                    "nine of ten",
                ),
                unit=SECONDS,
            ),
            bars(
                "Fetching by object",
                "Mean of all so far: a worker's own data once, the model in each round.",
                Query(mean_so_far("shoal_fetch_seconds", NODE, by="what"), "{{what}}"),
                unit=SECONDS,
            ),
            lines(
                "Handing in the update",
                "Storing and signing it, mean of the last minute, by worker; the aggregator fetches it "
                "afterwards.",
                mean_by_node("shoal_upload_seconds"),
                unit=SECONDS,
            ),
        ),
    )


def _machines() -> Part:
    return Part(
        "Processors and memory",
        (
            lines(
                "Processors by part",
                "How many are busy with each part, of the chosen nodes together.",
                Query(rate("shoal_part_cpu_seconds_total", NODE, by="part"), "{{part}}"),
                unit=COUNT,
                is_stacked=True,
            ),
            lines(
                "Processors by node",
                "How many are busy with each node. At the limit of its class the line is flat.",
                rate_by_node("shoal_part_cpu_seconds_total"),
                unit=COUNT,
            ),
            lines(
                "Memory by part",
                "Proportional size, in which what several processes share is counted once. In containers "
                "an agent may not see it of other parts: then it is the resident size, with all that is "
                "shared.",
                Query(f"sum by (part) ({MEMORY})", "{{part}}"),
                unit=BYTES,
                is_stacked=True,
            ),
            lines(
                "Memory by node",
                "The same by node, and the largest that was seen of its parts, added up.",
                Query(f"sum by (node) ({MEMORY})", "{{node}}"),
                Query(f"sum by (node) ({MOST_MEMORY})", "{{node}}, peaks", is_dashed=True),
                unit=BYTES,
            ),
            lines(
                "Scraping",
                "How long Prometheus waits for a node's series. Near the interval between two scrapes it is "
                "too long, and samples are missing.",
                by_node("scrape_duration_seconds"),
                unit=SECONDS,
            ),
            lines(
                "Samples of a scrape",
                "How many series a node shows.",
                by_node("scrape_samples_scraped"),
                unit=COUNT,
            ),
        ),
    )
