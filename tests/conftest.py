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


RAY_FIXTURES = {"finished", "local_ray", "prepared", "storage"}
"""Fixtures that start Ray, in ``tests/ncf/conftest.py`` and ``tests/ray_jobs/conftest.py``."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests that start Ray, and run files that take long first.

    ``make test`` gives whole files to several processes; a long one that starts last runs alone.
    """
    for item in items:
        in_ray_jobs = "ray_jobs" in item.path.parts
        used = set(getattr(item, "fixturenames", ()))
        starts_ray = "local_ray" in used or (in_ray_jobs and used & RAY_FIXTURES)
        if starts_ray and item.get_closest_marker("ray") is None:
            item.add_marker(pytest.mark.ray)
    items.sort(key=_seconds, reverse=True)


def _seconds(item: pytest.Item) -> float:
    """About how long the file of a test takes, as its mark says."""
    marks = [mark for mark in item.iter_markers("ray") if "seconds" in mark.kwargs]
    return marks[0].kwargs["seconds"] if marks else 0.0
