"""Features of the user, the movie and the pair, from ratings without their times.

Every function takes ``history``, the ratings to compute features from, and ``rows``, whose ratings
it does not use; see ``ncf.baselines.tables``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from ncf.baselines.base import movies_of, ratings_of, users_of
from ncf.baselines.bias import Biases, damped_bias, shrunk_mean
from ncf.baselines.matrix_factorization import (
    FactorSettings,
    Groups,
    MatrixFactorization,
    matrix_factorization,
    ridge_each,
)
from ncf.baselines.tables import FeatureTable
from ncf.data.batches import Batch
from ncf.data.preprocessor import UNKNOWN, Floats, Integers, Preprocessor

_DAMPING: Final = 5.0
"""Number of residuals of 0 that shrink every mean."""

_TASTE_PENALTY: Final = 20.0
"""Ridge penalty of a user's weights for content."""

_FROM_TRAINING: Final = "train_ratings"
"""Numeric feature that counts the row itself, unlike the counts here."""


@dataclass(frozen=True)
class History:
    """Ratings to compute features from, with statistics that are computed once."""

    rows: Batch
    """The ratings."""
    preprocessor: Preprocessor
    """Provides the number of users and the movies' content."""

    @cached_property
    def users(self) -> Integers:
        """``[H]`` user index."""
        return users_of(self.rows)

    @cached_property
    def movies(self) -> Integers:
        """``[H]`` movie index."""
        return movies_of(self.rows)

    @cached_property
    def ratings(self) -> Floats:
        """``[H]`` stars."""
        return ratings_of(self.rows)

    @cached_property
    def biases(self) -> Biases:
        """Damped biases."""
        return damped_bias(self.rows, self.preprocessor, _DAMPING, _DAMPING)

    @cached_property
    def residuals(self) -> Floats:
        """``[H]`` rating minus damped biases."""
        return self.biases.residuals(self.rows)

    @cached_property
    def factors(self) -> MatrixFactorization:
        """A small matrix factorisation."""
        return matrix_factorization(self.rows, self.preprocessor, FactorSettings(16, 0.2, sweeps=5))


def content(preprocessor: Preprocessor) -> FeatureTable:
    """``[M, C]``: numeric features, genres and decade of every movie."""
    table = preprocessor.movies
    numeric = [
        (name, table.numeric[:, at].astype(np.float64))
        for at, name in enumerate(preprocessor.numeric_names)
        if name != _FROM_TRAINING
    ]
    genres = [
        (f"genre {name}", table.genres[:, at].astype(np.float64))
        for at, name in enumerate(preprocessor.genres)
    ]
    decade = np.where(table.decade == UNKNOWN, np.nan, table.decade).astype(np.float64)
    return FeatureTable.of([*numeric, *genres, ("decade", decade)])


def statistics(history: History, rows: Batch) -> FeatureTable:
    """Features of the rows' users, movies and pairs."""
    users, movies = users_of(rows), movies_of(rows)
    preprocessor = history.preprocessor
    contents = content(preprocessor)
    return (
        _user_features(history, users)
        .beside(_movie_features(history, movies))
        .beside(_pair_features(history, users, movies))
        .beside(FeatureTable(contents.names, contents.values[movies]))
    )


def _user_features(history: History, users: Integers) -> FeatureTable:
    size = history.preprocessor.num_users + 1
    summary = _summary(history.users, history.ratings, size)
    popularity = np.log1p(np.bincount(history.movies, minlength=len(history.preprocessor.movies)))
    popularity_mean = _mean(history.users, popularity[history.movies], size)
    quality = _mean(history.users, history.biases.movie_bias[history.movies], size)
    halves = _mean(history.users, (history.ratings % 1 != 0).astype(np.float64), size)
    is_top = (history.ratings >= history.preprocessor.rating_max).astype(np.float64)
    top = _mean(history.users, is_top, size)
    columns = [
        ("user bias", history.biases.user_bias),
        *((f"user {name}", column) for name, column in summary),
        ("user popularity", popularity_mean),
        ("user movie bias", quality),
        ("user half stars", halves),
        ("user top", top),
    ]
    return _look_up(columns, users, unknown=UNKNOWN)


