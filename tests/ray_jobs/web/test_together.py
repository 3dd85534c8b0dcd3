"""Questions are answered together, each with its own answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import count

import pytest

from ray_jobs.web.together import Together


class Doubles:
    """Doubles numbers, and notes which it was asked at once."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []

    def __call__(self, numbers: Sequence[int]) -> list[int]:
        self.asked.append(list(numbers))
        if 13 in numbers:
            raise ValueError("thirteen")
        return [2 * number for number in numbers]


def test_questions_that_wait_are_answered_at_once_up_to_a_number() -> None:
    doubles = Doubles()

    async def scenario() -> list[list[int]]:
        together = Together(doubles, at_most=4)
        found = [await asyncio.gather(*map(together.ask, range(10)))]
        found.append([await together.ask(7)])  # does not wait for ever for as many as before
        found.append(await asyncio.gather(*map(together.ask, range(3))))
        return [list(each) for each in found]

    assert asyncio.run(scenario()) == [[2 * n for n in range(10)], [14], [0, 2, 4]]
    sizes = [len(each) for each in doubles.asked]
    assert sizes[:4] == [4, 4, 2, 1]
    assert sum(sizes[4:]) == 3


def test_those_who_were_answered_together_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    doubles = Doubles()
    hours = count(step=3600)  # so that there is time for everybody
    monkeypatch.setattr("ray_jobs.web.together.time.perf_counter", lambda: float(next(hours)))

    async def client(together: Together[int, int], number: int) -> None:
        for _ in range(3):
            assert await together.ask(number) == 2 * number
            for _ in range(5 * number):  # some ask again later than others
                await asyncio.sleep(0)

    async def scenario() -> None:
        together = Together(doubles, at_most=8)
        await asyncio.gather(*(client(together, number) for number in range(1, 5)))

    asyncio.run(scenario())
    assert [sorted(each) for each in doubles.asked] == [[1, 2, 3, 4]] * 3


def test_an_exception_is_raised_to_all_who_were_asked_with_it_and_to_no_others() -> None:
    doubles = Doubles()

    async def scenario() -> None:
        together = Together(doubles, at_most=2)
        questions = map(together.ask, (1, 13, 3))
        first, second, third = await asyncio.gather(*questions, return_exceptions=True)
        assert isinstance(first, ValueError)
        assert isinstance(second, ValueError)
        assert third == 6

    asyncio.run(scenario())


def test_who_has_gone_is_not_answered() -> None:
    doubles = Doubles()

    async def scenario() -> None:
        together = Together(doubles, at_most=4)
        gone, there = (asyncio.create_task(together.ask(number)) for number in (1, 2))
        await asyncio.sleep(0)
        gone.cancel()
        assert await there == 4
        with pytest.raises(asyncio.CancelledError):
            await gone

    asyncio.run(scenario())
    assert doubles.asked == [[2]]
