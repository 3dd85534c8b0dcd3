"""Residuals (prediction minus rating) of one model by kind of row."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import numpy as np
import numpy.typing as npt

from ncf.evaluation.slices import MOVIE_EDGES, Slicing, by_range

Integers = npt.NDArray[np.int64]

_FEWEST_YEARS: Final = 3
_NUM_PARTS: Final = 10


@dataclass(frozen=True)
class Residuals:
    """Residuals of the rows of one kind."""

    label: str
    num_rows: int
    mean: float
    """Mean over all rows and seeds; above 0 if predictions are too high."""
    rmse: float
    """Mean over seeds of the RMSE."""


def residuals(way: Slicing, errors: npt.NDArray[np.floating]) -> tuple[Residuals, ...]:
    """Residuals of each kind with rows; ``errors: [S, N]``: each seed's prediction minus rating."""
    exact = errors.astype(np.float64)
    counts = np.bincount(way.kinds, minlength=len(way.labels))
    sums = np.stack([np.bincount(way.kinds, of_seed, len(counts)) for of_seed in exact])
    squares = np.stack([np.bincount(way.kinds, of_seed**2, len(counts)) for of_seed in exact])
    return tuple(
        Residuals(
            label=way.labels[kind],
            num_rows=int(counts[kind]),
            mean=float((sums[:, kind] / counts[kind]).mean()),
            rmse=float(np.sqrt(squares[:, kind] / counts[kind]).mean()),
        )
        for kind in np.flatnonzero(counts)
    )


def by_rating(ratings: npt.NDArray[np.floating]) -> Slicing:
    """Rows by their rating, ``ratings: [N]`` in stars."""
    levels, kinds = np.unique(ratings, return_inverse=True)
    return Slicing("rating", tuple(f"{level:g}" for level in levels), kinds)


def by_popularity(train_counts: Integers) -> Slicing:
    """Rows by the number of training ratings of their movie, ``train_counts: [N]``."""
    return by_range("training ratings of the movie", train_counts, MOVIE_EDGES, "0")


def by_time(timestamps: Integers) -> Slicing:
    """Rows by the year (UTC) of their rating, or by deciles of time if there are few years.

    ``timestamps: [N]`` are seconds since 1970 UTC. Rows of the same second stay together.
    """
    years = timestamps.astype("datetime64[s]").astype("datetime64[Y]").astype(np.int64) + 1970
    found, kinds = np.unique(years, return_inverse=True)
    if len(found) >= _FEWEST_YEARS:
        return Slicing("year of the rating", tuple(map(str, found)), kinds)
    inner = np.quantile(timestamps, np.arange(1, _NUM_PARTS) / _NUM_PARTS, method="higher")
    starts = np.unique(np.concatenate([[timestamps.min()], inner]))
    labels = tuple(f"{datetime.fromtimestamp(start, UTC):%Y-%m-%d %H:%M}" for start in starts)
    kinds = np.searchsorted(starts, timestamps, side="right") - 1
    return Slicing("time of the rating, from", labels, kinds)
