"""Names in queries: each is looked up, so that a series that is renamed breaks the dashboards at once."""

from __future__ import annotations

import re
from typing import Final

from node.contract.series import SERIES

SCRAPED: Final = ("instance", "job", "node")  # labels that Prometheus adds
HISTOGRAM_PARTS: Final = {"_bucket": ("le",), "_sum": (), "_count": ()}
MATCHER: Final = re.compile(r'(\w+)(=~|!~|!=|=)"[^"]*"')

# What else is shown, with its labels: the daemons' own series, named as by Kubo, and Prometheus' own.
OTHERS: Final[dict[str, tuple[str, ...]]] = {
    "exchange_bitswap_requests_in_flight": (),
    "ipfs_bitswap_pending_tasks": (),
    "ipfs_bitswap_active_tasks": (),
    "ipfs_bitswap_haves_received": (),
    "ipfs_bitswap_blocks_received": (),
    "ipfs_bitswap_wanthaves_broadcast": (),
    "ipfs_bitswap_wantlist_total": (),
    "ipfs_bitswap_recv_all_blocks_bytes_sum": (),
    "ipfs_bitswap_recv_dup_blocks_bytes_sum": (),
    "ipfs_bitswap_sent_all_blocks_bytes_sum": (),
    "ipfs_p2p_peers_total": ("transport",),
    "libp2p_rcmgr_streams": ("dir", "scope", "protocol"),
    "libp2p_swarm_connections_opened_total": ("dir", "transport", "security", "muxer", "ip_version"),
    "libp2p_swarm_dial_errors_total": ("transport", "error", "ip_version"),
    "process_resident_memory_bytes": (),
    "shoal_ipfsd_corrupt_blocks_total": (),  # of the embedded daemon alone
    "scrape_duration_seconds": (),
    "scrape_samples_scraped": (),
    "up": (),
}


def metric(name: str, *matchers: str) -> str:
    """A selector of a series that there is, by labels that it has."""
    labels = labels_of(name)
    for matcher in matchers:
        found = MATCHER.fullmatch(matcher)
        if found is None:
            raise ValueError(f"{matcher} is no matcher of labels")
        if found[1] not in labels:
            raise ValueError(f"{name} has no label {found[1]}; it has: {', '.join(labels)}")
    return name + (f"{{{', '.join(matchers)}}}" if matchers else "")


def labels_of(name: str) -> tuple[str, ...]:
    """What a series is told apart by, once it is scraped."""
    base, _, part = re.fullmatch("(.*?)((_bucket|_sum|_count)?)", name).groups()  # type: ignore[union-attr]
    series = SERIES.get(base)
    if series is not None and (series.kind == "histogram") == bool(part):
        return (*series.labels, *(HISTOGRAM_PARTS[part] if part else ()), *SCRAPED)
    if name in SERIES and SERIES[name].kind != "histogram":
        return (*SERIES[name].labels, *SCRAPED)
    if name in OTHERS:
        return (*OTHERS[name], *SCRAPED)
    raise ValueError(f"there is no series {name}; they are in node/contract/series.py and in {__name__}")
