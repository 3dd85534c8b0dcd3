"""Features of the user, the movie and the pair, from ratings without their times.

Every function takes ``history``, the ratings to compute features from, and ``rows``, whose ratings
it does not use; see ``ncf.baselines.tables``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

import numpy as np
import torch

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

_FACTORS: Final = FactorSettings(16, 0.2, sweeps=5)

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
    others: History | None = None
    """For the ratings of one new user: those of the other users, from which everything follows that
    is known of movies."""

    def fold_in(self, rows: Batch) -> History:
        """The history of one new user, who has index 1 in it; ``rows`` are all of that user."""
        rows = replace(rows, users=torch.ones_like(rows.users))
        return History(rows, replace(self.preprocessor, user_ids=np.zeros(1, np.int64)), self)

    def described(self, rows: Batch) -> Batch:
        """The rows with the user indices of this history: of one new user, they are all of that
        user."""
        return rows if self.others is None else replace(rows, users=torch.ones_like(rows.users))

    @property
    def num_indices(self) -> int:
        """User indices, 0 included."""
        return self.preprocessor.num_users + 1

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
        if self.others is None:
            return damped_bias(self.rows, self.preprocessor, _DAMPING, _DAMPING)
        known = self.others.biases
        residual = self.ratings - known.mean - known.movie_bias[self.movies]
        user_bias = shrunk_mean(self.users, residual, self.num_indices, _DAMPING)
        return replace(known, user_bias=user_bias)

    @cached_property
    def residuals(self) -> Floats:
        """``[H]`` rating minus damped biases."""
        return self.biases.residuals(self.rows)

    @cached_property
    def factors(self) -> MatrixFactorization:
        """A small matrix factorisation."""
        if self.others is None:
            return matrix_factorization(self.rows, self.preprocessor, _FACTORS)
        # As one more update of the users, with the movies' factors as they are.
        known = self.others.factors
        groups = Groups.of(self.users, self.num_indices)
        inputs = known.movie_factors[self.movies]
        return replace(
            known, user_factors=ridge_each(groups, inputs, self.residuals, _FACTORS.penalty)
        )

    @cached_property
    def popularity(self) -> Floats:
        """``[M]`` logarithm of 1 + ratings."""
        if self.others is not None:
            return self.others.popularity
        return np.log1p(np.bincount(self.movies, minlength=len(self.preprocessor.movies)))

    @cached_property
    def content(self) -> FeatureTable:
        """``[M, C]`` content of every movie."""
        return self.others.content if self.others else content(self.preprocessor)

    @cached_property
    def standardised(self) -> Floats:
        """``[M, C]`` content without missing values."""
        return self.others.standardised if self.others else standardised(self.preprocessor)

    @cached_property
    def directions(self) -> Floats:
        """``[M, C]`` content of every movie, scaled to length 1."""
        if self.others is not None:
            return self.others.directions
        length = np.linalg.norm(self.standardised, axis=1, keepdims=True)
        none = np.zeros_like(self.standardised)
        return np.divide(self.standardised, length, out=none, where=length > 0)

    @cached_property
    def times(self) -> Floats:
        """``[H]`` seconds since 1970 UTC."""
        return self.rows.times.numpy().astype(np.float64)

    @cached_property
    def in_time(self) -> Groups:
        """The ratings of every user, in order of time."""
        counts = np.bincount(self.users, minlength=self.num_indices)
        return Groups(
            np.lexsort((self.times, self.users)), np.concatenate([[0], np.cumsum(counts)])
        )

    @cached_property
    def of_movies(self) -> FeatureTable:
        """``[M, F]`` features of every movie."""
        return self.others.of_movies if self.others else _movie_features(self)

    @cached_property
    def of_users(self) -> FeatureTable:
        """``[U + 1, F]`` features of every user."""
        return _user_features(self)

    @cached_property
    def genre_tastes(self) -> Floats:
        """``[U + 1, G]`` damped mean residual of every user in every genre."""
        genres = self.preprocessor.movies.genres
        tastes = np.zeros((self.num_indices, genres.shape[1]))
        for genre in range(genres.shape[1]):
            has = genres[self.movies, genre]
            tastes[:, genre] = shrunk_mean(
                self.users[has], self.residuals[has], self.num_indices, _DAMPING
            )
        tastes[UNKNOWN] = 0.0
        return tastes

    @cached_property
    def content_tastes(self) -> Floats:
        """``[U + 1, C]``: ridge regression of each user's residuals on the movies' content."""
        groups = Groups.of(self.users, self.num_indices)
        inputs = self.standardised[self.movies]
        tastes = ridge_each(groups, inputs, self.residuals, 0.0, _TASTE_PENALTY)
        tastes[UNKNOWN] = 0.0
        return tastes


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
    return (
        _look_up(history.of_users, users, unknown=UNKNOWN)
        .beside(_look_up(history.of_movies, movies))
        .beside(_pair_features(history, users, movies))
        .beside(_look_up(history.content, movies))
    )


def _user_features(history: History) -> FeatureTable:
    """Of every user."""
    size, users = history.num_indices, history.users
    popularity = _mean(users, history.popularity[history.movies], size)
    quality = _mean(users, history.biases.movie_bias[history.movies], size)
    halves = _mean(users, (history.ratings % 1 != 0).astype(np.float64), size)
    is_top = (history.ratings >= history.preprocessor.rating_max).astype(np.float64)
    return FeatureTable.of(
        [
            ("user bias", history.biases.user_bias),
            *((f"user {name}", of) for name, of in _summary(users, history.ratings, size)),
            ("user popularity", popularity),
            ("user movie bias", quality),
            ("user half stars", halves),
            ("user top", _mean(users, is_top, size)),
        ]
    )


def _movie_features(history: History) -> FeatureTable:
    """Of every movie."""
    size, movies = len(history.preprocessor.movies), history.movies
    activity = np.log1p(np.bincount(history.users, minlength=history.num_indices))
    bias = history.biases.user_bias[history.users]
    return FeatureTable.of(
        [
            ("movie bias", history.biases.movie_bias),
            *((f"movie {name}", of) for name, of in _summary(movies, history.ratings, size)),
            ("movie raters activity", _mean(movies, activity[history.users], size)),
            ("movie raters bias", _mean(movies, bias, size)),
        ]
    )


def _pair_features(history: History, users: Integers, movies: Integers) -> FeatureTable:
    p, q = history.factors.user_factors[users], history.factors.movie_factors[movies]
    genres = history.preprocessor.movies.genres[movies].astype(np.float64)
    num_genres = np.maximum(genres.sum(axis=1), 1.0)
    tastes, inputs = history.content_tastes[users], history.standardised[movies]
    return FeatureTable.of(
        [
            ("bias prediction", history.biases.stars(users, movies)),
            ("factorization", np.einsum("bk,bk->b", p, q)),
            (
                "genre taste",
                np.einsum("bg,bg->b", history.genre_tastes[users], genres) / num_genres,
            ),
            ("content taste", np.einsum("bc,bc->b", tastes, inputs)),
        ]
    )


def standardised(preprocessor: Preprocessor) -> Floats:
    """``[M, C]`` content with missing values as 0, and decades as one column each."""
    table = preprocessor.movies
    without_decade = content(preprocessor).values[:, :-1]
    decades = table.decade[:, None] == np.arange(1, len(preprocessor.decades) + 1)
    return np.column_stack([without_decade, decades.astype(np.float64)])


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


def _look_up(table: FeatureTable, index: Integers, unknown: int | None = None) -> FeatureTable:
    """Rows ``index: [B]`` of a table; NaN at the index ``unknown``."""
    values = table.values[index]
    if unknown is not None:
        values[index == unknown] = np.nan
    return FeatureTable(table.names, values)
