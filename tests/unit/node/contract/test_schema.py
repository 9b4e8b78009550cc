"""What is written is read back, and what is wrong is named."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.contract import UsageError
from node.contract.messages import MAX_MANIFEST_BYTES, Manifest
from node.contract.schema import canonical, from_json, to_json


@dataclass(frozen=True)
class Inner:
    word: Literal["a", "b"]
    pair: tuple[str, int] = ("x", 1)


@dataclass(frozen=True)
class Outer:
    number: float
    maybe: int | None
    inner: Inner
    many: tuple[Inner, ...] = ()
    table: dict[str, int] = field(default_factory=dict)


inners = st.builds(Inner, word=st.sampled_from(["a", "b"]), pair=st.tuples(st.text(), st.integers()))
outers = st.builds(
    Outer,
    number=st.floats(allow_nan=False),
    maybe=st.none() | st.integers(),
    inner=inners,
    many=st.lists(inners).map(tuple),
    table=st.dictionaries(st.text(), st.integers()),
)


@given(outers)
def test_what_is_written_is_read_back(value: Outer) -> None:
    assert from_json(Outer, json.loads(json.dumps(to_json(value)))) == value
    assert from_json(Outer, json.loads(canonical(value))) == value


GOOD = {"number": 1.5, "maybe": None, "inner": {"word": "a"}}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"number": "1"}, "number: expected float, got '1'"),
        ({"number": True}, "number: expected float"),
        ({"inner": {"word": "c"}}, "inner.word: expected one of 'a', 'b'"),
        ({"inner": {}}, "inner.word: this key is missing"),
        ({"inner": {"word": "a", "wrod": 1}}, "inner.wrod: unknown key"),
        ({"many": [{"word": "a"}, {"word": 3}]}, r"many\[1\].word"),
        ({"inner": {"word": "a", "pair": ["x"]}}, "inner.pair: expected a list of 2"),
        ({"table": {"k": "v"}}, "table.k: expected int"),
        ({"maybe": "x"}, "maybe: expected int"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        from_json(Outer, {**GOOD, **change})


def test_a_manifest_fits_its_bound() -> None:
    peer, cid = "12D3KooW" + "x" * 44, "b" + "a" * 58
    full = Manifest("r" * 64, 10**6, peer, cid, cid, 10**10, "safetensors/f32", 10**9, 1e-300, 1 / 3, -1 / 3)
    assert len(canonical(full)) < MAX_MANIFEST_BYTES - 200
