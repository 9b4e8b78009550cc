"""What every package may know: exit codes, errors, and names of environment variables.

Standard library only, and it imports nothing of the project: everybody may import it.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

ENV_KUBO: Final = "SHOAL_KUBO"  # path of the Kubo binary to use
ENV_IPFSD: Final = "SHOAL_IPFSD"  # path of an embedded daemon that is already built
ENV_CACHE: Final = "SHOAL_CACHE"  # the project's cache folder, instead of .cache/
ENV_BOX: Final = "SHOAL_BOX"  # set to 1 for whatever runs inside a box
ENV_DATA: Final = "SHOAL_DATA"  # a folder with local copies of data sets


class ExitCode(IntEnum):
    """The exit status of every command of the project."""

    HELD = 0
    VIOLATED = 1
    UNKNOWN = 2
    USAGE = 64
    HOST = 69
    BUG = 70


class ShoalError(Exception):
    """A complaint for a person, and apart from it the cure."""

    exit_code: ExitCode = ExitCode.BUG

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class UsageError(ShoalError):
    """The call, the scenario or a file of the user's is wrong."""

    exit_code = ExitCode.USAGE


class HostError(ShoalError):
    """This host lacks something; the hint says what cures it."""

    exit_code = ExitCode.HOST
