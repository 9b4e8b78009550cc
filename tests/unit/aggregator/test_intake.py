from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.intake import MAX_DETAIL_CHARS, RefusedError, read_signed
from node.contract.messages import ENCODING, Manifest, Signed
from node.contract.schema import to_json

MANIFEST = Manifest("run", 1, "peer", "base", "update", 100, ENCODING, 50, 0.1, 0.2, 0.3)


def message(**changes: Any) -> bytes:
    manifest = {**to_json(MANIFEST), **changes}
    return json.dumps({"manifest": manifest, "signature": "uAAAA"}).encode()


def test_a_message_is_read() -> None:
    assert read_signed(message()) == Signed(MANIFEST, "uAAAA")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "malformed"),
        (b"[" * 2000, "malformed"),
        (b"[]", "malformed"),
        (b"\xff", "malformed"),
        (b'{"manifest": {}}', "unsigned"),
        (b'{"manifest": {}, "signature": 7}', "unsigned"),
        (b'{"manifest": {}, "signature": "zAAAA"}', "unsigned"),
        (b'{"manifest": {}, "signature": "uAAAA"}', "malformed"),
        (message(loss=10**400), "malformed"),
        (message(round="1"), "malformed"),
        (message(round=True), "malformed"),
        (message(more=1), "malformed"),
        (message(examples=-1), "malformed"),
        (message(examples=10**12), "malformed"),
        (message(base="b" * 1000), "malformed"),
        (message(run="\ud800"), "malformed"),
    ],
)
def test_what_cannot_be_read_is_refused(body: bytes, reason: str) -> None:
    with pytest.raises(RefusedError) as refused:
        read_signed(body)
    assert refused.value.reason == reason
    assert len(refused.value.detail) <= MAX_DETAIL_CHARS


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(sorted(to_json(MANIFEST))), VALUES, max_size=4))
def test_no_message_breaks_the_reader(changes: dict[str, Any]) -> None:
    try:
        signed = read_signed(message(**changes))
    except RefusedError:
        return
    assert to_json(signed.manifest).keys() == to_json(MANIFEST).keys()


@given(st.binary(max_size=300))
def test_no_bytes_break_the_reader(body: bytes) -> None:
    with pytest.raises(RefusedError):
        read_signed(body)
