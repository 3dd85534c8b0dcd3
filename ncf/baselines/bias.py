"""The global mean, and the damped biases of users and movies."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Final

import numpy as np
import torch

from ncf.baselines.base import Baseline, BaselineSpec, movies_of, ratings_of, users_of
from ncf.data.batches import Batch
from ncf.data.preprocessor import UNKNOWN, Floats, Integers, Preprocessor

DAMPINGS: Final = (0.0, 1.0, 2.5, 5.0, 10.0, 25.0)
"""Damping terms tried for users and for movies, if there are validation rows."""

DEFAULT_DAMPING: Final = 5.0
"""Damping of both without validation rows; LensKit's default."""

_SWEEPS: Final = 10
"""Alternating updates; the biases move by less than 1e-3 stars after a few."""


@dataclass(frozen=True)
class Biases(Baseline):
    """mean + user bias + movie bias."""

    user_bias: Floats
    """``[U + 1]``; 0 at index 0, which unknown users have."""
    movie_bias: Floats
    """``[M]`` by position in the movie table; 0 for movies without a rating."""
    mean: float
    """Mean of all ratings."""

    def predict(self, rows: Batch) -> torch.Tensor:
        """``[B]`` stars, not clipped."""
        return torch.from_numpy(self.stars(users_of(rows), movies_of(rows)))

    def stars(self, users: Integers, movies: Integers) -> Floats:
        """The prediction for each pair of ``users`` and ``movies``, which may broadcast."""
        return self.mean + self.user_bias[users] + self.movie_bias[movies]

    def residuals(self, rows: Batch) -> Floats:
        """``[B]`` rating minus prediction."""
        return ratings_of(rows) - self.stars(users_of(rows), movies_of(rows))


@dataclass(frozen=True)
class Dampings:
    """Settings of the damped bias."""

    users: float = DEFAULT_DAMPING
    """Added to each user's number of ratings."""
    movies: float = DEFAULT_DAMPING
    """Added to each movie's number of ratings."""


def global_mean(train: Batch, preprocessor: Preprocessor) -> Biases:
    """The mean training rating for every row."""
    return Biases(
        "global mean",
        "mean training rating",
        np.zeros(preprocessor.num_users + 1),
        np.zeros(len(preprocessor.movies)),
        float(train.ratings.double().mean()),
    )


def damped_bias(
    train: Batch, preprocessor: Preprocessor, user_damping: float, movie_damping: float
) -> Biases:
    """mean + user bias + movie bias, each shrunk towards zero by a damping term.

    The ridge solution, by alternating exact updates; Funk,
    https://sifter.org/~simon/journal/20061211.html.
    """
    users, movies = users_of(train), movies_of(train)
    mean = float(train.ratings.double().mean())
    residual = ratings_of(train) - mean
    user_bias = np.zeros(preprocessor.num_users + 1)
    movie_bias = np.zeros(len(preprocessor.movies))
    for _ in range(_SWEEPS):
        movie_bias = shrunk_mean(
            movies, residual - user_bias[users], len(movie_bias), movie_damping
        )
        user_bias = shrunk_mean(users, residual - movie_bias[movies], len(user_bias), user_damping)
        user_bias[UNKNOWN] = 0.0  # index 0 means all unknown users
    detail = f"damping {user_damping:.3g} for users, {movie_damping:.3g} for movies"
    return Biases("damped bias", detail, user_bias, movie_bias, mean)


def tuned_damped_bias(train: Batch, validation: Batch | None, preprocessor: Preprocessor) -> Biases:
    """The damped bias with the best dampings on the validation rows."""
    dampings = best_dampings(train, validation, preprocessor)
    return damped_bias(train, preprocessor, dampings.users, dampings.movies)


def best_dampings(
    train: Batch,
    validation: Batch | None,
    preprocessor: Preprocessor,
    num_trials: int | None = None,
) -> Dampings:
    """Of all 36 pairs, the dampings with the lowest error on the validation rows."""
    del num_trials  # the grid takes a second
    if validation is None:
        return Dampings()

    def error(pair: tuple[float, float]) -> float:
        return damped_bias(train, preprocessor, *pair).score(validation, preprocessor).stars.rmse

    return Dampings(*min(product(DAMPINGS, DAMPINGS), key=error))


def shrunk_mean(groups: Integers, values: Floats, size: int, damping: float) -> Floats:
    """``[size]``: sum of ``values`` in each group over its size plus ``damping``; 0 if empty."""
    sums = np.bincount(groups, weights=values, minlength=size)
    counts = np.bincount(groups, minlength=size)
    return sums / np.maximum(counts + damping, 1e-12)


GLOBAL_MEAN: Final = BaselineSpec[None](
    "global mean",
    lambda _train, _validation, _preprocessor, _trials: None,
    lambda rows, preprocessor, _: global_mean(rows, preprocessor),
    grid=0,
)

DAMPED_BIAS: Final = BaselineSpec[Dampings](
    "damped bias",
    best_dampings,
    lambda rows, preprocessor, chosen: damped_bias(rows, preprocessor, chosen.users, chosen.movies),
    grid=len(DAMPINGS) ** 2,
)
