from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.linear_model import Ridge
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

from ncf.baselines import (
    DAMPINGS,
    DEFAULT_DAMPING,
    damped_bias,
    global_mean,
    tuned_damped_bias,
)
from ncf.data.batches import Batch
from ncf.data.preprocessor import Preprocessor

USERS = [1, 1, 1, 2, 2, 3, 1]
MOVIES = [0, 1, 2, 0, 1, 0, 3]
RATINGS = [5.0, 4.0, 4.5, 2.0, 1.0, 3.5, 4.0]


@pytest.fixture
def rows(make_rows: Callable[..., Batch]) -> Batch:
    return make_rows(USERS, MOVIES, RATINGS)


def design(rows: Batch, users: int, movies: int) -> npt.NDArray[np.float64]:
    """``[N, users + movies]`` one column for each user index from 1 and each movie."""
    matrix = np.zeros((len(rows), users + movies))
    every_row = np.arange(len(rows))
    matrix[every_row, rows.users.numpy() - 1] = 1
    matrix[every_row, users + rows.movies.numpy()] = 1
    return matrix


def ridge_solution(
    rows: Batch, users: int, movies: int, user_damping: float, movie_damping: float
) -> npt.NDArray[np.float64]:
    """Biases of users, then of movies, from the normal equations."""
    x = design(rows, users, movies)
    ratings = rows.ratings.double().numpy()
    penalty = np.diag([user_damping] * users + [movie_damping] * movies)
    return np.linalg.solve(x.T @ x + penalty, x.T @ (ratings - ratings.mean()))


@pytest.mark.parametrize(("user_damping", "movie_damping"), [(2.0, 3.0), (5.0, 5.0), (1.0, 25.0)])
def test_the_damped_bias_is_the_ridge_solution(
    user_damping: float, movie_damping: float, preprocessor: Preprocessor, rows: Batch
) -> None:
    found = damped_bias(rows, preprocessor, user_damping, movie_damping)
    expected = ridge_solution(rows, 3, 4, user_damping, movie_damping)
    assert found.mean == pytest.approx(np.mean(RATINGS))
    np.testing.assert_allclose(found.user_bias[1:], expected[:3], atol=1e-4)
    np.testing.assert_allclose(found.movie_bias, expected[3:], atol=1e-4)


def test_with_one_damping_it_is_scikit_learns_ridge(world: Any) -> None:
    found = damped_bias(world.train, world.preprocessor, 5.0, 5.0)
    x, ratings = design(world.train, 120, 80), world.train.ratings.double().numpy()
    reference = Ridge(alpha=5.0, fit_intercept=False, solver="cholesky")
    reference.fit(x, ratings - ratings.mean())
    expected = ratings.mean() + reference.predict(design(world.test, 120, 80))
    np.testing.assert_allclose(found.predict(world.test).numpy(), expected, atol=1e-3)


def test_a_lone_user_is_shrunk_by_hand(
    preprocessor: Preprocessor, make_rows: Callable[..., Batch]
) -> None:
    # Mean 3; infinite damping leaves no movie bias, so user 1 has (2 + 1) / (2 + 4) = 1/2.
    rows = make_rows([1, 1, 2, 2], [0, 1, 0, 1], [5.0, 4.0, 2.0, 1.0])
    found = damped_bias(rows, preprocessor, 4.0, math.inf)
    np.testing.assert_allclose(found.user_bias, [0, 0.5, -0.5, 0], atol=1e-12)
    np.testing.assert_array_equal(found.movie_bias, 0)


def test_without_damping_nothing_is_divided_by_zero(
    preprocessor: Preprocessor, make_rows: Callable[..., Batch]
) -> None:
    # User 3 and movies 2 and 3 have no rating.
    found = damped_bias(make_rows([1, 2], [0, 1], [4.0, 2.0]), preprocessor, 0.0, 0.0)
    stars = found.predict(make_rows([1, 2, 3], [0, 1, 3], [0.0] * 3)).numpy()
    np.testing.assert_allclose(stars, [4, 2, 3], atol=1e-12)


