"""What the documents say exists, and what exists is in them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
PAGES = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")


def targets() -> set[str]:
    said = subprocess.run(["make", "-s", "help"], cwd=TOP, capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"^  make ([a-z-]+) ", said, re.MULTILINE))


def tracked() -> list[str]:
    return subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=TOP,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()


def test_every_target_is_in_the_help() -> None:
    text = (TOP / "Makefile").read_text()
    assert targets() == set(re.findall(r"^([a-z-]+):(?!=)", text, re.MULTILINE))


@pytest.mark.parametrize("page", PAGES)
def test_every_target_that_a_page_names_exists(page: str) -> None:
    named = set(re.findall(r"(?:`|^|\$ )make ([a-z-]+)", (TOP / page).read_text(), re.MULTILINE))
    assert named
    assert named <= targets()


@pytest.mark.parametrize("page", PAGES)
def test_every_path_that_a_page_names_exists(page: str) -> None:
    paths = re.findall(r"`([a-z.]+/[\w./-]*|\w+\.(?:py|md|toml))`", (TOP / page).read_text())
    made_by_us = (".venv/", ".cache/", "runs/")
    assert [p for p in paths if not p.startswith(made_by_us) and not (TOP / p).exists()] == []


def test_the_architecture_walks_through_every_file() -> None:
    page = (TOP / "ARCHITECTURE.md").read_text()
    files = [
        path
        for path in tracked()
        if re.match(r"(orchestrator|node|aggregator|dashboards)/", path)
        and path.endswith(".py")
        and not path.endswith("__init__.py")
    ]
    assert [path for path in files if f"`{path}`" not in page] == []


def test_no_line_names_a_path_of_one_machine() -> None:
    one_machine = re.compile(r"(^|[^a-zA-Z])/(work|root|home/[a-z]+)/")
    broken = [
        f"{path}: {line.strip()}"
        for path in tracked()
        if path != "tests/unit/test_docs.py"
        for line in (TOP / path).read_text(errors="replace").splitlines()
        if one_machine.search(line)
    ]
    assert broken == []
