"""What all tests need."""

from __future__ import annotations

import signal

import pytest

from foundation.console import log_to_console


def pytest_configure() -> None:
    """Let programs that tests start hear Ctrl-C.

    A shell lets what it starts in the background ignore it, and programs inherit that.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _log_lines() -> None:
    """Show log lines as the programs do, so that tests that call their functions can read them."""
    log_to_console()
