"""Who the parts are on the host's disk, and how files are made theirs.

The agent is root without the right to pass over permissions, the others are not root: a group is what
they have in common, and everything that they share is open to it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

NOBODYS: Final = 10001  # user and group of the parts where the orchestrator is root
FOLDER: Final = 0o2770  # what is made in it is of the group, too
FILE: Final = 0o640


@dataclass(frozen=True)
class Owner:
    """User and group of all parts; the agent is root of that group."""

    user: int
    group: int

    @staticmethod
    def of_this_host() -> Owner:
        """Ourselves, so that nothing needs root; but the parts are never root."""
        return Owner(os.getuid(), os.getgid()) if os.getuid() != 0 else Owner(NOBODYS, NOBODYS)

    @property
    def unprivileged(self) -> str:
        return f"{self.user}:{self.group}"

    @property
    def agent(self) -> str:
        return f"0:{self.group}"

    def share(self, path: Path) -> None:
        """Make a file, or a folder and all in it, theirs."""
        if path.is_dir():
            for inner in path.iterdir():
                self.share(inner)
        if os.getuid() == 0:
            os.chown(path, self.user, self.group)
        path.chmod(FOLDER if path.is_dir() else FILE)
