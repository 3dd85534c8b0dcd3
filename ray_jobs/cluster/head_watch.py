"""Says when the head of a cluster does not answer, which ends the job a minute later."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Final

import ray

_SECONDS_BETWEEN_LOOKS: Final = 5.0
_SECONDS_TO_ANSWER: Final = 5.0
_MISSES: Final = 2
"""Looks in a row without an answer after which it is logged."""

logger: Final = logging.getLogger(__name__)


class HeadWatch:
    """Logs once that the head is gone, and once that it is there again.

    Ray waits for it for a minute, and then ends this program from within, so that nothing can be
    said any more.

    Args:
        answers: whether the head accepts a connection.
    """

    def __init__(self, answers: Callable[[], bool]) -> None:
        self._answers = answers
        self._misses = 0
        self._since = datetime.now()

    def look(self) -> None:
        """Look once."""
        if self._answers():
            if self._misses >= _MISSES:
                logger.info("   note: the head of the cluster answers again")
            self._misses = 0
            return
        self._misses += 1
        if self._misses == 1:
            self._since = datetime.now()
        if self._misses == _MISSES:
            logger.error(
                f"the head of the cluster does not answer since {self._since:%H:%M:%S}. "
                "Ray ends this job if it does not come back within a minute; on a cluster that is "
                "there again, the same command continues from what is stored"
            )


@contextlib.contextmanager
def watching_the_head() -> Iterator[None]:
    """Watch the head of the cluster that this program has joined, during the block."""
    host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
    watch, is_over = HeadWatch(lambda: _answers(host, int(port))), threading.Event()

    def keep_looking() -> None:
        while not is_over.wait(_SECONDS_BETWEEN_LOOKS):
            watch.look()

    threading.Thread(target=keep_looking, daemon=True).start()
    try:
        yield
    finally:
        is_over.set()


def _answers(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host.strip("[]"), port), timeout=_SECONDS_TO_ANSWER):
            return True
    except OSError:
        return False
