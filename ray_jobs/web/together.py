"""Compute the answers to requests that wait at the same time in one call."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

Q = TypeVar("Q")
A = TypeVar("A")

_PATIENCE: Final = 0.25
"""Longest wait for further questions, as a share of the time that the last answers took."""


class Together(Generic[Q, A]):
    """Collects questions for a function that takes less time for several of them at once.

    Questions that come while others are answered, in the thread of one event loop, are answered
    together. So that clients who were answered together and ask again stay together, they are
    waited for, at most a quarter of the time that the last answers took. A question that
    comes alone never waits.

    Args:
        answer: returns the answers in the order of the questions.
        at_most: questions that it is given at once.
    """

    def __init__(self, answer: Callable[[Sequence[Q]], Sequence[A]], at_most: int) -> None:
        self._answer = answer
        self._at_most = at_most
        self._waiting: list[tuple[Q, asyncio.Future[A]]] = []
        self._due: asyncio.Handle | None = None
        self._last_count = 1
        self._last_seconds = 0.0

    async def ask(self, question: Q) -> A:
        """The answer; raises what the function raises."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[A] = loop.create_future()
        self._waiting.append((question, future))
        if self._due is None:
            wait = _PATIENCE * self._last_seconds
            self._due = loop.call_later(wait, self._answer_waiting, loop)
        if len(self._waiting) == self._last_count:
            self._due.cancel()
            # Runs after all requests that the loop has read by now.
            self._due = loop.call_soon(self._answer_waiting, loop)
        return await future

    def _answer_waiting(self, loop: asyncio.AbstractEventLoop) -> None:
        """Answer the questions that have waited longest; then let the loop read further ones."""
        waiting = [each for each in self._waiting if not each[1].done()]
        asked, self._waiting = waiting[: self._at_most], waiting[self._at_most :]
        self._due = loop.call_soon(self._answer_waiting, loop) if self._waiting else None
        began = time.perf_counter()
        try:
            answers = self._answer([question for question, _ in asked])
        except Exception as error:
            for _, future in asked:
                future.set_exception(error)
            return
        self._last_count, self._last_seconds = max(1, len(asked)), time.perf_counter() - began
        for (_, future), answer in zip(asked, answers, strict=True):
            future.set_result(answer)
