from __future__ import annotations

import pytest

from dashboards.metric import labels_of, metric


def test_a_series_with_matchers() -> None:
    assert metric("shoal_accuracy") == "shoal_accuracy"
    assert metric("shoal_link_cut", 'node=~"$node"', 'peer!="agg"') == (
        'shoal_link_cut{node=~"$node", peer!="agg"}'
    )


def test_the_parts_of_a_histogram_have_their_labels() -> None:
    assert labels_of("shoal_fetch_seconds_bucket") == ("what", "le", "instance", "job", "node")
    assert labels_of("shoal_fetch_seconds_sum") == ("what", "instance", "job", "node")
    assert "le" in labels_of("shoal_holder_lateness_seconds_bucket")


@pytest.mark.parametrize(
    "name",
    [
        "shoal_accurracy",  # renamed
        "shoal_train_seconds",  # a histogram has no samples of its own name
        "shoal_accuracy_sum",  # and a gauge has only those
        "ipfs_bitswap_nothing",
    ],
)
def test_what_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"there is no series {name}"):
        metric(name)


def test_a_label_that_the_series_has_not() -> None:
    with pytest.raises(ValueError, match="shoal_link_cut has no label part; it has: peer, direction, "):
        metric("shoal_link_cut", 'part="agent"')
    with pytest.raises(ValueError, match="is no matcher"):
        metric("shoal_link_cut", "peer")
