"""Weights as bytes: one spelling, and a reason for everything else."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from node.contract.messages import Refusal
from node.learning.encoding import EncodingError, Weights, check, encode, max_bytes, size_bytes

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
arrays = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4), elements=finite
)
models = st.dictionaries(st.text(min_size=1, max_size=8), arrays, max_size=5)


def model() -> Weights:
    return {
        "b.kernel": np.arange(6, dtype=np.float32).reshape(2, 3),
        "a.bias": np.ones(3, np.float32),
    }


@given(models)
def test_what_is_encoded_comes_back_in_the_models_order(weights: Weights) -> None:
    data = encode(weights)
    assert len(data) == size_bytes(weights) <= max_bytes(weights)
    back = check(data, weights)
    assert list(back) == list(weights)
    assert all(np.array_equal(back[name], weights[name]) for name in weights)
    assert encode(back) == data


def test_others_can_read_it() -> None:
    read = safetensors.numpy.load(encode(model()))
    assert {name: array.tolist() for name, array in read.items()} == {
        name: array.tolist() for name, array in model().items()
    }


@given(st.binary(max_size=300))
def test_garbage_is_refused_with_a_reason(data: bytes) -> None:
    with pytest.raises(EncodingError):
        check(data, model())


@given(st.data())
def test_every_changed_byte_of_the_header_is_refused(data: st.DataObject) -> None:
    good = bytearray(encode(model()))
    header = 8 + struct.unpack_from("<Q", good)[0]
    place = data.draw(st.integers(0, header - 1))
    good[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(EncodingError):
        check(bytes(good), model())


def changed(change: Callable[[Weights], object]) -> bytes:
    weights = model()
    change(weights)
    return encode(weights)


def with_metadata() -> bytes:
    return bytes(safetensors.numpy.save(model(), metadata={"a": "b"}))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "malformed"),
        (struct.pack("<Q", 1 << 40), "malformed"),
        (struct.pack("<Q", 2) + b"[]", "malformed"),
        (struct.pack("<Q", 9) + b'{"a": 1} ', "misshapen"),
        (struct.pack("<Q", 900) + b"[" * 900, "malformed"),
        (encode(model())[:-4], "malformed"),
        (encode(model()) + b"\0", "malformed"),
        (encode(model()) + bytes(1 << 20), "too_large"),
        (with_metadata(), "misshapen"),
        (changed(lambda w: w.pop("a.bias")), "misshapen"),
        (changed(lambda w: w.update(more=np.ones(1, np.float32))), "misshapen"),
        (changed(lambda w: w.update({"b.kernel": np.ones((3, 2), np.float32)})), "misshapen"),
        (bytes(safetensors.numpy.save({n: a.astype(np.float16) for n, a in model().items()})), "wrong_dtype"),
        (changed(lambda w: np.put(w["a.bias"], 1, np.nan)), "not_finite"),
        (changed(lambda w: np.put(w["b.kernel"], 4, -np.inf)), "not_finite"),
    ],
)
def test_refusals_name_the_reason(data: bytes, reason: Refusal) -> None:
    with pytest.raises(EncodingError) as caught:
        check(data, model())
    assert caught.value.reason == reason
    assert len(caught.value.detail) < 200


def test_arrays_that_overlap_are_refused() -> None:
    head = {
        "b.kernel": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "a.bias": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]},
    }
    text = json.dumps(head).encode()
    with pytest.raises(EncodingError, match="malformed"):
        check(struct.pack("<Q", len(text)) + text + bytes(36), model())
