from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.contract import UsageError
from orchestrator.planning import document


def test_everything_knows_its_line_and_path() -> None:
    root = document.parse("a: 1\nb:\n  - x\n  -\n    c: yes\n", "s.yaml")
    entry = root.mapping()["b"].items()[1].mapping()["c"]
    assert (entry.line, entry.path, entry.text()) == (5, "b[1].c", "yes")
    assert str(entry.error("no", "cure")) == "s.yaml:5: b[1].c: no\n  cure"


def test_something_under_a_key_has_the_line_of_the_key() -> None:
    assert document.parse("a:\n\n  b: 1\n", "s.yaml").mapping()["a"].line == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "s.yaml: the file is empty"),
        ("# nothing\n", "s.yaml: the file is empty"),
        ("a: 1\na: 2\n", "s.yaml:2: a: this key stands twice\n  the first is in line 1"),
        ("a: &x 1\nb: *x\n", "s.yaml:1: a: anchors and aliases"),
        ("a: !!python/object:os.system 1\n", "s.yaml:1: a: tags are not taken"),
        ("a: 1\n---\nb: 2\n", "s.yaml:2: a second document"),
        ("a: [1, 2\n", "s.yaml:2: this is not YAML"),
        ("a:\n\tb: 1\n", "s.yaml:2: this is not YAML.*\n  indent with spaces, not tabs"),
        ("{[a]: 1}\n", "s.yaml:1: a key must be a plain word"),
        ("a: 1\nb: \x07\n", "s.yaml:2: a character that YAML forbids"),
        ("[" * 500, "s.yaml:1: .*nested more than"),
    ],
)
def test_what_is_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        document.parse(text, "s.yaml")
    assert re.match(said, str(caught.value)), str(caught.value)


@pytest.mark.parametrize("value", ["", "~", "null"])
def test_nothing_is_no_value(value: str) -> None:
    item = document.parse(f"a: {value}\n", "s.yaml").mapping()["a"]
    with pytest.raises(UsageError, match="expected a single value, got nothing"):
        item.text()


def test_a_quoted_nothing_is_text() -> None:
    assert document.parse("a: 'null'\n", "s.yaml").mapping()["a"].text() == "null"


@pytest.mark.parametrize("text", ["1_000", "1:30", "0x10", "1e3", "1.0", "true", "٣", "9" * 30])
def test_what_yaml_might_take_for_a_whole_number_is_none(text: str) -> None:
    with pytest.raises(UsageError, match="expected a whole number"):
        document.parse(f"a: {text}\n", "s.yaml").mapping()["a"].integer(0, 10**18)


@pytest.mark.parametrize(
    ("text", "said"), [("0.4", "out of range"), ("3", "out of range"), (".inf", "a number")]
)
def test_a_number_has_bounds(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        document.parse(f"a: {text}\n", "s.yaml").mapping()["a"].number(0.5, 2.5)


def test_files_that_cannot_be_scenarios(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"a: 1\nb: \xe4\n")
    (tmp_path / "large.yaml").write_bytes(b"#" * (document.MOST_BYTES + 1))
    for name, said in [
        ("latin.yaml", "x:2: this is not UTF-8"),
        ("large.yaml", "x: more than"),
        ("absent.yaml", "x: cannot be read: No such file"),
        (".", "x: cannot be read: Is a directory"),
    ]:
        with pytest.raises(UsageError, match=said):
            document.load(tmp_path / name, "x")


@given(st.text(alphabet="ab:-[]{}&*!|>'\"#?,% \n\t0\x00é", max_size=60) | st.text(max_size=40))
def test_any_text_is_a_tree_or_a_complaint_with_the_file(text: str) -> None:
    complaint = "s.yaml:"
    try:
        document.parse(text, "s.yaml")
    except UsageError as error:
        complaint = error.message
    assert complaint.startswith("s.yaml:")
