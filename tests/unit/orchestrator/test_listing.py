from __future__ import annotations

from pathlib import Path

import pytest

from node.contract import UsageError
from orchestrator import TOP
from orchestrator.planning import listing
from orchestrator.planning.plan import make_plan


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    listing.begin("first", tmp_path)
    (tmp_path / "second.yaml").write_text("summery: x\n")
    return tmp_path


def test_a_broken_scenario_hides_none_of_the_others(folder: Path) -> None:
    first, second = listing.listed(folder)
    assert (first.name, first.complaint) == ("first", "")
    assert first.summary.startswith("Eight workers")
    assert (second.name, second.summary) == ("second", "")
    assert second.complaint.endswith("second.yaml:1: summery: unknown key")


def test_a_scenario_is_found_by_name_or_path(folder: Path) -> None:
    assert listing.find("first", folder) == folder / "first.yaml"
    assert listing.find(str(folder / "first.yaml")) == folder / "first.yaml"


def test_what_is_not_there_is_told(folder: Path) -> None:
    with pytest.raises(UsageError, match="no scenario 'frist'") as caught:
        listing.find("frist", folder)
    assert "perhaps you meant first" in caught.value.hint
    with pytest.raises(UsageError, match=r"there is no file \./frist\.yaml"):
        listing.find("./frist.yaml", folder)


def test_an_existing_file_is_never_touched(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"second\.yaml exists already"):
        listing.begin("second", folder)
    assert (folder / "second.yaml").read_text() == "summery: x\n"


def test_a_name_that_is_none_writes_nothing(folder: Path) -> None:
    with pytest.raises(UsageError, match="'Third one' cannot be the name of a scenario"):
        listing.begin("Third one", folder)
    with pytest.raises(UsageError, match="cannot be written: No such file"):
        listing.begin(str(folder / "absent" / "third.yaml"))
    assert len(listing.files(folder)) == 2


def test_the_front_page_tells_of_every_scenario() -> None:
    page = (TOP / "README.md").read_text()
    assert [path.stem for path in listing.files() if f"| `{path.stem}` |" not in page] == []


def test_what_the_template_has_in_comments_is_right_too(tmp_path: Path) -> None:
    text = listing.begin("first", tmp_path).read_text()
    start, end = text.index("# faults:"), text.index("# Each is held")
    faults = "".join(line.removeprefix("# ") for line in text[start:end].splitlines(keepends=True))
    faults = faults.replace("#   -", "  -")
    (tmp_path / "broken.yaml").write_text(text[:start] + faults + text[end:].replace("  # - ", "  - "))
    broken = listing.load("broken", tmp_path)
    kinds = [fault.kind for fault in make_plan(broken, None).faults]
    assert kinds == ["partition", "partition", "degrade", "flapping"]
    assert {check.kind for check in broken.checks} >= {"missing_while_cut", "recovered_within"}


def test_a_path_below_is_shown_as_a_person_would_write_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    assert listing.shown(folder / "first.yaml") == "first.yaml"
    assert listing.shown(folder.parent / "x.yaml") == str(folder.parent / "x.yaml")
