"""The profiles in scenarios/profiles/: links and lines as somebody measured or specified them, by name."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from orchestrator import TOP
from orchestrator.planning import document
from orchestrator.planning.document import Item
from orchestrator.planning.keys import MATRIX, RULE

FOLDER: Final = TOP / "scenarios" / "profiles"
LINE: Final = ("up", "down")
TOLD: Final = ("summary", "source", "assumed")
FROM_THE_SCENARIO: Final = ("profile", "trace", "trace_repeats")  # these a profile cannot say
KEYS: Final = (*TOLD, *LINE, *(key for key in RULE if key not in FROM_THE_SCENARIO), "matrix")


@dataclass(frozen=True)
class Profile:
    """One file. `rule` are keys of links, `line` of a node's own line, `matrix` of links between regions."""

    name: str
    summary: str
    source: str  # who published the figures
    assumed: str  # which of them are nobody's but ours
    rule: Mapping[str, Item]
    line: Mapping[str, Item]
    matrix: Item | None = None


def names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def named(item: Item, is_matrix: bool = False) -> Profile:
    """The profile whose name stands in a scenario."""
    profile = load(item.word(names()))
    if is_matrix and profile.matrix is None:
        raise item.error(
            f"{profile.name} says nothing of regions",
            f"write: network: {{default: {{profile: {profile.name}}}}}",
        )
    if not is_matrix and profile.matrix is not None:
        raise item.error(
            f"{profile.name} is a matrix of regions",
            f"write: network: {{matrix: {{profile: {profile.name}}}}}",
        )
    return profile


@functools.cache
def load(name: str) -> Profile:
    """Read one of the project's own profiles."""
    root = document.load(FOLDER / f"{name}.yaml", f"scenarios/profiles/{name}.yaml")
    keys = root.section(KEYS)
    matrix = keys.get("matrix")
    if matrix is not None:
        matrix.section(MATRIX)
    return Profile(
        name=name,
        summary=root.required("summary").text(),
        source=root.required("source").text(),
        assumed=keys["assumed"].text() if "assumed" in keys else "",
        rule={key: entry for key, entry in keys.items() if key in RULE},
        line={key: entry for key, entry in keys.items() if key in LINE},
        matrix=matrix,
    )
