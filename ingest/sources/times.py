"""In which unit the timestamps of a file are, and their conversion to seconds since 1970 UTC."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Final

import numpy as np
import numpy.typing as npt

from foundation.times import DAY_S, SECONDS_1990, shown

Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

_FIRST_DATE, _LAST_DATE = 19_700_000, 21_010_000
_COUNTER_LIMIT: Final = 1900
"""Smaller numbers that are all of the timestamps there are count as an order, without dates."""


@dataclass(frozen=True)
class Unit:
    """How a timestamp is written."""

    meaning: str
    """For messages."""
    to_seconds: Callable[[Integers], Integers]
    """Seconds since 1970 UTC; negative for what is no time in this unit."""


def _dates(times: Integers) -> Integers:
    """Midnight UTC of dates such as 20050402; -1 for numbers that are no date."""
    seconds = np.full(len(times), -1)
    possible = (times > _FIRST_DATE) & (times < _LAST_DATE)
    found, position = np.unique(times[possible], return_inverse=True)
    midnights = [_midnight(number) for number in found.tolist()]
    seconds[possible] = np.array(midnights, np.int64)[position]
    return seconds


def _midnight(number: int) -> int:
    try:
        day = date(number // 10_000, number // 100 % 100, number % 100)
    except (ValueError, OverflowError):
        return -1
    return (day - date(1970, 1, 1)).days * DAY_S


UNITS: Final[dict[str, Unit]] = {
    "s": Unit("seconds since 1970", lambda times: times),
    "ms": Unit("milliseconds since 1970", lambda times: times // 1000),
    "us": Unit("microseconds since 1970", lambda times: times // 10**6),
    "ns": Unit("nanoseconds since 1970", lambda times: times // 10**9),
    "days": Unit(
        "days since 1970", lambda times: np.where(times < 10**7, times, -1).clip(-1) * DAY_S
    ),
    "YYYYMMDD": Unit("dates such as 20050402", _dates),
}
"""Units by their name in ``data.timestamp_unit``."""


@dataclass(frozen=True)
class Converted:
    """Timestamps in seconds."""

    seconds: Integers
    """``[N]``"""
    notice: str | None
    """What the user should know, if the timestamps were not seconds."""


@dataclass(frozen=True)
class Refused:
    """Why timestamps cannot be converted."""

    wrong: Flags
    """``[N]``; at least one is true."""
    found: Callable[[int], str]
    """What is wrong with the timestamp of a row."""
    expected: str
    """And what was expected of the file."""


def to_seconds(times: Integers, unit: str, now: int) -> Converted | Refused:
    """Convert ``times: [N]``, N at least 1, of ratings that were given until ``now``.

    ``unit`` is a key of ``UNITS``, or ``auto``: seconds, or else the one unit in which all are
    between 1990 and now.
    """
    latest = now + DAY_S  # clocks differ, and days begin earlier elsewhere
    if unit != "auto":
        return _in_unit(times, unit, latest)
    if times.max() < _COUNTER_LIMIT and times.min() >= 0:
        return Converted(
            times,
            f"timestamps are {times.min()} to {times.max()}: they are no dates, and are taken as "
            "the order of the ratings",
        )
    fits = {}
    for name in UNITS:
        fits[name] = fit = _is_between_1990_and(latest, times, name)
        if fit.all():
            seconds = UNITS[name].to_seconds(times)
            return Converted(seconds, None if name == "s" else _notice(name, seconds))
    return _without_one_unit(times, fits, latest)


def _in_unit(times: Integers, unit: str, latest: int) -> Converted | Refused:
    """With the unit that the user named; times before 1990 are then taken as they are."""
    seconds = UNITS[unit].to_seconds(times)
    wrong = (seconds < 0) | (seconds > latest)
    if not wrong.any():
        return Converted(seconds, None)

    def found(row: int) -> str:
        if times[row] < 0 or seconds[row] < 0:
            return f"timestamp is {times[row]}, which is none of the {UNITS[unit].meaning}"
        return f"timestamp is {times[row]}, {shown(seconds[row])}, which is in the future"

    return Refused(wrong, found, f"{UNITS[unit].meaning}, as data.timestamp_unit says")


def _is_between_1990_and(latest: int, times: Integers, unit: str) -> Flags:
    seconds = UNITS[unit].to_seconds(times)
    fit: Flags = (seconds >= SECONDS_1990) & (seconds <= latest)
    return fit


def _without_one_unit(times: Integers, fits: dict[str, Flags], latest: int) -> Refused:
    """The rows that do not fit the unit of most, and what they may be."""
    most = max(fits, key=lambda name: int(fits[name].sum()))
    if not fits[most].any():
        most = "s"

    def found(row: int) -> str:
        value, text = times[row], f"timestamp is {times[row]}"
        others = [name for name, fit in fits.items() if fit[row]]
        if others and others != [most]:
            return f"{text}, as if in {UNITS[others[0]].meaning}"
        if value < 0:
            return text
        seconds = int(UNITS[most].to_seconds(times[row : row + 1])[0])
        future = ", which is in the future" if seconds > latest else ""
        return text if seconds < 0 else f"{text}, {shown(seconds)}{future}"

    as_most = ", as most are," if fits[most].any() else ""
    return Refused(
        ~fits[most],
        found,
        f"{UNITS[most].meaning}{as_most} between 1990 and today; for another unit, or older times, "
        f"set data.timestamp_unit to one of {', '.join(UNITS)}",
    )


def _notice(unit: str, seconds: Integers) -> str:
    return (
        f"timestamps are {UNITS[unit].meaning}: they were converted to seconds "
        f"({shown(seconds.min())} to {shown(seconds.max())})"
    )
