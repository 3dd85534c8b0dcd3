"""What all tests need."""

from __future__ import annotations

import signal

import pytest


def pytest_configure() -> None:
    """Let programs that tests start hear Ctrl-C.

    A shell lets what it starts in the background ignore it, and programs inherit that.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)  # before the plugin reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say which tests belong into one process, for ``make test``, which runs two.

    Those of a file share its fixtures, and some files share the one run of the whole pipeline.
    """
    of_the_run = {item.path for item in items if "finished" in getattr(item, "fixturenames", ())}
    for item in items:
        group = "pipeline" if item.path in of_the_run else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))
