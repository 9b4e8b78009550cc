"""The encoding `safetensors/f32`: model weights as bytes, one spelling for one set of weights."""

from __future__ import annotations

import json
import struct
from typing import Final

import numpy as np
import numpy.typing as npt

from node.contract.messages import Refusal

Floats = npt.NDArray[np.float32]
Weights = dict[str, Floats]  # by name; the order of insertion is the model's own

# What may come beyond the exact size, so that a near miss is refused for its true reason.
SLACK_BYTES: Final = 1024
_ALIGNMENT: Final = 8  # safetensors pads its header so that the arrays begin at a multiple of this


class EncodingError(ValueError):
    """These bytes are not weights of the wanted model."""

    def __init__(self, reason: Refusal, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def encode(weights: Weights) -> bytes:
    """A safetensors file with the arrays in the order of the model and no metadata."""
    body = [np.ascontiguousarray(array, dtype="<f4").tobytes() for array in weights.values()]
    return _head({name: np.shape(array) for name, array in weights.items()}) + b"".join(body)


def size_bytes(template: Weights) -> int:
    """How long every encoding of this model is."""
    return len(_head({name: array.shape for name, array in template.items()})) + 4 * sum(
        array.size for array in template.values()
    )


def max_bytes(template: Weights) -> int:
    """Beyond this nothing is fetched."""
    return size_bytes(template) + SLACK_BYTES


def check(data: bytes, template: Weights) -> Weights:
    """The weights in `data`, which must be finite and of the template's names, shapes and dtype."""
    if len(data) > max_bytes(template):
        raise EncodingError("too_large", f"{len(data)} bytes, where {size_bytes(template)} are right")
    entries, start = _entries(data)
    if missing := [name for name in template if name not in entries]:
        raise EncodingError("misshapen", f"{missing[0]} is missing")
    for name, entry in entries.items():
        if name not in template:
            raise EncodingError("misshapen", f"the model has no {name[:60]!r}")
        shape = list(template[name].shape)
        if not isinstance(entry, dict):
            raise EncodingError("malformed", f"{name} is not described by an object")
        if entry.get("dtype") != "F32":
            raise EncodingError("wrong_dtype", f"{name} is {str(entry.get('dtype'))[:20]}, not F32")
        if entry.get("shape") != shape:
            raise EncodingError("misshapen", f"{name} is {str(entry.get('shape'))[:60]}, not {shape}")
    # All that is left to differ is the spelling of the header, and there is one right one.
    if data[:start] != _head({name: array.shape for name, array in template.items()}):
        raise EncodingError("malformed", "the header is not the one spelling of this model's")
    if len(data) != size_bytes(template):
        raise EncodingError("malformed", f"{len(data)} bytes, where {size_bytes(template)} are right")
    weights: Weights = {}
    for name, array in template.items():
        values = np.frombuffer(data, dtype="<f4", count=array.size, offset=start).reshape(array.shape)
        if not np.isfinite(values).all():
            raise EncodingError("not_finite", f"{name} has a value that is not finite")
        weights[name] = values
        start += values.nbytes
    return weights


def _head(shapes: dict[str, tuple[int, ...]]) -> bytes:
    """The file's beginning: the header's length and the header."""
    header, offset = {}, 0
    for name, shape in shapes.items():
        end = offset + 4 * int(np.prod(shape, dtype=np.int64))
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return struct.pack("<Q", len(text)) + text


def _entries(data: bytes) -> tuple[dict[str, object], int]:
    """The header's entries, and where the arrays begin."""
    if len(data) < 8:
        raise EncodingError("malformed", f"{len(data)} bytes are no safetensors file")
    (length,) = struct.unpack_from("<Q", data)
    if length > len(data) - 8:
        raise EncodingError("malformed", "the header is longer than the file")
    try:
        entries = json.loads(data[8 : 8 + length])
    except (ValueError, RecursionError) as err:
        raise EncodingError("malformed", "the header is no JSON") from err
    if not isinstance(entries, dict):
        raise EncodingError("malformed", "the header is no JSON object")
    return entries, 8 + length