def _movie_features(history: History, movies: Integers) -> FeatureTable:
    size = len(history.preprocessor.movies)
    summary = _summary(history.movies, history.ratings, size)
    activity = np.log1p(np.bincount(history.users, minlength=history.preprocessor.num_users + 1))
    columns = [
        ("movie bias", history.biases.movie_bias),
        *((f"movie {name}", column) for name, column in summary),
        ("movie raters activity", _mean(history.movies, activity[history.users], size)),
        (
            "movie raters bias",
            _mean(history.movies, history.biases.user_bias[history.users], size),
        ),
    ]
    return _look_up(columns, movies)


def _pair_features(history: History, users: Integers, movies: Integers) -> FeatureTable:
    p, q = history.factors.user_factors[users], history.factors.movie_factors[movies]
    return FeatureTable.of(
        [
            ("bias prediction", history.biases.stars(users, movies)),
            ("factorization", np.einsum("bk,bk->b", p, q)),
            ("genre taste", _genre_taste(history, users, movies)),
            ("content taste", _content_taste(history, users, movies)),
        ]
    )


def _genre_taste(history: History, users: Integers, movies: Integers) -> Floats:
    """``[B]``: mean over the movie's genres of the user's damped mean residual in each."""
    genres = history.preprocessor.movies.genres.astype(np.float64)
    size = history.preprocessor.num_users + 1
    affinity = np.zeros((size, genres.shape[1]))
    for genre in range(genres.shape[1]):
        has = genres[history.movies, genre] > 0
        affinity[:, genre] = shrunk_mean(history.users[has], history.residuals[has], size, _DAMPING)
    affinity[UNKNOWN] = 0.0
    number = np.maximum(genres[movies].sum(axis=1), 1.0)
    return np.einsum("bg,bg->b", affinity[users], genres[movies]) / number


def standardised(preprocessor: Preprocessor) -> Floats:
    """``[M, C]`` content with missing values as 0, and decades as one column each."""
    table = preprocessor.movies
    without_decade = content(preprocessor).values[:, :-1]
    decades = table.decade[:, None] == np.arange(1, len(preprocessor.decades) + 1)
    return np.column_stack([without_decade, decades.astype(np.float64)])


def _content_taste(history: History, users: Integers, movies: Integers) -> Floats:
    """``[B]``: ridge regression of each user's residuals on the content of the movies."""
    inputs = standardised(history.preprocessor)
    groups = Groups.of(history.users, history.preprocessor.num_users + 1)
    taste = ridge_each(groups, inputs[history.movies], history.residuals, 0.0, _TASTE_PENALTY)
    taste[UNKNOWN] = 0.0
    return np.einsum("bc,bc->b", taste[users], inputs[movies])


def _summary(groups: Integers, values: Floats, size: int) -> list[tuple[str, Floats]]:
    """Number, mean and spread of the values of each group, ``[size]`` each."""
    counts = np.bincount(groups, minlength=size)
    mean = _mean(groups, values, size)
    variance = _mean(groups, (values - mean[groups]) ** 2, size)
    return [("count", np.log1p(counts)), ("mean", mean), ("spread", np.sqrt(variance))]


def _mean(groups: Integers, values: Floats, size: int) -> Floats:
    """``[size]`` mean of each group, NaN for an empty one."""
    counts = np.bincount(groups, minlength=size)
    sums = np.bincount(groups, weights=values, minlength=size)
    return np.divide(sums, counts, out=np.full(size, np.nan), where=counts > 0)


def _look_up(
    columns: list[tuple[str, Floats]], index: Integers, unknown: int | None = None
) -> FeatureTable:
    """Look up columns ``[size]`` at ``index: [B]``; NaN at the index ``unknown``."""
    table = FeatureTable.of(columns)
    values = table.values[index]
    if unknown is not None:
        values[index == unknown] = np.nan
    return FeatureTable(table.names, values)
