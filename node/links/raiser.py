"""Lets a node's holder of packets come before all others, for an agent that may not have that itself.

It runs in the container that keeps the node's namespaces, with CAP_SYS_NICE alone, and does the same for
each holder that comes after: that of a restarted agent, or one that was started again.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from node.links import priority

PROC: Final = Path("/proc")
POLL_S: Final = 0.1  # only while there is no holder


def run(proc: Path = PROC) -> None:
    """For ever."""
    while True:
        for pid in holders(proc):
            raise_until_ended(pid)
        time.sleep(POLL_S)


def holders(proc: Path) -> Iterator[int]:
    """Root's processes of that name: whoever else takes it, such as a user's own task, is not raised."""
    for folder in proc.glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            told = (folder / "status").read_text(errors="replace")  # a name may be any bytes
            status = dict(line.split(":", 1) for line in told.split("\n") if line)
            if status["Name"].strip() == priority.HOLDER_NAME and set(status["Uid"].split()) == {"0"}:
                yield int(folder.name)


def raise_until_ended(pid: int) -> None:
    """Wait for its end also when it cannot be raised: it says itself that it does not come first."""
    with contextlib.suppress(ProcessLookupError):  # as above
        ended = os.pidfd_open(pid)
        try:
            priority.lend(pid)
        except ProcessLookupError:
            pass
        except OSError as error:  # nobody may, or too many have
            print(f"the holder of packets, process {pid}, cannot be raised: {error.strerror}", flush=True)
        finally:
            select.select([ended], [], [])
            os.close(ended)


if __name__ == "__main__":
    run()
