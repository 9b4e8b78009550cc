"""python -m dashboards: write every dashboard's JSON beside this file, as it is committed."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from dashboards import cost, ipfs, learning, recovery

FOLDER: Final = Path(__file__).parent


def made() -> dict[str, str]:
    """File names and what belongs into them."""
    return {
        "learning.json": learning.dashboard(),
        "cost.json": cost.dashboard(),
        "recovery.json": recovery.dashboard(),
        "ipfs.json": ipfs.dashboard(),
    }


if __name__ == "__main__":
    for name, text in made().items():
        (FOLDER / name).write_text(text)
