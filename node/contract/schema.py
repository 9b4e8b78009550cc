"""Dataclasses to JSON and back, strictly: a wrong, missing or unknown key is an error that names it."""

from __future__ import annotations

import dataclasses
import functools
import json
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from node.contract import UsageError

T = TypeVar("T")


def to_json(value: Any) -> Any:
    """A value of dataclasses, tuples and mappings as JSON's own types."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {_key(field.name): to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, (tuple, list)):
        return [to_json(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    return value


def canonical(value: Any) -> bytes:
    """The one spelling of a value: what is signed or hashed."""
    return json.dumps(to_json(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def from_json(kind: type[T], data: Any, where: str = "") -> T:
    """The dataclass that `data` describes; `where` is the path of keys to it, for messages."""
    if not isinstance(data, Mapping):
        raise _wrong(where, "an object", data)
    hints = _hints(kind)  # type: ignore[arg-type]
    fields = {_key(field.name): field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for key in data:
        if key not in fields:
            raise UsageError(f"{_at(where, key)}: unknown key", f"known are {', '.join(sorted(fields))}")
    values = {}
    for name, field in fields.items():
        if name in data:
            values[field.name] = _value(hints[field.name], data[name], _at(where, name))
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise UsageError(f"{_at(where, name)}: this key is missing")
    return kind(**values)


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    """Found once for each class: Python compiles every hint anew each time that it is asked."""
    return typing.get_type_hints(kind)


def _key(field_name: str) -> str:
    """`from_` is `from` in JSON: Python keeps that word for itself."""
    return field_name.removesuffix("_")


def _value(hint: Any, data: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if data is None and type(None) in arguments:
            return None
        (only,) = [argument for argument in arguments if argument is not type(None)]
        return _value(only, data, where)
    if origin is tuple:
        if not isinstance(data, (list, tuple)):
            raise _wrong(where, "a list", data)
        if arguments[-1:] == (...,):
            return tuple(_value(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(data))
        if len(arguments) != len(data):
            raise _wrong(where, f"a list of {len(arguments)}", data)
        return tuple(
            _value(a, item, f"{where}[{i}]") for i, (a, item) in enumerate(zip(arguments, data, strict=True))
        )
    if origin in (dict, Mapping) or hint is dict:
        if not isinstance(data, Mapping):
            raise _wrong(where, "an object", data)
        inner = arguments[1] if arguments else Any
        return {str(key): _value(inner, item, _at(where, key)) for key, item in data.items()}
    if origin is typing.Literal:
        if data not in arguments:
            raise _wrong(where, "one of " + ", ".join(map(repr, arguments)), data)
        return data
    if hint is Any:
        return data
    if dataclasses.is_dataclass(hint):
        return from_json(typing.cast(type[Any], hint), data, where)
    if hint is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    if not isinstance(data, hint) or (isinstance(data, bool) and hint is not bool):
        raise _wrong(where, hint.__name__, data)
    return data


def _at(where: str, key: object) -> str:
    return f"{where}.{key}" if where else str(key)


def _wrong(where: str, wanted: str, got: object) -> UsageError:
    return UsageError(f"{where or 'the whole'}: expected {wanted}, got {str(got)[:60]!r}")
