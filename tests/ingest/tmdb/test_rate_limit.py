from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime
from typing import Any

import pytest

from ingest.tmdb.rate_limit import (
    CATCH_UP_S,
    CUT,
    RECOVERY_S,
    Backoff,
    Deadline,
    RateLimiter,
    RetryBudget,
    Watchdog,
    parse_retry_after,
)


class Bucket:
    """A server's token bucket, like that of the replay server."""

    def __init__(self, rate: float, burst: float, clock: Any) -> None:
        self.rate, self.burst, self.clock = rate, burst, clock
        self.tokens, self.updated = burst, clock()

    def admits(self) -> bool:
        now = self.clock()
        self.tokens = min(self.burst, self.tokens + (now - self.updated) * self.rate)
        self.updated = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


def drive(
    clock: Any, rate_limiter: RateLimiter, bucket: Bucket, seconds: float, retry_after: float | None
) -> tuple[int, int]:
    """Send requests one after the other for a while; counts of accepted and refused ones."""

    async def go() -> tuple[int, int]:
        accepted = refused = 0
        end = clock() + seconds
        while clock() < end:
            sent_at = await rate_limiter.acquire()
            if bucket.admits():
                accepted += 1
                rate_limiter.accepted()
            else:
                refused += 1
                rate_limiter.refused(sent_at, retry_after)
        return accepted, refused

    return asyncio.run(go())


@pytest.mark.parametrize("burst", [1, 6, 40])
def test_reaches_the_permitted_rate_without_a_refusal(clock: Any, burst: int) -> None:
    clock.time = 0.0
    rate_limiter = RateLimiter(40.0, clock=clock, sleep=clock.sleep)
    # A bucket of one token refuses a request that is early by a rounding error.
    bucket = Bucket(40.0, burst + 1e-6, clock)
    if burst == 1:
        rate_limiter = RateLimiter(39.9, clock=clock, sleep=clock.sleep)
    accepted, refused = drive(clock, rate_limiter, bucket, 250.0, 1.0)
    assert refused <= (3 if burst == 1 else 0)
    assert accepted >= (0.95 if burst == 1 else 0.98) * 40 * 250


def test_catches_up_after_a_stall_but_only_a_little(clock: Any) -> None:
    rate_limiter = RateLimiter(40.0, clock=clock, sleep=clock.sleep)

    async def go() -> int:
        await rate_limiter.acquire()
        clock.time += 60.0
        sent = 0
        resumed = clock()
        while True:
            await rate_limiter.acquire()
            if clock() > resumed:
                return sent
            sent += 1

    assert asyncio.run(go()) == pytest.approx(40 * CATCH_UP_S + 1, abs=1)


def test_waits_as_long_as_retry_after_says_and_slows_down(clock: Any) -> None:
    rate_limiter = RateLimiter(40.0, clock=clock, sleep=clock.sleep)

    async def go() -> None:
        sent_at = await rate_limiter.acquire()
        assert rate_limiter.refused(sent_at, 7.0) == 7.0
        assert await rate_limiter.acquire() == sent_at + 7.0

    asyncio.run(go())
    assert rate_limiter.rate == pytest.approx(40 * CUT)


def test_refusals_of_requests_under_way_cut_the_rate_once(clock: Any) -> None:
    rate_limiter = RateLimiter(40.0, clock=clock, sleep=clock.sleep)

    async def go() -> None:
        sent = [await rate_limiter.acquire() for _ in range(32)]
        for sent_at in sent:
            rate_limiter.refused(sent_at, 1.0)

    asyncio.run(go())
    assert rate_limiter.rate == pytest.approx(40 * CUT)


def test_pauses_grow_while_the_server_names_none(clock: Any) -> None:
    rate_limiter = RateLimiter(40.0, clock=clock, sleep=clock.sleep)

    async def go() -> list[float]:
        return [rate_limiter.refused(await rate_limiter.acquire(), None) for _ in range(8)]

    assert asyncio.run(go()) == pytest.approx([1, 2, 4, 8, 16, 32, 60, 60])


def test_recovers_to_the_ceiling(clock: Any) -> None:
    rate_limiter = RateLimiter(40.0, clock=clock, sleep=clock.sleep)

    async def go() -> None:
        rate_limiter.refused(await rate_limiter.acquire(), 0.0)

    asyncio.run(go())
    rates = []
    for _ in range(5):
        rates.append(rate_limiter.rate)
        clock.time += RECOVERY_S / 4
    assert rates == sorted(rates)
    assert rate_limiter.rate == 40.0


def test_finds_the_rate_of_a_stricter_server(clock: Any) -> None:
    rate_limiter = RateLimiter(40.0, clock=clock, sleep=clock.sleep)
    accepted, refused = drive(clock, rate_limiter, Bucket(20.0, 20, clock), 600.0, 1.0)
    assert accepted >= 0.85 * 20 * 600
    assert refused <= 0.01 * accepted


