"""Runs tests in several copies of a pytest that has collected them: python -m pytest -p tests.forked --forks N FOLDER

Importing and collecting is then done once, and one copy's waits are another's processor time. A copy takes a file's
tests, runs them, and takes the next file's. What it finds comes back in pytest's own words, and is told here.
"""

from __future__ import annotations

import os
import pickle
import selectors
import signal
import struct
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import pytest
from _pytest.runner import runtestprotocol

PLACE = struct.Struct("=I")  # of a file among the files, or of a report's end
MOST_FILES = 16_000  # what a pipe takes at once: a page less than 64 KiB


@dataclass
class Copy:
    pid: int
    said: int
    unread: bytearray = field(default_factory=bytearray)

    def reports(self) -> Iterator[bytes]:
        while len(self.unread) >= PLACE.size:
            end = PLACE.size + PLACE.unpack_from(self.unread)[0]
            if len(self.unread) < end:
                return
            yield bytes(self.unread[PLACE.size : end])
            del self.unread[:end]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--forks", type=int, default=0, metavar="N", help="run the tests in N copies of this process"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    if session.config.option.forks < 1 or session.config.option.collectonly or session.testsfailed:
        return None  # as without this
    files = [list(tests) for _, tests in groupby(session.items, key=lambda item: item.path)]
    files.sort(key=len, reverse=True)  # what takes long does not come last
    copies = _copies(session, files, min(session.config.option.forks, len(files)))
    try:
        _tell(session, copies)
    finally:
        for copy in copies:  # none, unless something ended this before its time
            os.kill(copy.pid, signal.SIGINT)
            os.waitpid(copy.pid, 0)
    return True


def _copies(session: pytest.Session, files: Sequence[Sequence[pytest.Item]], count: int) -> list[Copy]:
    assert len(files) <= MOST_FILES
    waiting, places = os.pipe()
    os.write(places, b"".join(PLACE.pack(place) for place in range(len(files))))
    os.close(places)
    copies = []
    for _ in range(count):
        said, say = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                _run(session, files, waiting, say)
            finally:
                raised = sys.exception()
                if raised is not None:
                    traceback.print_exception(raised)
                os._exit(0 if raised is None else 1)
        os.close(say)
        copies.append(Copy(pid, said))
    os.close(waiting)
    return copies


def _run(session: pytest.Session, files: Sequence[Sequence[pytest.Item]], waiting: int, say: int) -> None:
    """What a copy does."""
    config = session.config
    capture = config.pluginmanager.getplugin("capturemanager")
    assert capture is not None
    capture.stop_global_capturing()  # into files that all copies would share
    capture.start_global_capturing()
    try:
        while place := os.read(waiting, PLACE.size):
            tests = files[PLACE.unpack(place)[0]]
            for test, following in zip(tests, [*tests[1:], None], strict=True):
                for report in runtestprotocol(test, log=False, nextitem=following):
                    data = pickle.dumps(
                        config.hook.pytest_report_to_serializable(config=config, report=report)
                    )
                    with open(say, "wb", closefd=False) as out:
                        out.write(PLACE.pack(len(data)) + data)
    finally:
        session._setupstate.teardown_exact(None)  # what Ctrl-C has left standing
        capture.stop_global_capturing()
    config._ensure_unconfigure()  # complains of what was left behind, exceptions that nobody saw among it


def _tell(session: pytest.Session, copies: list[Copy]) -> None:
    """Told until all have ended; those that have are taken from the list."""
    config = session.config
    untold = {test.nodeid: test for test in session.items}
    statuses = []
    with selectors.DefaultSelector() as selector:
        for copy in copies:
            selector.register(copy.said, selectors.EVENT_READ, copy)
        while selector.get_map():
            for key, _ in selector.select():
                copy = key.data
                some = os.read(copy.said, 1 << 20)
                copy.unread += some
                for data in copy.reports():
                    report = config.hook.pytest_report_from_serializable(
                        config=config, data=pickle.loads(data)
                    )
                    config.hook.pytest_runtest_logreport(report=report)
                    if report.when == "teardown":
                        del untold[report.nodeid]
                if not some:
                    selector.unregister(copy.said)
                    os.close(copy.said)
                    statuses.append(os.waitstatus_to_exitcode(os.waitpid(copy.pid, 0)[1]))
                    copies.remove(copy)
                if session.shouldfail:
                    raise session.Failed(session.shouldfail)
    for nodeid, test in untold.items():
        why = "a copy of pytest died before this test had ended"
        lost = pytest.TestReport(nodeid, test.location, {}, "failed", why, "call")
        config.hook.pytest_runtest_logreport(report=lost)
    if any(statuses):
        pytest.exit(
            f"copies of pytest ended with {sorted(statuses)}, see above", pytest.ExitCode.TESTS_FAILED
        )
