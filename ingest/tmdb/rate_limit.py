"""Rate limit, timeouts, backoff, retry budget and deadline of requests.

Independent of TMDb, and of HTTP beyond the ``Retry-After`` header
(https://www.rfc-editor.org/rfc/rfc9110#field.retry-after). Clock, sleep and random numbers are
arguments, so that tests need not wait.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, NoReturn

Clock = Callable[[], float]
Sleep = Callable[[float], Awaitable[object]]

CATCH_UP_S: Final = 0.5
"""A delayed limiter may catch up on at most this many seconds' worth of requests: enough for a busy
machine, and half of the one second's worth that servers usually accept at once."""

CUT: Final = 0.85
"""Factor by which a refusal cuts the rate: near 1, since the earlier rate was nearly right."""

TOO_SOON_S: Final = 3.0
"""A refusal within this many seconds after a cut shows that the rate is far too high."""

FAR_OFF: Final = 0.7
"""Further factor by which the rate is then cut."""

RECOVERY_S: Final = 20.0
"""Seconds from a cut back to the rate that was refused."""

MIN_RATE: Final = 0.5
"""Requests per second below which refusals cut no further."""

ABSURD_S: Final = 86_400.0
"""Seconds of a ``Retry-After`` beyond which it counts as a mistake of the server."""

LONGEST_GUESS_S: Final = 60.0
"""Longest pause after a refusal without ``Retry-After``."""


class RateLimiter:
    """Spaces requests evenly and adapts to a server that answers 429.

    A refusal stops all requests for as long as the server asks and cuts the rate. From there the
    rate follows a cubic curve, as TCP CUBIC's window does (https://www.rfc-editor.org/rfc/rfc9438):
    steep at first, flat around the rate that was refused, then steep again up to the ceiling. So it
    is just below the permitted rate most of the time and still detects when that rises.
    """

    def __init__(
        self, rate: float, *, clock: Clock = time.monotonic, sleep: Sleep = asyncio.sleep
    ) -> None:
        """``rate`` is the ceiling in requests per second."""
        self._ceiling = rate
        self._clock = clock
        self._sleep = sleep
        self._turn = asyncio.Lock()  # only the head of the queue waits for the clock
        self._catch_up = CATCH_UP_S
        self._due = clock()  # when the next request is due
        self._paused_until = float("-inf")
        self._refused_rate = rate
        self._cut_at = float("-inf")
        self._refusals_in_a_row = 0

    @property
    def rate(self) -> float:
        """Requests per second at this moment."""
        return self._rate_at(self._clock())

    def _rate_at(self, now: float) -> float:
        elapsed = now - self._cut_at
        if elapsed > 10 * RECOVERY_S:
            return self._ceiling
        curve = 1 - (1 - CUT) * (1 - max(0.0, elapsed) / RECOVERY_S) ** 3
        return max(min(MIN_RATE, self._ceiling), min(self._ceiling, self._refused_rate * curve))

    async def acquire(self) -> float:
        """Wait for the next slot; the time at which it starts, for ``refused``."""
        now = self._clock()
        if self._turn.locked() or self._due > now or self._paused_until > now:
            async with self._turn:
                while (wait := max(self._due, self._paused_until) - (now := self._clock())) > 0:
                    await self._sleep(wait)
                return self._take(now)
        return self._take(now)

    def refused(self, sent_at: float, retry_after: float | None) -> float:
        """Process a 429 answer to the request whose slot started at ``sent_at``.

        Returns:
            Seconds until the next request may be sent.
        """
        now = self._clock()
        # Requests that were sent before the cut carry no information on the new rate.
        if sent_at >= self._cut_at:
            far_off = now - self._cut_at < TOO_SOON_S
            self._refused_rate = max(MIN_RATE, self.rate * (FAR_OFF if far_off else 1.0))
            self._refusals_in_a_row += 1
            self._catch_up /= 2  # this server may allow smaller bursts
            pause = min(LONGEST_GUESS_S, 2.0 ** (self._refusals_in_a_row - 1))
        else:
            pause = 0.0
        if retry_after is not None:
            pause = retry_after
        self._paused_until = max(self._paused_until, now + pause)
        # The curve starts when requests do.
        self._cut_at = self._paused_until
        return self._paused_until - now

    def accepted(self) -> None:
        """Process an answer other than 429."""
        self._refusals_in_a_row = 0

    def _take(self, now: float) -> float:
        earliest = max(now - self._catch_up, self._paused_until)
        self._due = max(self._due, earliest) + 1 / self._rate_at(now)
        return now


