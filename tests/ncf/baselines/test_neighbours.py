"""Item neighbours against the formulas of Surprise's documentation, written as plain loops."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ncf.baselines.neighbours import (
    DAMPINGS,
    NEIGHBOURS,
    SHRINKAGES,
    NeighbourSettings,
    best_means,
    best_neighbours,
    nearest_neighbours,
)
from ncf.data.batches import Batch
from ncf.data.preprocessor import Preprocessor

# (user, movie): stars; movie 3 has no ratings, and user 3 rated a single movie.
RATINGS = {
    (1, 0): 5.0,
    (1, 1): 4.0,
    (1, 2): 1.5,
    (2, 0): 2.0,
    (2, 1): 1.0,
    (2, 2): 4.5,
    (3, 0): 3.5,
}

Ratings = dict[tuple[int, int], float]


def als_biases(
    ratings: Ratings, user_damping: float, movie_damping: float
) -> tuple[float, dict[int, float], dict[int, float]]:
    """Surprise's baselines: ten sweeps, movies first."""
    mean = sum(ratings.values()) / len(ratings)
    users = {u: 0.0 for u, _ in ratings}
    movies = {i: 0.0 for _, i in ratings}
    for _ in range(10):
        for movie in movies:
            left = [r - mean - users[u] for (u, i), r in ratings.items() if i == movie]
            movies[movie] = sum(left) / (movie_damping + len(left))
        for user in users:
            left = [r - mean - movies[i] for (u, i), r in ratings.items() if u == user]
            users[user] = sum(left) / (user_damping + len(left))
    return mean, users, movies


class Reference:
    """``KNNBaseline(k, sim_options={"name": "pearson_baseline", "user_based": False})``."""

    def __init__(self, ratings: Ratings, settings: NeighbourSettings) -> None:
        self.ratings, self.settings = ratings, settings
        self.mean, self.users, self.movies = als_biases(
            ratings, settings.user_damping, settings.movie_damping
        )

    def bias(self, user: int, movie: int) -> float:
        return self.mean + self.users.get(user, 0.0) + self.movies.get(movie, 0.0)

    def similarity(self, i: int, j: int) -> float:
        both = [u for u in self.users if (u, i) in self.ratings and (u, j) in self.ratings]
        of_i = [self.ratings[u, i] - self.bias(u, i) for u in both]
        of_j = [self.ratings[u, j] - self.bias(u, j) for u in both]
        norm = math.sqrt(sum(a * a for a in of_i) * sum(b * b for b in of_j))
        if not norm:
            return 0.0
        correlation = sum(a * b for a, b in zip(of_i, of_j, strict=True)) / norm
        return (len(both) - 1) / (len(both) - 1 + self.settings.shrinkage) * correlation

    def predict(self, user: int, movie: int) -> float:
        rated = [j for u, j in self.ratings if u == user]
        similar = sorted(((self.similarity(movie, j), j) for j in rated), reverse=True)
        best = [(s, j) for s, j in similar[: self.settings.neighbours] if s > 0]
        total = sum(s for s, _ in best)
        if not total:
            return self.bias(user, movie)
        deviation = sum(s * (self.ratings[user, j] - self.bias(user, j)) for s, j in best)
        return self.bias(user, movie) + deviation / total


def batch(make_rows: Callable[..., Batch], ratings: Ratings) -> Batch:
    users, movies = [u for u, _ in ratings], [i for _, i in ratings]
    return make_rows(users, movies, list(ratings.values()))


def of(rows: Batch) -> Ratings:
    pairs = zip(rows.users.tolist(), rows.movies.tolist(), strict=True)
    return dict(zip(pairs, rows.ratings.tolist(), strict=True))


@pytest.mark.parametrize("neighbours", [1, 2, 40])
def test_predictions_are_those_of_surprises_formulas(
    neighbours: int, preprocessor: Preprocessor, make_rows: Callable[..., Batch]
) -> None:
    settings = NeighbourSettings(neighbours, 3.0)
    found = nearest_neighbours(batch(make_rows, RATINGS), preprocessor, settings)
    reference = Reference(RATINGS, settings)
    # Every pair, and the unknown user 0.
    pairs = [(user, movie) for user in range(4) for movie in range(4)]
    stars = found.predict(make_rows([u for u, _ in pairs], [i for _, i in pairs], [0.0] * 16))
    expected = [reference.predict(*pair) for pair in pairs]
    np.testing.assert_allclose(stars.numpy(), expected, atol=1e-10)
    assert expected[4 + 1] != pytest.approx(reference.bias(1, 1))  # the neighbours did something


def test_many_movies_in_several_blocks(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ncf.baselines.neighbours._CELLS", 500)
    train, rows = world.train[:700], world.test[:60]
    settings = NeighbourSettings(3, 10.0, 5.0, 2.5)
    found = nearest_neighbours(train, world.preprocessor, settings).predict(rows).numpy()
    reference = Reference(of(train), settings)
    expected = [reference.predict(user, movie) for user, movie in of(rows)]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_ratings_of_unknown_users_are_in_no_history(
    preprocessor: Preprocessor, make_rows: Callable[..., Batch]
) -> None:
    rows = make_rows([0, 0, 1, 1], [0, 1, 0, 1], [5.0, 5.0, 1.0, 2.0])
    found = nearest_neighbours(rows, preprocessor, NeighbourSettings(5, 0.0))
    stars = found.predict(make_rows([0], [0], [0.0])).item()
    assert stars == pytest.approx(found.biases.mean + found.biases.movie_bias[0])


def test_only_the_largest_positive_weights_count() -> None:
    weights = np.array([[0.5, 0.0, 1.0, 0.25], [0.0, 0.0, 0.0, 0.0]])
    values = np.array([[1.0, 9.0, 2.0, -4.0], [1.0, 1.0, 1.0, 1.0]])
    found = best_means(weights, values, [1, 2, 9])
    expected = [[2.0, 0.0], [2.5 / 1.5, 0.0], [1.5 / 1.75, 0.0]]
    np.testing.assert_allclose(found, expected)


def test_tuning_takes_the_least_validation_error(world: Any) -> None:
    train, validation = world.train[:2000], world.validation
    errors = {}
    for dampings in DAMPINGS:
        for shrinkage in SHRINKAGES:
            for neighbours in NEIGHBOURS:
                settings = NeighbourSettings(neighbours, shrinkage, *dampings)
                model = nearest_neighbours(train, world.preprocessor, settings)
                errors[settings] = model.score(validation, world.preprocessor).stars.rmse
    best = min(errors.values())
    assert errors[best_neighbours(train, validation, world.preprocessor)] == pytest.approx(best)
    assert best < max(errors.values())


def test_without_validation_rows_surprises_defaults_are_taken(world: Any) -> None:
    assert best_neighbours(world.train, None, world.preprocessor) == NeighbourSettings(
        40, 100, 15, 10
    )
