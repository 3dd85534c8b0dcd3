from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import linregress
from sklearn.calibration import calibration_curve

from ncf.evaluation.calibration import Calibration


def test_two_bins_by_hand() -> None:
    found = Calibration.of("m", np.array([[4.0, 1.0, 2.0, 5.0]]), np.array([4.0, 2, 2, 4]), 2)

    assert found.model == "m"
    assert [(b.num_rows, b.predicted, b.actual) for b in found.bins] == [
        (2, 1.5, 2.0),
        (2, 4.5, 4.0),
    ]
    assert found.expected_error == 0.5
    # Deviations from the mean 3 are 1, -2, -1, 2; slope (4 - 4 - 2 + 8) / 10.
    assert found.slope == pytest.approx(0.6)
    assert found.intercept == pytest.approx(3 - 0.6 * 3)


def test_bins_are_those_of_scikit_learn_and_the_line_that_of_scipy() -> None:
    rng = np.random.default_rng(0)
    guesses = rng.uniform(0, 1, 1000)
    truths = (rng.uniform(0, 1, 1000) < guesses**2).astype(np.float64)

    found = Calibration.of("m", guesses[None], truths)

    actual, predicted = calibration_curve(truths, guesses, n_bins=10, strategy="quantile")
    assert [b.actual for b in found.bins] == pytest.approx(actual)
    assert [b.predicted for b in found.bins] == pytest.approx(predicted)
    assert [b.num_rows for b in found.bins] == [100] * 10
    line = linregress(guesses, truths)
    assert found.slope == pytest.approx(line.slope)
    assert found.intercept == pytest.approx(line.intercept)


def test_perfect_predictions_have_slope_one_and_no_error() -> None:
    truths = np.arange(100.0)

    found = Calibration.of("m", truths[None], truths)

    assert found.expected_error == pytest.approx(0)
    assert found.slope == pytest.approx(1)
    assert found.intercept == pytest.approx(0)


def test_equal_predictions_share_a_bin_and_have_no_slope() -> None:
    found = Calibration.of("mean", np.full((1, 50), 3.5), np.linspace(1, 5, 50))

    assert [(b.num_rows, b.predicted) for b in found.bins] == [(50, 3.5)]
    assert found.expected_error == pytest.approx(0.5)
    assert (found.slope, found.intercept) == (None, None)


def test_seeds_are_pooled_and_not_averaged() -> None:
    """Each seed is off by one, in opposite directions; their mean would be perfect."""
    truths = np.array([1.0, 2.0, 3.0, 4.0])

    found = Calibration.of("m", np.stack([truths - 1, truths + 1]), truths, num_bins=8)

    assert sum(b.num_rows for b in found.bins) == 8
    assert found.expected_error > 0
    assert found.slope == pytest.approx(linregress([0, 1, 2, 3, 2, 3, 4, 5], [*truths] * 2).slope)
