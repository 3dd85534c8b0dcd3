"""Gibbs sampling against closed forms, and on data with a known signal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ncf.baselines.bayesian_factorization import (
    RANKS,
    BayesianFactorization,
    BayesianSettings,
    Draws,
    _Sampler,
    bayesian_factorization,
    best_rank,
    load_bayesian_factorization,
)
from ncf.baselines.matrix_factorization import FactorSettings, matrix_factorization
from ncf.data.preprocessor import UNKNOWN
from tests.ncf.worlds import World, rows_of

QUICK = BayesianSettings(rank=2, warm_up=20, draws=40)


@pytest.fixture(scope="module")
def model(world: World) -> BayesianFactorization:
    return bayesian_factorization(world.train, world.preprocessor, QUICK)


def closed_form(
    x: np.ndarray, y: np.ndarray, noise: float, mean: np.ndarray, precision: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of the weights of a linear model with a normal prior: as least squares
    with one more row for each eigenvector of the prior's precision."""
    values, vectors = np.linalg.eigh(precision)
    root = np.sqrt(values)[:, None] * vectors.T
    rows = np.concatenate([np.sqrt(noise) * x, root])
    targets = np.concatenate([np.sqrt(noise) * y, root @ mean])
    found, *_ = np.linalg.lstsq(rows, targets, rcond=None)
    return found, np.linalg.inv(rows.T @ rows)


def test_factors_are_drawn_from_their_distribution_given_all_else() -> None:
    random = np.random.default_rng(0)
    users = np.repeat([1, 2, 3], [1, 4, 9])
    residuals = random.normal(size=14)
    sampler = _Sampler(users, np.arange(14), residuals, (5, 14), BayesianSettings(rank=2))
    sampler._noise = 3.0
    side = sampler._users
    side.mean = torch.tensor([0.5, -0.2, 0.1], dtype=torch.float64)
    side.precision = torch.tensor(
        [[2.0, 0.3, 0.0], [0.3, 1.0, -0.2], [0.0, -0.2, 4.0]], dtype=torch.float64
    )
    x = torch.from_numpy(random.normal(size=(14, 3)))
    inputs = np.zeros((15, 4))  # the targets are the last column, and the last row is padding
    inputs[:14] = np.column_stack([x.numpy(), residuals])
    draws = np.empty((4000, 5, 3))
    for each in draws:
        sampler._draw_factors(side, inputs)
        each[:] = side.factors.numpy()
    np.testing.assert_array_equal(draws[:, [0, 4]], np.broadcast_to(side.mean, (4000, 2, 3)))
    for user in (1, 2, 3):
        own = users == user
        mean, covariance = closed_form(
            x.numpy()[own], residuals[own], 3.0, side.mean.numpy(), side.precision.numpy()
        )
        error = np.sqrt(np.diag(covariance) / len(draws))
        assert np.all(np.abs(draws[:, user].mean(axis=0) - mean) < 4.5 * error)
        np.testing.assert_allclose(np.cov(draws[:, user].T), covariance, atol=0.06)


def test_it_finds_the_signal_and_the_noise(world: World, model: BayesianFactorization) -> None:
    found = model.score(world.test, world.preprocessor).stars.rmse
    settings = FactorSettings(factors=2, penalty=0.05)
    least_squares = matrix_factorization(world.train, world.preprocessor, settings)
    assert found < least_squares.score(world.test, world.preprocessor).stars.rmse
    assert found < 1.12 * world.floor
    assert np.mean(model.of_draws.noise) ** -0.5 == pytest.approx(world.noise, rel=0.1)


def test_a_prediction_is_the_mean_over_draws(model: BayesianFactorization) -> None:
    rows = rows_of([1, 2, UNKNOWN], [3, 0, 5], [0.0] * 3)
    users, movies = model.of_draws.users, model.of_draws.movies
    assert len(users) == 20
    expected = [
        model.mean
        + np.mean(
            [p[u, 0] + q[m, 0] + p[u, 1:] @ q[m, 1:] for p, q in zip(users, movies, strict=True)]
        )
        for u, m in ((1, 3), (2, 0), (UNKNOWN, 5))
    ]
    np.testing.assert_allclose(model.predict(rows).numpy(), expected, rtol=1e-5)