class Backoff:
    """Exponentially growing pauses with jitter, so that clients do not retry all at once."""

    def __init__(
        self, first_s: float = 0.5, longest_s: float = 20.0, rng: random.Random | None = None
    ) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._rng = rng or random.Random()

    def pause(self, failures: int) -> float:
        """Seconds to wait after the ``failures``-th failure in a row, counted from 1."""
        full = min(self._longest_s, self._first_s * 2.0 ** (failures - 1))
        return full * self._rng.uniform(0.5, 1.0)


class RetryBudget:
    """Allows retries in proportion to successes.

    While most requests succeed, every failure is retried. When most fail, retries would only
    multiply the load on a failing server and the time until the run ends.
    """

    def __init__(self, reserve: float = 200.0, per_success: float = 2.0) -> None:
        self._reserve = reserve
        self._per_success = per_success
        self._left = reserve

    def earn(self) -> None:
        """Count a success."""
        self._left = min(self._reserve, self._left + self._per_success)

    def spend(self) -> bool:
        """Whether one more retry is permitted; if so, it is deducted from the budget."""
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Deadline:
    """Expires when no request has succeeded for a while."""

    def __init__(self, limit_s: float, clock: Clock = time.monotonic) -> None:
        self.limit_s = limit_s
        self._clock = clock
        self._last_success = clock()

    def renew(self) -> None:
        """Restart after a successful request."""
        self._last_success = self._clock()

    @property
    def exhausted(self) -> bool:
        """Whether ``limit_s`` seconds have passed since the last success."""
        return self._clock() - self._last_success > self.limit_s


class Watchdog:
    """Cancels awaits that take too long: ``with watchdog:`` around one await of a task at a time.

    One timer serves all tasks. A timer for each await, which aiohttp's and asyncio's timeouts set,
    costs a tenth of a whole HTTP request.
    """

    def __init__(self, limit_s: float, clock: Clock = time.monotonic) -> None:
        self._limit_s = limit_s
        self._clock = clock
        self._since: dict[asyncio.Task[Any], float] = {}  # the oldest first
        self._cut_off: set[asyncio.Task[Any]] = set()

    def __enter__(self) -> None:
        self._since[_this_task()] = self._clock()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Raise ``TimeoutError`` if the await was cancelled by the watchdog.

        Raises:
            TimeoutError: in place of the cancellation.
        """
        task = _this_task()
        del self._since[task]
        if task in self._cut_off:
            self._cut_off.remove(task)
            # As in asyncio.timeout, a cancellation from elsewhere takes precedence.
            if task.uncancel() == 0 and kind is asyncio.CancelledError:
                raise TimeoutError

    async def watch(self, sleep: Sleep = asyncio.sleep) -> NoReturn:
        """Cancel overdue awaits, checking at intervals of ``limit_s / 20``, until cancelled."""
        while True:
            await sleep(self._limit_s / 20)
            begun_before = self._clock() - self._limit_s
            for task, since in self._since.items():
                if since > begun_before:
                    break
                if task not in self._cut_off:
                    self._cut_off.add(task)
                    task.cancel()


def _this_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None, "a watchdog watches tasks"
    return task


def parse_retry_after(
    value: str | None, date: str | None = None, now: Callable[[], datetime] | None = None
) -> float | None:
    """Seconds that a ``Retry-After`` header asks for; ``None`` if it is absent, unreadable or more
    than ``ABSURD_S``.

    An HTTP date is taken relative to the answer's own ``Date`` header if there is one, which is
    right even where this machine's clock is not.
    """
    if value is None:
        return None
    value = value.strip()
    if value.replace(".", "", 1).isascii() and value.replace(".", "", 1).isdigit():
        seconds = float(value)
    else:
        until = _parse_http_date(value)
        if until is None:
            return None
        reference = _parse_http_date(date) or (now or (lambda: datetime.now(UTC)))()
        seconds = max(0.0, (until - reference).total_seconds())
    return seconds if seconds <= ABSURD_S else None


def _parse_http_date(value: str | None) -> datetime | None:
    if value is None:
        return None
    try:
        parsed = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
