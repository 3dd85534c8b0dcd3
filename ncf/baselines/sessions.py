"""Features of rows from the user's ratings near in time, before and after.

Users rate many movies in one session, and the level of ratings varies between sessions: the
residuals of neighbouring ratings are more informative than the user's mean. Later ratings are used
too, so these features can fill in ratings, but not predict future ones.

Every function takes a history and the rows to describe, whose ratings it does not use; see
``ncf.baselines.tables``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from ncf.baselines.base import movies_of, users_of
from ncf.baselines.matrix_factorization import Groups
from ncf.baselines.statistics import History
from ncf.baselines.tables import FeatureTable
from ncf.data.batches import Batch
from ncf.data.preprocessor import UNKNOWN, Floats, Integers, Preprocessor

_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86400.0

SCALES: Final = {
    "10 seconds": 10.0,
    "minute": _MINUTE,
    "10 minutes": 10 * _MINUTE,
    "hour": _HOUR,
    "day": _DAY,
    "month": 30 * _DAY,
    "600 days": 600 * _DAY,
}
"""Seconds in which the weight of a neighbouring rating falls to 1/e."""

WINDOWS: Final = {"a minute": _MINUTE, "an hour": _HOUR, "a day": _DAY, "a month": 30 * _DAY}
"""Seconds before and after a row within which ratings are counted."""

NEAREST: Final = (1, 3, 10)
"""Numbers of preceding and of following ratings whose residuals are averaged."""

_DAMPING: Final = 1.0
"""Weight of a residual of 0 that shrinks every weighted mean."""

_CELLS: Final = 1_000_000
"""Maximum number of pairs of a row and a rating processed at once."""


@dataclass(frozen=True)
class UserRatings:
    """The history of one user in order of time."""

    times: Floats
    """``[H]`` seconds, ascending."""
    residuals: Floats
    """``[H]`` rating minus damped biases."""
    content: Floats
    """``[H, C]`` content of the movies, each of length 1."""


def sessions(history: History, rows: Batch) -> FeatureTable:
    """Features of the rows from their users' ratings near in time."""
    movies, times = movies_of(rows), rows.times.numpy().astype(np.float64)
    none = ratings_of_user(history, UNKNOWN)
    names = user_features(none, times[:0], history.directions[:0]).names
    values = np.empty((len(rows), len(names)), dtype=np.float32)
    by_user = Groups.of(users_of(rows), history.num_indices)
    for user in np.flatnonzero(np.diff(by_user.starts)):
        ratings = ratings_of_user(history, int(user))
        for part in _parts(by_user.rows_of(int(user)), len(ratings.times)):
            directions = history.directions[movies[part]]
            values[part] = user_features(ratings, times[part], directions).values
    return FeatureTable(names, values).beside(_calendar(history.preprocessor, movies, times))


def ratings_of_user(history: History, user: int) -> UserRatings:
    """The ratings of one user in order of time; none of unknown users."""
    rows = history.in_time.rows_of(user)
    if user == UNKNOWN:
        rows = rows[:0]
    directions = history.directions[history.movies[rows]]
    return UserRatings(history.times[rows], history.residuals[rows], directions)


def user_features(ratings: UserRatings, times: Floats, content: Floats) -> FeatureTable:
    """Features of one user's rows at ``times: [R]`` for movies of ``content: [R, C]``."""
    apart = np.abs(times[:, None] - ratings.times)  # [R, H]
    similarity = np.maximum(content @ ratings.content.T, 0.0)  # [R, H]
    columns = [*_positions(ratings, times), *_nearest(ratings, times)]
    for name, window in WINDOWS.items():
        columns.append((f"ratings at most {name} apart", np.log1p((apart <= window).sum(axis=1))))
    for name, scale in SCALES.items():
        weight = np.exp(-apart / scale)
        columns.append((f"residual, {name}", _damped_mean(weight, ratings.residuals)))
        columns.append((f"ratings around, {name}", np.log1p(weight.sum(axis=1))))
        columns.append(
            (
                f"residual of similar movies, {name}",
                _damped_mean(weight * similarity, ratings.residuals),
            )
        )
    columns.append(("residual of similar movies", _damped_mean(similarity**2, ratings.residuals)))
    return FeatureTable.of(columns)


def _positions(ratings: UserRatings, times: Floats) -> list[tuple[str, Floats]]:
    """Position of each row in the user's sequence, and time to the neighbouring ratings."""
    number = len(ratings.times)
    before = np.searchsorted(ratings.times, times, side="left")
    after = np.searchsorted(ratings.times, times, side="right")
    padded = np.concatenate([[np.nan], ratings.times, [np.nan]])
    first, last = (ratings.times[0], ratings.times[-1]) if number else (np.nan, np.nan)
    return [
        ("position", np.log1p(before)),
        ("position, share", (before + after) / (2 * max(number, 1))),
        ("days since first", (times - first) / _DAY),
        ("days until last", (last - times) / _DAY),
        ("since previous", np.log1p(times - padded[before])),
        ("until next", np.log1p(padded[after + 1] - times)),
    ]


def _nearest(ratings: UserRatings, times: Floats) -> list[tuple[str, Floats]]:
    """Mean residual of the preceding and of the following ratings; one second counts as both."""
    number = len(ratings.times)
    sums = np.concatenate([[0.0], np.cumsum(ratings.residuals)])
    until = np.searchsorted(ratings.times, times, side="right")
    since = np.searchsorted(ratings.times, times, side="left")
    columns = []
    for k in NEAREST:
        low, high = np.maximum(until - k, 0), np.minimum(since + k, number)
        before, after = sums[until] - sums[low], sums[high] - sums[since]
        columns.append((f"previous {k}", _ratio(before, until - low)))
        columns.append((f"next {k}", _ratio(after, high - since)))
    return columns


def _calendar(preprocessor: Preprocessor, movies: Integers, times: Floats) -> FeatureTable:
    """Time of the rating, and age of the movie."""
    years = 1970.0 + times / (365.25 * _DAY)
    columns = [("rating year", years), ("hour of day", times % _DAY / _HOUR)]
    for at, column in enumerate(preprocessor.numeric):
        if column.name == "year" and column.transform == "none":
            released = preprocessor.movies.numeric[:, at] * column.scale + column.mean
            columns.append(("movie age", years - released[movies]))
    return FeatureTable.of(columns)


def _damped_mean(weights: Floats, values: Floats) -> Floats:
    """``[R]``: mean of ``values: [H]`` under ``weights: [R, H]``, shrunk towards 0."""
    return weights @ values / (weights.sum(axis=1) + _DAMPING)


def _ratio(sums: Floats, counts: Integers) -> Floats:
    """``sums / counts``, NaN where the count is 0."""
    return np.divide(sums, counts, out=np.full(len(sums), np.nan), where=counts > 0)


def _parts(rows: Integers, history: int) -> list[Integers]:
    """Parts of ``rows`` small enough to compare each with ``history`` ratings."""
    size = max(1, _CELLS // max(history, 1))
    return [rows[start : start + size] for start in range(0, len(rows), size)]
