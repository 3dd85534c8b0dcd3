"""A local Ray starts although others are at its ports, or says why it does not."""

from __future__ import annotations

import gc
import socket
from collections.abc import Iterator

import pytest
import ray
from ray.util.state import list_jobs

from ray_jobs.cluster import session
from ray_jobs.config import JobConfig
from ray_jobs.errors import ResourceError

# A start that failed leaves the closing of Ray's sockets to the garbage collector.
pytestmark = [
    pytest.mark.ray(seconds=15),
    pytest.mark.usefixtures("without_ray"),
    pytest.mark.filterwarnings(
        "ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"
    ),
]

CONFIG = JobConfig.model_validate({"ray": {"num_cpus": 1}})


@pytest.fixture(autouse=True)
def _sockets_of_failed_starts() -> Iterator[None]:
    """Collect them here, where the warning is expected."""
    yield
    gc.collect()


@pytest.fixture
def taken() -> Iterator[int]:
    """A port at which a process listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_dashboard_port_that_is_taken_after_it_was_found_free(
    taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = session._free_port(18_265)
    found = iter([taken, free])
    monkeypatch.setattr(session, "_free_port", lambda first: next(found))
    try:
        session.ensure_ray(CONFIG)

        assert ray.is_initialized()
        with socket.create_connection(("127.0.0.1", free), timeout=10):
            pass
        assert [each.metadata for each in list_jobs(detail=True)] == [{"run": CONFIG.name}]
    finally:
        session.leave_ray()


MARKED_DEAD = (
    "The node with node id: c81ecb66 and address: 10.0.0.7 and node name: 10.0.0.7 has been "
    "marked dead because the detector has missed too many heartbeats from it. This can happen "
    "when a \t(1) raylet crashes unexpectedly (OOM, etc.)\n\t(2) raylet has lagging heartbeats."
)
TERMINATED = (
    "Raylet is terminated. Termination is unexpected. Possible reasons include: (1) SIGKILL by "
    "the user or system OOM killer. Last 20 lines of the Raylet logs:\n    [state-dump] \tclient\n"
)


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (MARKED_DEAD, "node 10.0.0.7 was lost"),
        (TERMINATED, "a node was lost, or its Ray was stopped"),
        ("A worker died.\n\nWorker ID: 1", "A worker died."),
        ("x" * 500, f"{'x' * 200} ..."),
        ("", ""),
        ("WARNING: 8 PYTHON worker processes have been started on node: c81e ...", None),
    ],
)
def test_messages_of_ray_are_told_in_a_sentence(message: str, told: str | None) -> None:
    assert session.sentence_of(message) == told


def test_who_listens_is_found_at_every_form_of_an_address(taken: int) -> None:
    for address in (f"127.0.0.1:{taken}", f"localhost:{taken}", f"ray://127.0.0.1:{taken}"):
        session._knock(address)

    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with pytest.raises(OSError, match="refused"):
            session._knock(f"ray://127.0.0.1:{closed.getsockname()[1]}")


def test_a_local_ray_that_never_starts_is_told_once(
    taken: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(session, "_free_port", lambda first: taken)

    with pytest.raises(ResourceError, match=rf"3 attempts.*{taken}") as caught:
        session.ensure_ray(CONFIG)

    assert not ray.is_initialized()
    assert "--set ray.address=" in str(caught.value)
    assert capfd.readouterr().err == ""
