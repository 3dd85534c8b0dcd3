"""What all tests need."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest
import ray

from foundation.console import log_to_console
from ray_jobs.cluster.session import ensure_ray, leave_ray
from ray_jobs.config import JobConfig

_RAY_FOLDER: Final = Path(tempfile.gettempdir(), f"ray-tests-{os.getpid()}")
"""Temporary files of the Ray of this process; short, as the paths of sockets are limited."""


def pytest_configure() -> None:
    """Set what programs that tests start inherit."""
    # Seconds after which Ray looks for new log files; by default this takes much of a CPU's time.
    os.environ.setdefault("LOG_NAME_UPDATE_INTERVAL_S", "10")
    # Models this small are slower with more threads, and many times so on a busy machine.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # A shell lets what it starts in the background ignore Ctrl-C.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _log_lines() -> None:
    """Show log lines as the programs do, so that tests that call their functions can read them."""
    log_to_console()


@pytest.fixture(scope="session")
def at_the_end() -> Iterator[ExitStack]:
    """For checks that need patience, such as that processes end by themselves: they are made after
    all tests of this process, when there is little left to wait for."""
    with ExitStack() as stack:
        yield stack


def start_ray() -> None:
    """Start a Ray with two CPUs, unless that was done.

    It takes as long as many tests, so those of a process share one.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name in ("RAY_ADDRESS", "TMDB_ACCESS_TOKEN", "TMDB_API_KEY"):
            patch.delenv(name, raising=False)
        # Two Rays with the same folder overwrite each other's list of nodes for Prometheus.
        patch.setenv("RAY_TMPDIR", str(_RAY_FOLDER))
        _RAY_FOLDER.mkdir(exist_ok=True)
        # A port that another process of `make test` has found free too costs half a minute.
        port = 8300 + 100 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
        ensure_ray(JobConfig.model_validate({"ray": {"num_cpus": 2, "dashboard_port": port}}))


def stop_ray() -> None:
    if ray.is_initialized():
        leave_ray()
        shutil.rmtree(_RAY_FOLDER, ignore_errors=True)


@pytest.fixture(scope="session")
def _end_of_ray() -> Iterator[None]:
    yield
    stop_ray()


@pytest.fixture(scope="module")
def local_ray(_end_of_ray: None) -> None:
    """Ray, for fixtures of a module; each of its tests finds it too."""
    start_ray()


@pytest.fixture
def without_ray() -> None:
    """No Ray, for a test that is marked as starting one."""
    stop_ray()


@pytest.fixture(autouse=True)
def _ray_where_it_is_needed(request: pytest.FixtureRequest) -> None:
    """Tests that are not marked find none, whatever ran before them."""
    if "local_ray" in request.fixturenames:
        start_ray()
    elif request.node.get_closest_marker("ray") is None:
        stop_ray()


STARTS_RAY = {"local_ray", "finished"}
"""Fixtures that start Ray; others that need it use one of them."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests that start Ray, and run files that take long first.

    ``make test`` gives whole files to several processes; a long one that starts last runs alone.
    """
    for item in items:
        starts_ray = STARTS_RAY & set(getattr(item, "fixturenames", ()))
        if starts_ray and item.get_closest_marker("ray") is None:
            item.add_marker(pytest.mark.ray)
    items.sort(key=_seconds, reverse=True)


def _seconds(item: pytest.Item) -> float:
    """About how long the file of a test takes, as its mark says."""
    marks = [mark for mark in item.iter_markers("ray") if "seconds" in mark.kwargs]
    return marks[0].kwargs["seconds"] if marks else 0.0
