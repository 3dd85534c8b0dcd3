"""Alternating least squares against closed forms and scikit-learn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from ncf.baselines import fit_baseline
from ncf.baselines.matrix_factorization import (
    MATRIX_FACTORIZATION,
    FactorSettings,
    Groups,
    MatrixFactorization,
    best_factors,
    matrix_factorization,
    ridge_each,
)
from ncf.baselines.neighbours import NEAREST_NEIGHBOURS
from ncf.data.batches import Batch
from ncf.data.preprocessor import Preprocessor


@pytest.mark.parametrize("width", [2, 6])  # fewer and more inputs than most groups have rows
def test_every_group_has_scikit_learns_ridge_solution(
    width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ncf.baselines.matrix_factorization._CELLS", 30)  # several blocks
    random = np.random.default_rng(3)
    members = random.permutation(np.repeat([0, 2, 3, 5], [1, 4, 9, 3]))
    inputs, targets = random.normal(size=(17, width)), random.normal(size=17)
    found = ridge_each(Groups.of(members, 6), inputs, targets, 0.3, 1.5)
    assert found.shape == (6, width)
    for group in range(6):
        mine = members == group
        if not mine.any():
            np.testing.assert_array_equal(found[group], 0.0)
            continue
        reference = Ridge(alpha=1.5 + 0.3 * mine.sum(), fit_intercept=False)
        reference.fit(inputs[mine], targets[mine])
        np.testing.assert_allclose(found[group], reference.coef_, atol=1e-8)


def objective(model: MatrixFactorization, rows: Batch) -> float:
    """What the sweeps lower: squared error and, for every rating, both vectors' penalties."""
    users, movies = rows.users.numpy(), rows.movies.numpy()
    error = rows.ratings.double().numpy() - model.predict(rows).numpy()
    lengths = model.user_factors[users] ** 2, model.movie_factors[movies] ** 2
    return float((error**2).sum() + model.settings.penalty * sum(part.sum() for part in lengths))


def test_every_sweep_lowers_the_objective(world: Any) -> None:
    settings = [FactorSettings(factors=4, sweeps=sweeps) for sweeps in (1, 2, 3, 6, 12)]
    values = [
        objective(matrix_factorization(world.train, world.preprocessor, s), world.train)
        for s in settings
    ]
    assert values == sorted(values, reverse=True)
    assert values[0] > 1.001 * values[-1]


def test_movie_factors_solve_the_normal_equations(world: Any) -> None:
    train = world.train
    model = matrix_factorization(train, world.preprocessor, FactorSettings(factors=3, sweeps=2))
    users, movies = train.users.numpy(), train.movies.numpy()
    left = train.ratings.double().numpy() - model.biases.predict(train).numpy()
    for movie in (0, 17, 79):
        p, r = model.user_factors[users[movies == movie]], left[movies == movie]
        expected = np.linalg.solve(p.T @ p + 0.1 * len(r) * np.eye(3), p.T @ r)
        np.testing.assert_allclose(model.movie_factors[movie], expected, atol=1e-9)


def test_a_synthetic_taste_is_learned(world: Any) -> None:
    model = matrix_factorization(
        world.train, world.preprocessor, FactorSettings(factors=2, penalty=0.05)
    )
    biased = model.biases.score(world.test, world.preprocessor).stars.rmse
    found = model.score(world.test, world.preprocessor).stars.rmse
    assert biased > 0.7  # the taste is 0.7 to either side
    assert found == pytest.approx(world.noise, rel=0.15)


def test_unknown_users_and_movies_get_the_bias_prediction(
    preprocessor: Preprocessor, make_rows: Callable[..., Batch]
) -> None:
    rows = make_rows([1, 1, 2, 2, 0], [0, 1, 0, 1, 0], [5.0, 1.0, 1.0, 5.0, 3.0])
    model = matrix_factorization(rows, preprocessor, FactorSettings(factors=2))
    strangers = make_rows([0, 1, 3], [0, 3, 1], [0.0] * 3)
    np.testing.assert_array_equal(model.predict(strangers), model.biases.predict(strangers))
    assert model.predict(rows)[0] > model.biases.predict(rows)[0]


def test_tuning_finds_settings_with_a_lower_validation_error(world: Any) -> None:
    train, validation = world.train[:2500], world.validation

    def error(settings: FactorSettings) -> float:
        model = matrix_factorization(train, world.preprocessor, settings)
        return model.score(validation, world.preprocessor).stars.rmse

    chosen = best_factors(train, validation, world.preprocessor, 12)
    assert error(chosen) < error(FactorSettings()) - 0.005
    assert best_factors(train, validation, world.preprocessor, 1) == FactorSettings()
    assert best_factors(train, None, world.preprocessor) == FactorSettings()


def test_it_is_fitted_once_with_each_seed(world: Any) -> None:
    found = fit_baseline(MATRIX_FACTORIZATION, world.train[:500], None, world.preprocessor)
    fits = found.refit(world.train, world.preprocessor, (0, 1))
    for seed, model in enumerate(fits):
        expected = matrix_factorization(world.train, world.preprocessor, FactorSettings(seed=seed))
        assert torch.equal(model.predict(world.test), expected.predict(world.test))
    assert not torch.equal(fits[0].predict(world.test), fits[1].predict(world.test))
    plain = fit_baseline(NEAREST_NEIGHBOURS, world.train[:500], None, world.preprocessor)
    assert len(plain.refit(world.train, world.preprocessor, (0, 1))) == 1