def test_unknown_users_and_movies_get_the_rest_of_the_sum(
    preprocessor: Preprocessor, make_rows: Callable[..., Batch]
) -> None:
    found = damped_bias(make_rows(USERS[:-1], MOVIES[:-1], RATINGS[:-1]), preprocessor, 1.0, 1.0)
    # User index 0 is unknown, and movie 3 was never rated.
    stars = found.predict(make_rows([0, 1, 0], [0, 3, 3], [0.0] * 3)).numpy()
    mean = np.mean(RATINGS[:-1])
    assert stars.tolist() == [mean + found.movie_bias[0], mean + found.user_bias[1], mean]


def test_ratings_of_unknown_users_share_no_bias(
    preprocessor: Preprocessor, make_rows: Callable[..., Batch]
) -> None:
    # Index 0 stands for all users without training ratings.
    found = damped_bias(make_rows([0, 0, 1], [0, 1, 0], [5.0, 5.0, 2.0]), preprocessor, 1.0, 1.0)
    assert found.user_bias[0] == 0
    assert found.movie_bias[1] == pytest.approx((5 - 4) / 2)


def test_the_global_mean_is_the_same_for_all_rows(preprocessor: Preprocessor, rows: Batch) -> None:
    found = global_mean(rows, preprocessor)
    np.testing.assert_allclose(found.predict(rows).numpy(), [24 / 7] * 7, rtol=1e-12)


def test_scores_are_those_of_clipped_predictions(
    preprocessor: Preprocessor, make_rows: Callable[..., Batch]
) -> None:
    train = make_rows([1, 1, 2, 2], [0, 1, 0, 1], [5.0, 5.0, 1.0, 1.0])
    narrow = replace(preprocessor, rating_min=2.0, rating_max=4.5)
    rows = make_rows([1, 2, 3], [0, 1, 2], [4.0, 2.5, 3.0], [1.0, 0.5, 0.25])
    scores = damped_bias(train, narrow, 0.0, 100.0).score(rows, narrow)
    stars = np.array([4.5, 2.0, 3.0])  # 5, 1 and 3 before clipping
    true, weights = np.array([4.0, 2.5, 3.0]), np.array([1.0, 0.5, 0.25])
    for sums, weight in ((scores.stars, np.ones(3)), (scores.decayed, weights)):
        found = (sums.rmse, sums.mae, sums.r2, sums.count)
        expected = (
            math.sqrt(mean_squared_error(true * weight, stars * weight)),
            mean_absolute_error(true * weight, stars * weight),
            r2_score(true * weight, stars * weight),
            3,
        )
        assert found == pytest.approx(expected)


def test_tuning_picks_the_dampings_that_are_best_on_the_validation_rows(world: Any) -> None:
    def validation_error(user_damping: float, movie_damping: float) -> float:
        biases = ridge_solution(few, 120, 80, user_damping, movie_damping)
        predicted = few.ratings.double().mean().item() + design(world.validation, 120, 80) @ biases
        stars = np.clip(predicted, world.preprocessor.rating_min, world.preprocessor.rating_max)
        return mean_squared_error(world.validation.ratings.double().numpy(), stars)

    few = world.train[:3000]
    # Without any damping the normal equations have no single solution.
    errors = {pair: validation_error(*pair) for pair in product(DAMPINGS[1:], DAMPINGS[1:])}
    user_damping, movie_damping = min(errors, key=lambda pair: errors[pair])
    assert user_damping != movie_damping  # so that swapping them would show
    detail = tuned_damped_bias(few, world.validation, world.preprocessor).detail
    assert detail == f"damping {user_damping:g} for users, {movie_damping:g} for movies"


def test_without_validation_rows_the_default_damping_is_taken(
    preprocessor: Preprocessor, rows: Batch
) -> None:
    found = tuned_damped_bias(rows, None, preprocessor)
    expected = ridge_solution(rows, 3, 4, DEFAULT_DAMPING, DEFAULT_DAMPING)
    np.testing.assert_allclose(found.user_bias[1:], expected[:3], atol=1e-4)
