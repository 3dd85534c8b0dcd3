"""Weights of a blend against scikit-learn, and cross-fitting against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from ncf.blending.weights import Weights


@pytest.fixture
def rows() -> tuple[np.ndarray, np.ndarray]:
    """Predictions of three members for 400 ratings: two good ones, and one that misleads."""
    random = np.random.default_rng(0)
    signal = random.normal(0, 0.8, 400)
    ratings = 3.5 + signal + random.normal(0, 0.7, 400)
    members = np.stack(
        [
            3.5 + signal + random.normal(0, 0.3, 400),
            3.5 + 1.5 * signal + random.normal(0, 0.5, 400),
            3.5 - signal,
        ]
    )
    return members, ratings


def test_weights_are_those_of_scikit_learn(rows: tuple[np.ndarray, np.ndarray]) -> None:
    members, ratings = rows
    found = Weights.fit(members, ratings)
    assert found.center == pytest.approx(ratings.mean())
    reference = LinearRegression(positive=True, fit_intercept=False)
    reference.fit((members - found.center).T, ratings - found.center)
    np.testing.assert_allclose(found.of_members, reference.coef_, atol=1e-9)
    assert found.of_members[2] == 0.0
    assert min(found.of_members[:2]) > 0.05


def test_a_blend_is_the_center_plus_weighted_differences() -> None:
    weights = Weights(3.0, (0.5, 0.25))
    found = weights.combine(np.array([[4.0, 3.0, 1.0], [5.0, 3.0, 3.0]]))
    np.testing.assert_allclose(found, [3 + 0.5 + 0.5, 3.0, 3 - 1.0])


def test_the_blend_errs_less_than_its_members(rows: tuple[np.ndarray, np.ndarray]) -> None:
    members, ratings = rows
    half = np.arange(400) < 200
    blend = Weights.fit(members[:, half], ratings[half]).combine(members[:, ~half])
    errors = np.mean((members[:, ~half] - ratings[~half]) ** 2, axis=1)
    assert np.mean((blend - ratings[~half]) ** 2) < errors.min()


def test_cross_fitted_predictions_do_not_know_their_own_ratings(
    rows: tuple[np.ndarray, np.ndarray],
) -> None:
    members, ratings = rows
    before = Weights.cross_fitted(members, ratings)
    changed = ratings.copy()
    changed[17] += 100.0
    after = Weights.cross_fitted(members, changed)
    assert after[17] == before[17]
    # About four of five others have weights that were fitted to it.
    assert 0.75 < np.mean(after != before) < 0.85
    fitted = Weights.fit(members, ratings).combine(members)
    assert 0 < np.abs(fitted - before).max() < 0.2
