from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ncf.evaluation.assessment import ScoredRows, assess
from ncf.evaluation.slices import Slicing

RNG = np.random.default_rng(5)
USERS = np.repeat([900, 7, 2**60, 12, 31, 44, 50, 61], 25)
ACTUAL = RNG.uniform(1, 5, 200).astype(np.float32)
ROWS = ScoredRows(USERS, ACTUAL, (Slicing("half", ("first", "second"), np.arange(200) // 100),))
GOOD = np.stack([ACTUAL + RNG.normal(0, 0.3, 200) for _ in range(3)])
POOR = ACTUAL[None] + RNG.normal(0, 1.2, (1, 200))
MODELS = [("poor", POOR), ("good", GOOD)]


def test_every_part_is_about_the_given_models() -> None:
    found = assess(ROWS, iter(MODELS), [("good", "poor")], ["good", "poor"], 2000)

    assert found.num_users == 8
    rmse, mae = found.differences
    of_good = np.sqrt(((GOOD - ACTUAL) ** 2).mean(axis=1)).mean()
    of_poor = np.sqrt(((POOR - ACTUAL) ** 2).mean())
    assert rmse.value == pytest.approx(of_good - of_poor)
    assert mae.value == pytest.approx(np.abs(GOOD - ACTUAL).mean() - np.abs(POOR - ACTUAL).mean())
    assert (rmse.better, mae.better) == ("good", "good")
    first, second = found.slices
    assert (first.label, first.num_rows, second.label) == ("first", 100, "second")
    assert [errors.model for errors in first.errors] == ["good", "poor"]
    assert second.errors[1].mae == pytest.approx(np.abs(POOR - ACTUAL)[0, 100:].mean())
    assert [calibration.model for calibration in found.calibrations] == ["poor", "good"]


def test_one_user_alone_allows_no_comparison() -> None:
    found = assess(replace(ROWS, users=np.full(200, 3)), MODELS, [("good", "poor")], [], 100)

    assert found.num_users == 1
    assert found.differences == ()
    assert len(found.calibrations) == 2


def test_training_seeds_count_as_chance_too() -> None:
    """Two models that differ by their seeds alone are not told apart, however many the rows."""
    rows = ScoredRows(np.repeat(np.arange(100), 20), np.zeros(2000), ())
    models = [
        (name, np.stack([np.full(2000, error) for error in errors]))
        for name, errors in (("a", [0.9, 1.0, 1.1]), ("b", [1.0, 1.1, 0.95]))
    ]

    rmse, _ = assess(rows, models, [("a", "b")], [], 2000).differences

    assert rmse.better is None
    assert rmse.low < -0.05
    assert rmse.high > 0.02
