"""Slices: errors by kind of test row, such as rows of rarely rated movies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from ncf.data.batches import Batch
from ncf.data.preprocessor import Preprocessor

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

MOVIE_EDGES: Final = (1, 3, 10, 30, 100, 300, 1000)
"""Boundaries of the numbers of training ratings by which movies are divided."""

_COLD_START: Final = "0 (cold start)"
_DAY: Final = 86_400
_USER_EDGES: Final = (1, 10, 20, 50, 100, 200, 500)
_AGE_EDGES: Final = (1, 30, 365)
_PAST_EDGES: Final = (30, 365, 2 * 365, 5 * 365, 10 * 365)


@dataclass(frozen=True)
class Slicing:
    """One way of dividing rows into kinds."""

    name: str
    labels: tuple[str, ...]
    """Names of the kinds."""
    kinds: Integers
    """``[N]`` position in ``labels`` of each row's kind."""


@dataclass(frozen=True)
class SliceErrors:
    """One model's errors on the rows of one kind, averaged over its training seeds."""

    model: str
    rmse: float
    mae: float


@dataclass(frozen=True)
class Slice:
    """Rows of one kind, and the errors of each model on them."""

    name: str
    """Name of the slicing."""
    label: str
    num_rows: int
    errors: tuple[SliceErrors, ...]
    """In the order of the models."""


def slicings(train: Batch, rows: Batch, preprocessor: Preprocessor) -> tuple[Slicing, ...]:
    """Divide ``rows`` by the training rows of their users and movies, and by time."""
    users, movies = rows.users.numpy(), rows.movies.numpy()
    times = rows.times.numpy()
    user_counts = np.bincount(train.users.numpy(), minlength=preprocessor.num_users + 1)[users]
    movie_counts = np.bincount(train.movies.numpy(), minlength=len(preprocessor.movies))[movies]
    first = _first_times(train, preprocessor)[users]
    days_known = np.floor((times - first) / _DAY)
    days_past = np.floor((int(train.times.max()) - times) / _DAY)
    is_known = user_counts > 0
    return (
        _known(is_known, movie_counts > 0),
        by_range("training ratings of the user", user_counts, _USER_EDGES, _COLD_START),
        by_range("training ratings of the movie", movie_counts, MOVIE_EDGES, _COLD_START),
        _by_decade(rows, preprocessor),
        _with_unknown(
            by_range(
                "days since the user's first training rating",
                days_known,
                (0, *_AGE_EDGES),
                "before",
            ),
            is_known,
        ),
        by_range(
            "days before the newest training rating", days_past, (0, *_PAST_EDGES), "after it"
        ),
    )


def by_range(
    name: str, values: npt.NDArray[np.number], edges: tuple[int, ...], below: str
) -> Slicing:
    """Divide whole numbers ``values: [N]`` at ``edges``; ``below`` labels those under the first."""
    ranges = [
        str(low) if low == high - 1 else f"{low} to {high - 1}" for low, high in pairwise(edges)
    ]
    labels = (below, *ranges, f"{edges[-1]} or more")
    return Slicing(name, labels, np.searchsorted(edges, values, side="right").astype(np.int64))


def errors_by_slice(
    ways: Iterable[Slicing], models: Sequence[tuple[str, npt.NDArray[np.floating]]]
) -> tuple[Slice, ...]:
    """Errors of each model on each kind with rows.

    Args:
        ways: slicings of the same N rows.
        models: name and ``[S, N]`` errors of each seed.
    """
    return tuple(part for way in ways for part in _slices(way, models))


def _slices(
    way: Slicing, models: Sequence[tuple[str, npt.NDArray[np.floating]]]
) -> Iterable[Slice]:
    counts = np.bincount(way.kinds, minlength=len(way.labels))
    sums = [(name, _sums(way, errors)) for name, errors in models]
    for kind in np.flatnonzero(counts):
        yield Slice(
            name=way.name,
            label=way.labels[kind],
            num_rows=int(counts[kind]),
            errors=tuple(
                SliceErrors(
                    model=name,
                    rmse=float(np.sqrt(squared[:, kind] / counts[kind]).mean()),
                    mae=float((absolute[:, kind] / counts[kind]).mean()),
                )
                for name, (squared, absolute) in sums
            ),
        )


def _sums(way: Slicing, errors: npt.NDArray[np.floating]) -> tuple[Floats, Floats]:
    """``[S, L]`` sums of squared and of absolute errors, ``errors: [S, N]``."""

    def by_kind(values: npt.NDArray[np.floating]) -> Floats:
        return np.stack([np.bincount(way.kinds, row, len(way.labels)) for row in values])

    exact = errors.astype(np.float64)
    return by_kind(exact * exact), by_kind(np.abs(exact))


def _first_times(train: Batch, preprocessor: Preprocessor) -> Integers:
    """``[U + 1]`` time of each user's first training rating; 0 for users without one."""
    first = np.full(preprocessor.num_users + 1, np.iinfo(np.int64).max)
    np.minimum.at(first, train.users.numpy(), train.times.numpy())
    return np.where(first == np.iinfo(np.int64).max, 0, first)


def _by_decade(rows: Batch, preprocessor: Preprocessor) -> Slicing:
    """By the movie's release decade, if a training movie has the same."""
    labels = (
        "unknown, or of no training movie",
        *(f"{decade}s" for decade in preprocessor.decades),
    )
    kinds = preprocessor.movies.decade[rows.movies.numpy()]
    return Slicing("release decade of the movie", labels, kinds)


def _known(users: npt.NDArray[np.bool_], movies: npt.NDArray[np.bool_]) -> Slicing:
    labels = ("neither", "movie only", "user only", "both")
    return Slicing("what has training ratings", labels, 2 * users.astype(np.int64) + movies)


def _with_unknown(way: Slicing, is_known: npt.NDArray[np.bool_]) -> Slicing:
    """``way`` with a separate kind for rows of users without a training rating."""
    kinds = np.where(is_known, way.kinds, len(way.labels))
    return Slicing(way.name, (*way.labels, "no training rating"), kinds)
