"""Shared by the tests of ``ncf``: a catalogue written by hand, and data with a known signal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import pytest
import torch

from ncf.data.batches import Batch
from ncf.data.preprocessor import MovieTable, NumericColumn, Preprocessor
from tests.ncf.worlds import World, rmse, rows_of


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Models this small are slower with more threads, and many times so on a busy machine."""
    torch.set_num_threads(1)


@pytest.fixture
def preprocessor() -> Preprocessor:
    """Three users and four movies; the last movie has no training rating."""
    return Preprocessor(
        user_ids=np.array([10, 20, 30]),
        genres=("Comedy", "Drama", "War"),
        decades=(1980, 1990),
        numeric=(
            NumericColumn("budget", "log1p", 1.0, 40.0, 3.0, 2.0, indicator=True),
            NumericColumn("year", "none", 1.0, 1990.0, 1990.0, 5.0, indicator=False),
        ),
        rating_mean=3.5,
        rating_min=0.5,
        rating_max=5.0,
        decay_reference=1_000_000_000,
        decay_rate_per_day=0.001,
        movies=MovieTable(
            ids=np.array([1, 2, 5, 9]),
            titles=("One (1985)", "Two (1995)", "Five", "Nine (2001)"),
            embedding_index=np.array([1, 2, 3, 0]),
            genres=np.array([[1, 0, 0], [1, 0, 1], [0, 0, 0], [0, 1, 0]], dtype=np.bool_),
            decade=np.array([1, 2, 0, 0]),
            numeric=np.array(
                [[0.5, -1.0, 0.0], [-0.5, 1.0, 0.0], [0.0, 0.0, 1.0], [2.0, 2.0, 0.0]],
                dtype=np.float32,
            ),
            train_counts=np.array([4, 2, 1, 0]),
            names={
                name: np.array([[1, 2], [2, 0], [0, 0], [1, 0]], dtype=np.int32)
                for name in ("directors", "cast", "keywords")
            },
        ),
        vocabularies={n: np.array([500, 600]) for n in ("directors", "cast", "keywords")},
    )


@pytest.fixture
def make_rows() -> Callable[..., Batch]:
    """``make_rows(users, movies, ratings, weights, times)``; default weights 1, times 0."""
    return rows_of


@pytest.fixture(scope="session")
def world() -> World:
    """120 users and 80 movies: biases, a taste for one of two genres, and noise of 0.3 stars."""
    rng = np.random.default_rng(7)
    num_users, num_movies, noise = 120, 80, 0.3
    user_bias = rng.normal(0, 0.4, num_users)
    movie_bias = rng.normal(0, 0.4, num_movies)
    taste = rng.choice([-0.7, 0.7], num_users)
    side = rng.choice([-1, 1], num_movies)
    pairs = rng.permutation(num_users * num_movies)[:6000]
    users, movies = pairs // num_movies, pairs % num_movies
    ratings = 3.0 + user_bias[users] + movie_bias[movies] + taste[users] * side[movies]
    errors = rng.normal(0, noise, len(pairs))
    ratings += errors
    weights = rng.uniform(0.2, 1.0, len(pairs))
    times = np.random.default_rng(8).integers(0, 3 * 365 * 86_400, len(pairs))
    rows = rows_of(
        (users + 1).tolist(), movies.tolist(), ratings.tolist(), weights.tolist(), times.tolist()
    )
    table = MovieTable(
        ids=np.arange(num_movies),
        titles=tuple(f"Movie {number}" for number in range(num_movies)),
        embedding_index=np.arange(1, num_movies + 1),
        genres=np.stack([side < 0, side > 0], axis=1),
        decade=rng.integers(0, 3, num_movies),
        numeric=rng.normal(size=(num_movies, 1)).astype(np.float32),
        train_counts=np.bincount(movies[:4500], minlength=num_movies),
    )
    preprocessor = Preprocessor(
        user_ids=np.arange(num_users),
        genres=("Left", "Right"),
        decades=(1980, 1990),
        numeric=(NumericColumn("year", "none", 1.0, 1960.0, 1960.0, 5.0, indicator=False),),
        rating_mean=float(ratings[:4500].mean()),
        rating_min=float(ratings.min()),
        rating_max=float(ratings.max()),
        decay_reference=0,
        decay_rate_per_day=0.0,
        movies=table,
    )
    return World(
        preprocessor, rows[:4500], rows[4500:5100], rows[5100:], noise, rmse(errors[5100:])
    )


@pytest.fixture
def assert_same() -> Callable[[Any, Any], None]:
    """Compares two values, dataclasses field by field, arrays with their types."""
    return _assert_same


def _assert_same(found: Any, expected: Any, where: str = "value") -> None:
    assert type(found) is type(expected), where
    if is_dataclass(expected):
        for field in fields(expected):
            name = field.name
            _assert_same(getattr(found, name), getattr(expected, name), f"{where}.{name}")
    elif isinstance(expected, np.ndarray):
        assert found.dtype == expected.dtype, where
        np.testing.assert_array_equal(found, expected, err_msg=where)
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for key, value in expected.items():
            _assert_same(found[key], value, f"{where}[{key}]")
    elif isinstance(expected, tuple):
        assert len(found) == len(expected), where
        for number, (one, other) in enumerate(zip(found, expected, strict=True)):
            _assert_same(one, other, f"{where}[{number}]")
    else:
        assert found == expected, where
