"""Predictions that any model must beat, fitted and scored on the same rows as the models."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Final

import numpy as np
import torch

from ncf.batches import Batch
from ncf.fitted import FittedState
from ncf.metrics import ErrorSums, Scores

DAMPINGS: Final = (0.0, 1.0, 2.5, 5.0, 10.0, 25.0)
"""Damping terms tried for users and for movies when there are validation rows."""

DEFAULT_DAMPING: Final = 5.0
"""Used for both without validation rows; LensKit's default."""

_SWEEPS: Final = 10
"""Alternating updates; the biases move by less than 1e-3 stars after a few."""


@dataclass(frozen=True)
class Baseline:
    """A named prediction in stars for every row."""

    name: str
    detail: str
    """How it was fitted."""
    user_bias: np.ndarray
    """``[U + 1]``; index 0 is for unknown users."""
    movie_bias: np.ndarray
    """``[M]`` by position in the movie table."""
    mean: float

    def predict(self, rows: Batch) -> torch.Tensor:
        """``[B]`` stars, not clipped."""
        users, movies = rows.users.numpy(), rows.movies.numpy()
        return torch.from_numpy(self.mean + self.user_bias[users] + self.movie_bias[movies])

    def score(self, rows: Batch, fitted: FittedState) -> Scores:
        """Errors in stars and on the decayed scale, predictions clipped as the models' are."""
        stars = self.predict(rows).clamp(fitted.rating_min, fitted.rating_max)
        return Scores(
            ErrorSums.of(stars, rows.ratings),
            ErrorSums.of(stars * rows.weights, rows.ratings * rows.weights),
        )


def global_mean(train: Batch, fitted: FittedState) -> Baseline:
    """The mean training rating for every row."""
    return Baseline(
        "global mean",
        "mean training rating",
        np.zeros(fitted.num_users + 1),
        np.zeros(len(fitted.movies)),
        float(train.ratings.double().mean()),
    )


def damped_bias(
    train: Batch, fitted: FittedState, user_damping: float, movie_damping: float
) -> Baseline:
    """mean + user bias + movie bias, each shrunk towards zero by a damping term.

    The ridge solution, by alternating exact updates; Funk,
    https://sifter.org/~simon/journal/20061211.html.
    """
    users, movies = train.users.numpy(), train.movies.numpy()
    mean = float(train.ratings.double().mean())
    residual = train.ratings.numpy().astype(np.float64) - mean
    user_bias = np.zeros(fitted.num_users + 1)
    movie_bias = np.zeros(len(fitted.movies))
    for _ in range(_SWEEPS):
        movie_bias = _shrunk_mean(movies, residual - user_bias[users], movie_bias, movie_damping)
        user_bias = _shrunk_mean(users, residual - movie_bias[movies], user_bias, user_damping)
    detail = f"damping {user_damping:g} for users, {movie_damping:g} for movies"
    return Baseline("damped bias", detail, user_bias, movie_bias, mean)


def tuned_damped_bias(train: Batch, validation: Batch | None, fitted: FittedState) -> Baseline:
    """The damped bias with the dampings that are best on the validation rows."""
    if validation is None:
        return damped_bias(train, fitted, DEFAULT_DAMPING, DEFAULT_DAMPING)
    candidates = (damped_bias(train, fitted, u, m) for u, m in product(DAMPINGS, DAMPINGS))
    return min(candidates, key=lambda b: b.score(validation, fitted).stars.rmse)


def _shrunk_mean(
    groups: np.ndarray, values: np.ndarray, like: np.ndarray, damping: float
) -> np.ndarray:
    """Sum of ``values`` in each group over its size plus ``damping``; 0 for an empty group."""
    sums = np.bincount(groups, weights=values, minlength=len(like))
    counts = np.bincount(groups, minlength=len(like))
    return sums / np.maximum(counts + damping, 1e-12)
