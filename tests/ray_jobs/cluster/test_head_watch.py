"""What is said when the head of a cluster goes and comes back."""

from __future__ import annotations

import socket

import pytest

from ray_jobs.cluster.head_watch import HeadWatch, _answers


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        ([True, True, True], []),
        ([True, False, True, False, True], []),
        ([True, False, False, False, False], ["does not answer since"]),
        ([False, False, True, True], ["does not answer since", "answers again"]),
    ],
)
def test_it_is_told_once_when_the_head_goes_and_when_it_is_back(
    answers: list[bool], told: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    remaining = iter(answers)
    watch = HeadWatch(lambda: next(remaining))
    for _ in answers:
        watch.look()
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == len(told)
    assert all(part in message for part, message in zip(told, messages, strict=True))
    if told:
        assert "the same command continues" in messages[0]


def test_who_does_not_listen_does_not_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert _answers("127.0.0.1", port)
    assert not _answers("127.0.0.1", port)
