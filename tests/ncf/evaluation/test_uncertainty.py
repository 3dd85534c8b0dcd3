"""Standard deviations and intervals on data whose noise is known, and scores against SciPy."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from ncf.evaluation.uncertainty import LEVELS, Intervals, Uncertainty, UncertaintyScores, crps


def drawn(number: int, seed: int) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Features, errors, and the standard deviations that the errors were drawn with."""
    random = np.random.default_rng(seed)
    features = {"a": random.normal(5, 2, number), "b": random.uniform(0, 1, number)}
    sd = np.exp(-0.5 + 0.2 * (features["a"] - 5) - 0.4 * features["b"])
    return features, random.normal(0, sd), sd


def test_standard_deviations_are_those_of_the_noise() -> None:
    features, errors, _ = drawn(20_000, 0)
    learned = Uncertainty.fit(features, errors)
    unseen, _, sd = drawn(1_000, 1)
    np.testing.assert_allclose(learned.sd(unseen), sd, rtol=0.06)


def test_without_differences_it_is_the_root_mean_square() -> None:
    errors = np.random.default_rng(2).normal(0, 0.8, 500)
    learned = Uncertainty.fit({"same": np.full(500, 3.0)}, errors)
    found = learned.sd({"same": np.array([3.0, 3.0])})
    np.testing.assert_allclose(found, np.sqrt(np.mean(errors**2)), rtol=1e-4)


@pytest.mark.parametrize("level", LEVELS)
def test_intervals_hold_their_share_of_other_rows(level: float) -> None:
    features, errors, _ = drawn(5_000, 3)
    learned = Uncertainty.fit(features, errors**3)  # far from normal, which quantiles know
    unseen, of_unseen, _ = drawn(5_000, 4)
    stars = np.full(5_000, 100.0)
    found = learned.intervals(stars, unseen, level, -1e9, 1e9)
    ratings = stars + of_unseen**3
    covered = np.mean((found.low <= ratings) & (ratings <= found.high))
    assert covered == pytest.approx(level, abs=0.02)


def test_intervals_stay_on_the_scale() -> None:
    features, errors, _ = drawn(200, 5)
    learned = Uncertainty.fit(features, errors)
    found = learned.intervals(np.full(200, 4.9), features, 0.95, 0.5, 5.0)
    assert found.high.max() == 5.0
    assert (found.low > 0.5).any()
    with pytest.raises(ValueError, match=r"found 0.7, expected one of 0.5, 0.8, 0.9, 0.95"):
        learned.intervals(np.full(200, 4.9), features, 0.7, 0.5, 5.0)


def test_few_rows_give_wider_intervals_that_hold_at_least_their_share() -> None:
    # The mean over many small samples of the coverage, which conformal intervals guarantee.
    random = np.random.default_rng(6)
    covered = []
    for _ in range(300):
        errors = random.normal(size=40)
        learned = Uncertainty.fit({"none": np.zeros(40)}, errors)
        below, above = learned.quantiles["0.8"]
        sd = learned.sd({"none": np.zeros(1)})[0]
        covered.append(norm.cdf(above * sd) - norm.cdf(below * sd))
    # Of 40 rows the 37th, of 41 intervals between them: 2 x 37 / 41 - 1.
    assert np.mean(covered) == pytest.approx(2 * 37 / 41 - 1, abs=0.015)


def test_it_survives_json() -> None:
    features, errors, _ = drawn(300, 7)
    learned = Uncertainty.fit(features, errors)
    values = json.loads(json.dumps(learned.to_json()))
    assert Uncertainty.from_json(values) == learned


@pytest.mark.parametrize(
    "change",
    [
        {"coefficients": [1.0]},
        {"scales": [0.0, 1.0]},
        {"means": [float("nan"), 1.0]},
        {"quantiles": {"0.9": [1.0]}},
    ],
)
def test_odd_json_is_refused(change: dict[str, Any]) -> None:
    features, errors, _ = drawn(50, 8)
    with pytest.raises(ValueError):  # noqa: PT011 - the caller names the file
        Uncertainty.from_json(Uncertainty.fit(features, errors).to_json() | change)


def test_scores_are_those_of_scipy() -> None:
    ratings, stars = np.array([3.0, 4.5, 1.0]), np.array([3.2, 4.0, 3.0])
    sd = np.array([0.5, 1.0, 0.8])
    half = Intervals(sd, stars - 0.3, stars + 0.3)
    wide = Intervals(sd, stars - 1.0, stars + 1.0)
    found = UncertaintyScores.of({0.5: half, 0.9: wide}, stars, ratings, constant_sd=0.9)
    assert found.coverage == {"0.5": pytest.approx(1 / 3), "0.9": pytest.approx(2 / 3)}
    assert found.width == {"0.5": pytest.approx(0.6), "0.9": pytest.approx(2.0)}
    assert found.nll == pytest.approx(-np.mean(norm.logpdf(ratings, stars, sd)))
    assert found.constant_nll == pytest.approx(-np.mean(norm.logpdf(ratings, stars, 0.9)))
    assert found.num_ratings == 3

    def integrated(rating: float, mean: float, deviation: float) -> float:
        def square(at: float) -> float:
            return float((norm.cdf(at, mean, deviation) - (at >= rating)) ** 2)

        return quad(square, -10, rating)[0] + quad(square, rating, 15)[0]

    expected = [integrated(*each) for each in zip(ratings, stars, sd, strict=True)]
    np.testing.assert_allclose(crps(ratings, stars, sd), expected, rtol=1e-5)
    assert found.crps == pytest.approx(np.mean(expected), rel=1e-5)
