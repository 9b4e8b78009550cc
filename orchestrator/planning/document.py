"""A YAML file as a tree in which everything knows its line and its path of keys.

YAML's surprises stay out: scalars are kept as written (no `yes` that turns into true), and
duplicate keys, anchors, tags and further documents are refused.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import yaml

from node.contract import UsageError
from orchestrator import nearest
from orchestrator.units import Quantity

MOST_BYTES = 1 << 20
MOST_DEPTH = 16
_NOTHING = ("", "~", "null", "Null", "NULL")


@dataclass(frozen=True)
class Item:
    """One value, and where it stands. Something under a key has the line of the key."""

    value: str | list[Item] | dict[str, Item] | None
    file: str
    line: int
    path: str

    def error(self, message: str, hint: str = "") -> UsageError:
        """A complaint about this value."""
        where = f"{self.file}:{self.line}: " + (f"{self.path}: " if self.path else "")
        return UsageError(where + message, hint)

    @contextlib.contextmanager
    def located(self) -> Iterator[None]:
        """A complaint from within is about this value."""
        try:
            yield
        except UsageError as error:
            raise self.error(error.message, error.hint) from error

    def mapping(self) -> dict[str, Item]:
        """Keys and values, whatever the keys."""
        if not isinstance(self.value, dict):
            raise self._wrong("keys with values")
        return self.value

    def section(self, keys: Sequence[str]) -> Mapping[str, Item]:
        """Keys and values; an unknown key is refused."""
        entries = self.mapping()
        for key, item in entries.items():
            if key not in keys:
                raise item.error("unknown key", nearest.hint(key, keys))
        return entries

    def required(self, key: str) -> Item:
        """What stands under a key that must be there."""
        entries = self.mapping()
        if key not in entries:
            raise self.error(f"the key {key} is missing")
        return entries[key]

    def items(self) -> list[Item]:
        """The entries of a list."""
        if not isinstance(self.value, list):
            raise self._wrong("a list")
        return self.value

    def text(self) -> str:
        """A scalar as written."""
        if not isinstance(self.value, str):
            raise self._wrong("a single value")
        return self.value.strip()

    def word(self, known: Sequence[str]) -> str:
        """One of some words."""
        word = self.text()
        if word not in known:
            raise self.error(f"{word!r} is not known here", nearest.hint(word, known))
        return word

    def integer(self, least: int, most: int) -> int:
        """A whole number within bounds."""
        text = self.text()
        if not re.fullmatch(r"[+-]?[0-9]{1,18}", text):
            raise self.error(f"expected a whole number, got {text[:40]!r}")
        if not least <= int(text) <= most:
            raise self.error(f"{text} is out of range", f"from {least} to {most}")
        return int(text)

    def number(self, least: float, most: float) -> float:
        """A number within bounds."""
        text = self.text()
        if not re.fullmatch(r"[+-]?[0-9]{1,18}(\.[0-9]{1,18})?([eE][+-]?[0-9]{1,2})?", text):
            raise self.error(f"expected a number, got {text[:40]!r}")
        if not least <= float(text) <= most:
            raise self.error(f"{text} is out of range", f"from {least:g} to {most:g}")
        return float(text)

    def quantity(
        self, kind: Quantity, least: Decimal | int = 0, most: Decimal | int | None = None
    ) -> Decimal:
        """A value with its unit, in the base unit."""
        text = self.text()
        with self.located():
            value = kind.read(text)
            if value < least or (most is not None and value > most):
                bound = f", at most {kind.show(most)}" if most is not None else ""
                raise UsageError(f"{text} is out of range", f"at least {kind.show(least)}{bound}")
        return value

    def _wrong(self, wanted: str) -> UsageError:
        got = {dict: "keys with values", list: "a list", str: repr(self.value)[:60], type(None): "nothing"}
        return self.error(f"expected {wanted}, got {got[type(self.value)]}")


def load(path: Path, shown: str) -> Item:
    """Read a file; `shown` is what complaints call it."""
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{shown}: cannot be read: {error.strerror}") from error
    if len(data) > MOST_BYTES:
        raise UsageError(f"{shown}: more than {MOST_BYTES} bytes; this is no scenario")
    try:
        return parse(data.decode(), shown)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{shown}:{line}: this is not UTF-8") from error


def parse(text: str, shown: str) -> Item:
    """The tree of a text with one document in it."""
    try:
        return _Builder(yaml.parse(text, Loader=yaml.SafeLoader), shown).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        said = error.problem or error.context or "it cannot be read"
        raise UsageError(f"{shown}:{line}: this is not YAML: {said}", _yaml_hint(text, line)) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise UsageError(f"{shown}:{line}: a character that YAML forbids: {error.character!r}") from error


def _yaml_hint(text: str, line: int) -> str:
    lines = text.splitlines()
    if line <= len(lines) and "\t" in lines[line - 1]:
        return "indent with spaces, not tabs"
    return "see that brackets are closed and that keys of one level begin in one column"


class _Builder:
    """Turns PyYAML's events into items."""

    def __init__(self, events: Iterator[yaml.Event], shown: str) -> None:
        self._events = events
        self._shown = shown

    def document(self) -> Item:
        next(self._events)  # the stream
        if isinstance(next(self._events), yaml.StreamEndEvent):
            raise UsageError(f"{self._shown}: the file is empty", "`shoal new NAME` writes one to begin with")
        root = self._item(next(self._events), "", 0, None)
        next(self._events)  # the document's end
        further = next(self._events)
        if not isinstance(further, yaml.StreamEndEvent):
            raise self._at(further, "").error("a second document begins here", "one file, one scenario")
        return root

    def _item(self, event: yaml.Event, path: str, depth: int, key_line: int | None) -> Item:
        here = self._at(event, path)
        line = key_line or here.line
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise here.error("anchors and aliases are not taken", "write the value out")
        if getattr(event, "tag", None):
            raise here.error("tags are not taken", "write the plain value")
        if depth > MOST_DEPTH:
            raise here.error(f"nested more than {MOST_DEPTH} deep")
        if isinstance(event, yaml.ScalarEvent):
            is_nothing = event.style is None and event.value in _NOTHING
            return Item(None if is_nothing else event.value, self._shown, line, path)
        value: list[Item] | dict[str, Item]
        if isinstance(event, yaml.SequenceStartEvent):
            value = list(self._entries(path, depth))
        else:
            value = self._keys(path, depth)
        return Item(value, self._shown, line, path)

    def _entries(self, path: str, depth: int) -> Iterator[Item]:
        index = 0
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            yield self._item(event, f"{path}[{index}]", depth + 1, None)
            index += 1

    def _keys(self, path: str, depth: int) -> dict[str, Item]:
        found: dict[str, Item] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._item(event, path, depth + 1, None)
            if not isinstance(key.value, str):
                raise key.error("a key must be a plain word")
            below = f"{path}.{key.value}" if path else key.value
            if key.value in found:
                raise Item(None, self._shown, key.line, below).error(
                    "this key stands twice", f"the first is in line {found[key.value].line}"
                )
            found[key.value] = self._item(next(self._events), below, depth + 1, key.line)
        return found

    def _at(self, event: yaml.Event, path: str) -> Item:
        return Item(None, self._shown, _line(event), path)


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1
