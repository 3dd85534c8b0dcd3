"""Times, in seconds since 1970-01-01 UTC, and which of them can be."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]

FIRST_FILM_YEAR: Final = 1870
_YEARS_AHEAD: Final = 10
"""Films are announced before they are made."""

DAY_S: Final = 86_400
SECONDS_1990: Final = 631_152_000
"""1990-01-01: data sets of ratings begin later."""
_SMALLEST: Final = 100_000_000
"""1973-03-03: smaller numbers are days since 1970, dates such as 20050402, or minutes."""
SECONDS_2100: Final = 4_102_444_800
"""2100-01-01: no prediction is for a later time."""


def now() -> int:
    """Seconds since 1970-01-01 UTC."""
    return int(time.time())


def is_film_year(year: int) -> bool:
    """Whether there can be a film of that year."""
    # A mean year is exact enough here.
    this_year = 1970 + int(now() / (365.2425 * DAY_S))
    return FIRST_FILM_YEAR <= year <= this_year + _YEARS_AHEAD


def shown(seconds: int) -> str:
    """A time as a date, also one far from today: ``2005-04-02``."""
    try:
        return f"{datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=int(seconds)):%Y-%m-%d}"
    except OverflowError:
        return "beyond the year 9999" if seconds > 0 else "before the year 1"


def problem(times: Integers, newest: int) -> tuple[int, str] | None:
    """The first of ``times: [N]`` that is impossible, and why; None if all are possible.

    Args:
        times: seconds since 1970-01-01 UTC.
        newest: time of the newest rating that is known. If it is after 1990, times before 1973 are
            refused: days since 1970 and dates such as 20050402 look so.
    """
    lowest = _SMALLEST if newest >= SECONDS_1990 else 0
    wrong = (times < lowest) | (times >= SECONDS_2100)
    if not wrong.any():
        return None
    row = int(np.argmax(wrong))
    return row, (
        f"the time {times[row]} is {shown(times[row])} in seconds since 1970-01-01 UTC; expected "
        f"{lowest} ({shown(lowest)}) to {SECONDS_2100 - 1} ({shown(SECONDS_2100 - 1)})"
    )
