"""What all tests share."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    # Started in the background, a shell's children ignore Ctrl-C and hand that on; some tests send it to theirs.
    signal.signal(signal.SIGINT, signal.default_int_handler)
