"""Who may import whom."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
PACKAGES = ("node", "aggregator", "orchestrator", "dashboards")
ALLOWED = {
    "node": {"node"},
    "aggregator": {"aggregator", "node"},
    "orchestrator": {"orchestrator", "node.contract", "node.links.table"},
    "dashboards": {"dashboards", "node.contract"},
}


def statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """All of them, wherever they stand; expressions hold no imports, and are most of a tree."""
    for statement in body:
        yield statement
        for field in ("body", "orelse", "finalbody"):
            yield from statements(getattr(statement, field, []))
        for inner in (*getattr(statement, "handlers", ()), *getattr(statement, "cases", ())):
            yield from statements(inner.body)


def imported(path: Path) -> set[str]:
    """The project's modules that a file imports, each by its full name."""
    names: set[str] = set()
    for element in statements(ast.parse(path.read_text(), str(path)).body):
        if isinstance(element, ast.Import):
            names |= {alias.name for alias in element.names}
        elif isinstance(element, ast.ImportFrom):
            assert element.level == 0, f"{path}: a relative import"
            assert element.module is not None
            names |= {f"{element.module}.{alias.name}" for alias in element.names}
    return {name for name in names if name.partition(".")[0] in PACKAGES}


def within(name: str, allowed: set[str]) -> bool:
    return any(name == one or name.startswith(f"{one}.") for one in allowed)


@pytest.mark.parametrize("package", PACKAGES)
def test_the_import_law(package: str) -> None:
    files = list((TOP / package).rglob("*.py"))
    assert files
    broken = [
        f"{path.relative_to(TOP)} imports {name}"
        for path in files
        for name in sorted(imported(path))
        if not within(name, ALLOWED[package])
    ]
    assert broken == []


def test_only_the_runner_starts_processes() -> None:
    # set-up and init run apart from the rest: before the environment exists, and as PID 1 of a box.
    apart = {"process.py", "setup.py", "init.py"}
    starters = ("subprocess.run", "subprocess.Popen", "os.fork", "os.system", "subprocess.check")
    broken = [
        f"{path.name}: {starter}"
        for path in (TOP / "orchestrator").rglob("*.py")
        if path.name not in apart
        for starter in starters
        if starter in path.read_text()
    ]
    assert broken == []
