"""Ratings with a known signal and noise of a known size, for tests; not a test itself."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from ncf.data.batches import Batch, TrainingBatch
from ncf.data.preprocessor import UNKNOWN, MovieTable, NumericColumn, Preprocessor
from ncf.data.sampling import TrainingRows

_YEAR = 365.25 * 86_400
_YEARS = 3
"""For how long people rate."""
_MORE_AT_FRONT = 2
"""Movies that ``with_more_movies`` puts before the others."""
_LISTS = ("directors", "cast", "keywords")


@dataclass(frozen=True)
class World:
    """Ratings drawn from a known signal, and noise of a known size."""

    preprocessor: Preprocessor
    train: Batch
    validation: Batch
    test: Batch
    noise: float
    """Standard deviation of the noise, in stars."""
    floor: float
    """RMSE on the test rows of a model that knows the whole signal. It differs from ``noise`` by
    chance, so models are compared with this."""


def rows_of(
    users: list[int],
    movies: list[int],
    ratings: list[float],
    weights: list[float] | None = None,
    times: list[int] | None = None,
) -> Batch:
    """Rows as a batch; weights are 1 and times 0 unless they are given."""
    return Batch(
        users=torch.tensor(users, dtype=torch.int32),
        movies=torch.tensor(movies, dtype=torch.int32),
        ratings=torch.tensor(ratings, dtype=torch.float32),
        weights=torch.tensor(weights or [1.0] * len(users), dtype=torch.float32),
        times=torch.tensor(times or [0] * len(users), dtype=torch.int64),
    )


def training_batch(rows: Batch) -> TrainingBatch:
    """The rows with their ratings as targets, and weights of 1."""
    ones = torch.ones_like(rows.weights)
    return TrainingBatch(rows.users, rows.movies, rows.ratings, ones, rows.times)


def training_rows(rows: Batch) -> TrainingRows:
    """The same, as rows to train on."""
    return TrainingRows(rows, training_batch)


def rmse(errors: npt.NDArray[np.float64]) -> float:
    """Root of the mean square, ``[N] -> []``."""
    return float(np.sqrt(np.mean(np.square(errors))))


@dataclass(frozen=True)
class Signal:
    """The terms of ratings besides noise of 0.3 stars: standard deviations in stars."""

    users: float = 0.4
    """Of the users' biases."""
    movies: float = 0.4
    """Of the movies' biases."""
    taste: float = 0.7
    """By how much users like or dislike each of the two sides that movies are on."""
    years: float = 0.0
    """Stars by which all ratings rise in a year."""
    choosy: float = 0.5
    """Share of a user's ratings that are of movies on the side he likes."""


def planted(signal: Signal) -> World:
    """60 users and 60 movies; each feature of a movie determines its side."""
    rng = np.random.default_rng(11)
    num_users, num_movies, num_train, num_test, noise = 60, 60, 2000, 600, 0.3
    taste = rng.permutation(np.repeat([-1, 1], num_users // 2))
    side = rng.permutation(np.repeat([-1, 1], num_movies // 2))
    user_bias = signal.users * rng.permutation(np.repeat([-1, 1], num_users // 2))
    movie_bias = signal.movies * rng.normal(0, 1, num_movies)
    likes = np.outer(taste, side).ravel() > 0
    odds = np.where(likes, signal.choosy, 1 - signal.choosy)
    count = num_train + num_test
    pairs = rng.choice(num_users * num_movies, count, replace=False, p=odds / odds.sum())
    users, movies = pairs // num_movies, pairs % num_movies
    times = rng.integers(0, round(_YEARS * _YEAR), count)
    ratings = 3.0 + user_bias[users] + movie_bias[movies]
    ratings += signal.taste * taste[users] * side[movies]
    ratings += signal.years * (times / _YEAR - _YEARS / 2)
    errors = rng.normal(0, noise, count)
    ratings += errors
    rows = rows_of((users + 1).tolist(), movies.tolist(), ratings.tolist(), times=times.tolist())
    seen = np.bincount(movies[:num_train], minlength=num_movies)
    assert seen.all()
    table = MovieTable(
        ids=np.arange(num_movies),
        titles=tuple(f"Movie {number}" for number in range(num_movies)),
        embedding_index=np.arange(1, num_movies + 1),
        genres=np.stack([side < 0, side > 0], axis=1),
        decade=np.where(side < 0, 1, 2),
        numeric=side[:, None].astype(np.float32),
        train_counts=seen,
        names={name: _names_that_tell(side, rng) for name in _LISTS},
    )
    preprocessor = Preprocessor(
        user_ids=np.arange(num_users),
        genres=("Left", "Right"),
        decades=(1980, 1990),
        numeric=(NumericColumn("runtime", "none", 1.0, 0.0, 0.0, 1.0, indicator=False),),
        rating_mean=float(ratings[:num_train].mean()),
        rating_min=float(ratings.min()),
        rating_max=float(ratings.max()),
        decay_reference=round(_YEARS / 2 * _YEAR),
        decay_rate_per_day=0.0,
        movies=table,
        vocabularies={name: np.arange(500, 504) for name in _LISTS},
    )
    train, test = rows[:num_train], rows[num_train:]
    return World(preprocessor, train, test[:0], test, noise, rmse(errors[num_train:]))


def _names_that_tell(
    side: npt.NDArray[np.int64], rng: np.random.Generator
) -> npt.NDArray[np.int32]:
    """One or both of the two entries of a movie's side, ``[M, 2]``."""
    choices = np.array([[[1, 0], [2, 0], [1, 2]], [[3, 0], [4, 0], [3, 4]]], dtype=np.int32)
    return choices[(side + 1) // 2, rng.integers(0, 3, len(side))]


def with_more_movies(world: World) -> World:
    """The same ratings, and a catalogue with people, keywords, and movies without ratings.

    The first and the last movie are like the first of the rated ones in all but that; of the
    second, nothing is known. A rated movie's embedding index is thus not its position plus one.
    """
    movies = world.preprocessor.movies
    order = np.array([0, 0, *range(len(movies)), 0])
    position = np.arange(len(order))
    unrated = (position < _MORE_AT_FRONT) | (position == position[-1])
    bare = position == 1
    names = {name: _some_names(len(movies), seed)[order] for seed, name in enumerate(_LISTS)}
    table = MovieTable(
        ids=position,
        titles=tuple(f"Movie {number}" for number in position),
        embedding_index=np.where(unrated, UNKNOWN, movies.embedding_index[order]),
        genres=movies.genres[order] & ~bare[:, None],
        decade=np.where(bare, UNKNOWN, movies.decade[order]),
        numeric=np.where(bare[:, None], np.float32(0), movies.numeric[order]),
        train_counts=np.where(unrated, 0, movies.train_counts[order]),
        names={name: np.where(bare[:, None], np.int32(0), n) for name, n in names.items()},
    )
    vocabularies = {name: np.arange(500, 506) for name in _LISTS}

    def moved(rows: Batch) -> Batch:
        return replace(rows, movies=rows.movies + _MORE_AT_FRONT)

    return replace(
        world,
        preprocessor=replace(world.preprocessor, movies=table, vocabularies=vocabularies),
        train=moved(world.train),
        validation=moved(world.validation),
        test=moved(world.test),
    )


def _some_names(count: int, seed: int) -> npt.NDArray[np.int32]:
    """One of three entries for each movie, and for most one of three others, ``[count, 2]``."""
    rng = np.random.default_rng(seed)
    second = rng.choice([0, 4, 5, 6], count)
    return np.stack([rng.integers(1, 4, count), second], axis=1).astype(np.int32)
