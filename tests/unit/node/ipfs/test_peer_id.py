from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.ipfs.peer_id import DIGITS, is_peer_id

ED25519 = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"
HASHED = "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"


@pytest.mark.parametrize("text", [ED25519, HASHED])
def test_both_kinds(text: str) -> None:
    assert is_peer_id(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        ED25519[:-1],
        ED25519 + "A",
        ED25519[:-1] + "0",
        " " + ED25519,
        HASHED[1:],
        "1" + HASHED,
        "k51",
    ],
)
def test_what_is_none(text: str) -> None:
    assert not is_peer_id(text)


@given(st.text(max_size=80) | st.text(DIGITS, max_size=80))
def test_no_text_breaks_it(text: str) -> None:
    assert is_peer_id(text) in (True, False)