def test_equal_seeds_give_equal_draws_and_others_others(world: World) -> None:
    settings = replace(QUICK, warm_up=2, draws=4)
    some = world.train[:400]
    first, same, other = (
        bayesian_factorization(some, world.preprocessor, replace(settings, seed=seed))
        .predict(world.test)
        .numpy()
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, same)
    assert np.abs(first - other).max() > 1e-3


def test_large_draws_are_fewer(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = (world.preprocessor.num_users + 1 + len(world.preprocessor.movies)) * 3 * 4
    monkeypatch.setattr("ncf.baselines.bayesian_factorization._LARGEST", 5 * sizes)
    settings = replace(QUICK, warm_up=1, draws=20)
    found = bayesian_factorization(world.train[:300], world.preprocessor, settings)
    assert len(found.of_draws.users) == 5
    assert "mean of 5 draws of a Gibbs sampler, every 4. after 1" in found.detail


def test_a_new_user_has_the_factors_of_least_squares_with_the_prior(
    model: BayesianFactorization,
) -> None:
    rated = rows_of([7, 7, 7], [0, 4, 9], [5.0, 1.5, 3.0])
    folded_in = model.fold_in(rated)
    known: Draws = model.of_draws
    for draw in (0, 11):
        q = known.movies[draw, [0, 4, 9]].astype(float)
        x = np.column_stack([np.ones(3), q[:, 1:]])
        y = rated.ratings.numpy() - model.mean - q[:, 0]
        mean, _ = closed_form(
            x, y, known.noise[draw], known.user_mean[draw], known.user_precision[draw]
        )
        np.testing.assert_allclose(folded_in.of_draws.users[draw, 0], mean, rtol=1e-4, atol=1e-5)
    asked = rows_of([UNKNOWN, 3], [4, 4], [0.0, 0.0])
    first, second = folded_in.predict(asked)  # whatever the index
    assert first == second
    assert first != model.predict(asked)[0]


def test_a_training_user_is_folded_in_with_nearly_the_same_predictions(
    world: World, model: BayesianFactorization
) -> None:
    differences = []
    for user in range(1, 30):
        own = world.train[world.train.users == user]
        asked = world.test[world.test.users == user]
        differences.append(model.fold_in(own).predict(asked) - model.predict(asked))
    assert torch.cat(differences).square().mean().sqrt() < 0.15


def test_what_is_saved_predicts_the_same(
    world: World, model: BayesianFactorization, tmp_path: Path
) -> None:
    model.save(tmp_path)
    loaded = load_bayesian_factorization(tmp_path, world.preprocessor)
    assert (loaded.name, loaded.settings) == (model.name, model.settings)
    expected = model.predict(world.test).numpy()
    np.testing.assert_array_equal(loaded.predict(world.test).numpy(), expected)
    fewer = replace(world.preprocessor, user_ids=world.preprocessor.user_ids[:-1])
    with pytest.raises(ValueError, match="users and movies instead of"):
        load_bayesian_factorization(tmp_path, fewer)


def test_the_rank_is_chosen_on_the_validation_rows(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def errs_least_with_8(rows: Any, preprocessor: Any, settings: BayesianSettings) -> Any:
        assert rows is world.train
        exact = world.validation.ratings.double() + abs(settings.rank - 8) / 100
        return type("Model", (), {"predict": lambda self, _rows: exact})()

    monkeypatch.setattr(
        "ncf.baselines.bayesian_factorization.bayesian_factorization", errs_least_with_8
    )
    assert RANKS == (4, 8, 16, 32)
    found = best_rank(world.train, world.validation, world.preprocessor)
    assert found == BayesianSettings(rank=8)
    assert best_rank(world.train, None, world.preprocessor) == BayesianSettings()
