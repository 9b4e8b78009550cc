"""How is IPFS doing?"""

from __future__ import annotations

from typing import Final

from dashboards.metric import metric
from dashboards.page import NODE, Part, page
from dashboards.panel import (
    BYTES,
    BYTES_PER_SECOND,
    COUNT,
    GREEN,
    RATIO,
    RED,
    YELLOW,
    Query,
    bars,
    figure,
    lines,
)
from dashboards.queries import by_node, rate_by_node

PEERS: Final = f"sum by (node) ({metric('ipfs_p2p_peers_total', NODE)})"
RECEIVED: Final = "ipfs_bitswap_recv_all_blocks_bytes_sum"
TWICE: Final = "ipfs_bitswap_recv_dup_blocks_bytes_sum"
SENT: Final = "ipfs_bitswap_sent_all_blocks_bytes_sum"


def dashboard() -> str:
    return page(
        "ipfs",
        "How is IPFS doing?",
        "Who is connected, what bitswap moves and wants, and what the repositories hold.",
        (_now(), _bitswap(), _wants(), _swarm(), _repositories()),
    )


def _now() -> Part:
    return Part(
        "Now",
        (
            figure(
                "Fewest peers",
                "Of the node with the fewest connections. In a full mesh it is all others; 0 is a node on "
                "its own.",
                Query(f"min({PEERS})", "peers"),
                unit=COUNT,
                steps=((None, RED), (1, GREEN)),
            ),
            figure(
                "Blocks fetched",
                "By bitswap, all nodes together, since the start.",
                Query(f"sum({metric('ipfs_bitswap_blocks_received', NODE)})", "blocks"),
                unit=COUNT,
            ),
            figure(
                "Bytes fetched",
                "Blocks that came by bitswap, twice those that came twice.",
                Query(f"sum({metric(RECEIVED, NODE)})", "bytes"),
                unit=BYTES,
            ),
            figure(
                "Of it twice",
                "Share of what was fetched though it was there already: two peers sent the same.",
                Query(f"sum({metric(TWICE, NODE)}) / (sum({metric(RECEIVED, NODE)}) > 0)", "share"),
                unit=RATIO,
                decimals=1,
                steps=((None, GREEN), (0.05, YELLOW), (0.25, RED)),
            ),
            figure(
                "Repositories",
                "Size of all nodes' repositories.",
                Query(f"sum({metric('shoal_repository_bytes', NODE)})", "bytes"),
                unit=BYTES,
            ),
            figure(
                "Blocks gone bad",
                "Blocks that were found damaged on disk, removed and fetched again. The embedded daemon "
                "counts them; of Kubo nobody knows.",
                Query(f"sum({metric('shoal_ipfsd_corrupt_blocks_total', NODE)})", "blocks"),
                unit=COUNT,
                steps=((None, GREEN), (1, RED)),
                nothing="Kubo does not count them",
            ),
        ),
    )


def _bitswap() -> Part:
    return Part(
        "Bitswap: blocks",
        (
            lines(
                "Received",
                "Bytes of blocks by node. The aggregator receives updates, the workers receive the model.",
                rate_by_node(RECEIVED),
                unit=BYTES_PER_SECOND,
            ),
            lines(
                "Sent",
                "Bytes of blocks by node. A worker that sends much passes the model on to others.",
                rate_by_node(SENT),
                unit=BYTES_PER_SECOND,
            ),
            lines(
                "Blocks received",
                "All so far, by node. A step in each round: one block or some for each model and update.",
                by_node("ipfs_bitswap_blocks_received"),
                unit=COUNT,
            ),
            lines(
                "Received twice",
                "Bytes of blocks that were there already, all so far. They grow when a daemon asks a second "
                "peer because the first is slow.",
                by_node(TWICE),
                unit=BYTES,
            ),
        ),
    )


def _wants() -> Part:
    return Part(
        "Bitswap: wants",
        (
            lines(
                "Wanted now",
                "Blocks that a node waits for. A line that does not come down is a fetch that does not get "
                "on.",
                by_node("ipfs_bitswap_wantlist_total"),
                unit=COUNT,
                width=8,
                is_stepped=True,
            ),
            lines(
                "Asked of everybody",
                "Wants that a node sent to all its peers, per second: it did not know who has the block.",
                rate_by_node("ipfs_bitswap_wanthaves_broadcast"),
                unit=COUNT,
                width=8,
            ),
            lines(
                "Said to have it",
                "Peers' answers that they have a wanted block, per second.",
                rate_by_node("ipfs_bitswap_haves_received"),
                unit=COUNT,
                width=8,
            ),
            lines(
                "Tasks",
                "What peers asked of a node: waiting, and being answered. Many that wait mean a busy node "
                "or a slow link.",
                Query(f"sum by (node) ({metric('ipfs_bitswap_pending_tasks', NODE)})", "{{node}} waiting"),
                Query(f"sum by (node) ({metric('ipfs_bitswap_active_tasks', NODE)})", "{{node}} answering"),
                unit=COUNT,
            ),
            lines(
                "Messages under way",
                "Bitswap messages that a node is working on.",
                by_node("exchange_bitswap_requests_in_flight"),
                unit=COUNT,
            ),
        ),
    )


def _swarm() -> Part:
    return Part(
        "The swarm",
        (
            lines(
                "Peers",
                "Connected peers by node. After a cut it falls when the dead connections are noticed, "
                "seconds later, and rises when the peers have found each other again.",
                Query(PEERS, "{{node}}"),
                unit=COUNT,
                is_stepped=True,
            ),
            lines(
                "Connections opened",
                "All so far. After the start it should stand still but for heals.",
                Query(
                    f"sum by (node) ({metric('libp2p_swarm_connections_opened_total', NODE)})",
                    "{{node}}",
                ),
                unit=COUNT,
                is_stepped=True,
            ),
            lines(
                "Streams by protocol",
                "Open streams of all chosen nodes. Each stream of a node in the mesh has two ends.",
                Query(
                    f"""sum by (protocol) ({metric("libp2p_rcmgr_streams", 'scope="protocol"', NODE)})""",
                    "{{protocol}}",
                ),
                unit=COUNT,
            ),
            lines(
                "Dials that failed",
                "All so far, by reason. None are shown until the first. A node that is cut off dials in "
                "vain.",
                Query(
                    f"sum by (node, error) ({metric('libp2p_swarm_dial_errors_total', NODE)})",
                    "{{node}} {{error}}",
                ),
                unit=COUNT,
                is_stepped=True,
                nothing="no dial has failed",
            ),
        ),
    )


def _repositories() -> Part:
    return Part(
        "Repositories",
        (
            lines(
                "Size",
                "Of each repository. It falls when garbage is collected; without that it grows by a model "
                "and the updates in each round.",
                by_node("shoal_repository_bytes"),
                unit=BYTES,
                width=8,
            ),
            bars(
                "Blocks",
                "How many blocks each repository holds now, what others made included.",
                by_node("shoal_repository_blocks"),
                unit=COUNT,
                width=8,
            ),
            lines(
                "Memory of the daemon",
                "Resident size of the daemon itself.",
                by_node("process_resident_memory_bytes"),
                unit=BYTES,
                width=8,
            ),
        ),
    )