def test_finds_out_that_more_is_permitted(clock: Any) -> None:
    rate_limiter = RateLimiter(40.0, clock=clock, sleep=clock.sleep)
    bucket = Bucket(10.0, 10, clock)
    drive(clock, rate_limiter, bucket, 120.0, None)
    assert rate_limiter.rate < 15
    bucket.rate = bucket.burst = 40.0
    drive(clock, rate_limiter, bucket, 120.0, None)
    assert rate_limiter.rate == 40.0


def test_many_waiters_go_in_order_and_evenly(clock: Any) -> None:
    rate_limiter = RateLimiter(10.0, clock=clock, sleep=clock.sleep)
    order: list[tuple[int, float]] = []

    async def one(number: int) -> None:
        order.append((number, await rate_limiter.acquire()))

    async def go() -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(50):
                group.create_task(one(number))

    asyncio.run(go())
    assert [number for number, _ in order] == list(range(50))
    times = [time for _, time in order]
    assert times[-1] - times[0] == pytest.approx((50 - 1) / 10)


@pytest.mark.parametrize(
    ("value", "date", "seconds"),
    [
        (None, None, None),
        ("3", None, 3.0),
        (" 0 ", None, 0.0),
        ("1.5", None, 1.5),
        ("Wed, 21 Oct 2026 07:28:30 GMT", None, 30.0),
        ("Wed, 21 Oct 2026 07:28:30 GMT", "Wed, 21 Oct 2026 07:28:20 GMT", 10.0),
        ("Wed, 21 Oct 2026 07:27:00 GMT", None, 0.0),
        ("Wednesday, 21-Oct-26 07:28:30 GMT", None, 30.0),
        ("soon", None, None),
        ("-1", None, None),
        ("", None, None),
        ("²", None, None),
        ("86400", None, 86400.0),
        ("86401", None, None),
        ("9" * 400, None, None),
        ("9" * 5000, None, None),
        ("Wed, 21 Oct 9999 07:28:30 GMT", None, None),
        ("Wed, 21 Oct 99999999999 07:28:30 GMT", None, None),
    ],
)
def test_retry_after(value: str | None, date: str | None, seconds: float | None) -> None:
    now = datetime(2026, 10, 21, 7, 28, tzinfo=UTC)
    assert parse_retry_after(value, date, lambda: now) == seconds


def test_backoff_doubles_with_jitter_up_to_a_limit() -> None:
    backoff = Backoff(first_s=0.5, longest_s=20.0, rng=random.Random(0))
    for failures in range(1, 12):
        full = min(20.0, 0.5 * 2 ** (failures - 1))
        pauses = [backoff.pause(failures) for _ in range(100)]
        assert full / 2 <= min(pauses) < max(pauses) <= full


def test_retry_budget_is_refilled_by_successes() -> None:
    budget = RetryBudget(reserve=2, per_success=0.5)
    assert [budget.spend() for _ in range(3)] == [True, True, False]
    budget.earn()
    assert not budget.spend()
    budget.earn()
    assert budget.spend()


def test_patience_runs_out_without_useful_answers(clock: Any) -> None:
    deadline = Deadline(10.0, clock)
    exhausted = []
    for seconds in (10.0, 0.1):
        clock.time += seconds
        exhausted.append(deadline.exhausted)
    deadline.renew()
    assert [*exhausted, deadline.exhausted] == [False, True, False]


def test_a_watchdog_cuts_off_what_takes_too_long_and_nothing_else(clock: Any) -> None:
    ended: dict[str, float] = {}

    async def wait(name: str, watchdog: Watchdog, seconds: float) -> None:
        until = clock.time + seconds
        try:
            with watchdog:
                while clock.time < until:
                    await clock.sleep(0)
        except TimeoutError:
            name += " cut off"
        ended[name] = clock.time - 1000.0

    async def run() -> None:
        watchdog = Watchdog(10.0, clock)
        watching = asyncio.create_task(watchdog.watch(clock.sleep))
        await asyncio.gather(wait("long", watchdog, 30.0), wait("short", watchdog, 5.0))
        await wait("again", watchdog, 9.0)  # works after an earlier cancellation of the task
        watching.cancel()

    asyncio.run(run())
    assert list(ended) == ["short", "long cut off", "again"]
    assert 5.0 <= ended["short"] <= 6.0
    assert 10.0 <= ended["long cut off"] <= 11.5


@pytest.mark.parametrize("overdue", [False, True])
def test_a_cancellation_by_other_code_takes_precedence(clock: Any, overdue: bool) -> None:
    async def wait(watchdog: Watchdog, waiting: asyncio.Event) -> None:
        with watchdog:
            waiting.set()
            await asyncio.Event().wait()

    async def run() -> None:
        watchdog = Watchdog(10.0, clock)
        waiting = asyncio.Event()
        task = asyncio.create_task(wait(watchdog, waiting))
        await waiting.wait()

        async def cancel_after_one_look(seconds: float) -> None:
            """Twenty seconds pass; then, before the task runs, other code cancels it too."""
            if clock.slept:
                assert task.cancelling() == 1
                task.cancel()
                await asyncio.Event().wait()
            clock.slept.append(seconds)
            clock.time += 20.0

        if overdue:
            watching = asyncio.create_task(watchdog.watch(cancel_after_one_look))
            try:
                await task
            finally:
                watching.cancel()
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(run())
