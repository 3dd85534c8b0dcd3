from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

from ncf.evaluation.metrics import METRICS, ErrorSums, Scores, error_vector


def drawn(rows: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    targets = rng.integers(1, 11, rows) / 2
    predictions = (targets + rng.normal(0, 0.8, rows)).astype(np.float32)
    return torch.from_numpy(predictions), torch.from_numpy(targets.astype(np.float32))


@pytest.mark.parametrize("rows", [2, 7, 10_000])
def test_metrics_equal_scikit_learns(rows: int) -> None:
    predictions, targets = drawn(rows)
    sums = ErrorSums.of(predictions, targets)
    true, guessed = targets.double().numpy(), predictions.double().numpy()
    assert sums.count == rows
    assert sums.rmse == pytest.approx(math.sqrt(mean_squared_error(true, guessed)), rel=1e-12)
    assert sums.mae == pytest.approx(mean_absolute_error(true, guessed), rel=1e-12)
    assert sums.r2 == pytest.approx(r2_score(true, guessed), rel=1e-10)


def test_metrics_by_hand() -> None:
    sums = ErrorSums.of(torch.tensor([1.0, 2.0, 5.0]), torch.tensor([2.0, 2.0, 3.0]))
    # Squared errors 1, 0, 4; squared deviations from the mean 7/3: 1/9, 1/9, 4/9.
    assert sums.rmse == pytest.approx(math.sqrt(5 / 3))
    assert sums.mae == pytest.approx(1.0)
    assert sums.r2 == pytest.approx(1 - 5 / (2 / 3))


def test_parts_of_unequal_size_merge_to_the_whole() -> None:
    predictions, targets = drawn(1000)
    predictions[:10] += 5  # the small part is much worse, so a mean of means would be far off
    parts = [slice(0, 10), slice(10, 11), slice(11, 1000)]
    sums = [ErrorSums.of(predictions[part], targets[part]) for part in parts]
    merged = sums[0] + sums[1] + sums[2]
    true, guessed = targets.double().numpy(), predictions.double().numpy()
    expected = math.sqrt(mean_squared_error(true, guessed))
    assert merged.count == 1000
    assert merged.rmse == pytest.approx(expected, rel=1e-12)
    assert merged.mae == pytest.approx(mean_absolute_error(true, guessed), rel=1e-12)
    assert merged.r2 == pytest.approx(r2_score(true, guessed), rel=1e-10)
    assert abs(np.mean([part.rmse for part in sums]) - expected) > 1


def test_merging_nothing_changes_nothing() -> None:
    sums = ErrorSums.of(*drawn(5))
    assert sums + ErrorSums() == sums


def test_no_rows_give_nan() -> None:
    for sums in (ErrorSums(), ErrorSums.of(torch.zeros(0), torch.zeros(0))):
        assert sums.count == 0
        assert math.isnan(sums.rmse)
        assert math.isnan(sums.mae)
        assert math.isnan(sums.r2)


@pytest.mark.parametrize("value", [3.0, 4.5, 0.1, 3.3333])
@pytest.mark.parametrize("rows", [1, 1000])
def test_targets_that_are_all_equal_have_no_r2(value: float, rows: int) -> None:
    targets = torch.full((rows,), value)
    sums = ErrorSums.of(targets + 1, targets)
    assert math.isnan(sums.r2)
    assert sums.rmse == pytest.approx(1, rel=1e-6)


def test_r2_is_free_of_cancellation_with_many_rows() -> None:
    predictions, targets = drawn(200_000)
    targets = 3 + (targets - 3) / 1000
    predictions = targets + 1e-4
    expected = r2_score(targets.double().numpy(), predictions.double().numpy())
    assert ErrorSums.of(predictions, targets).r2 == pytest.approx(expected, abs=1e-6)


def test_sums_survive_the_way_through_a_tensor() -> None:
    predictions, targets = drawn(50)
    vector = error_vector(predictions, targets)
    assert vector.shape == (5,)
    assert vector.dtype == torch.float64
    assert ErrorSums.from_vector(vector) == ErrorSums.of(predictions, targets)
    # Adding the vectors of parts is what workers do.
    parts = error_vector(predictions[:20], targets[:20]) + error_vector(
        predictions[20:], targets[20:]
    )
    torch.testing.assert_close(parts, vector, rtol=1e-12, atol=0)


def test_scores_merge_and_are_named_as_in_metrics_json() -> None:
    stars = ErrorSums.of(torch.tensor([1.0, 3.0]), torch.tensor([2.0, 4.0]))
    decayed = ErrorSums.of(torch.tensor([0.5, 1.5]), torch.tensor([1.0, 2.0]))
    merged = Scores(stars, decayed) + Scores(stars, decayed)
    assert merged.as_dict() == {
        "rmse": 1.0,
        "mae": 1.0,
        "r2": 0.0,
        "num_ratings": 4,
        "decayed": {"rmse": 0.5, "mae": 0.5, "r2": 0.0, "num_ratings": 4},
    }


def test_the_registry_has_each_metric_on_both_scales() -> None:
    predictions, targets = drawn(100)
    scores = Scores(ErrorSums.of(predictions, targets), ErrorSums.of(predictions / 2, targets / 2))
    true, guessed = targets.double().numpy(), predictions.double().numpy()
    expected = {
        "rmse": ("min", math.sqrt(mean_squared_error(true, guessed))),
        "mae": ("min", mean_absolute_error(true, guessed)),
        "r2": ("max", r2_score(true, guessed)),
        "decayed_rmse": ("min", math.sqrt(mean_squared_error(true, guessed)) / 2),
        "decayed_mae": ("min", mean_absolute_error(true, guessed) / 2),
        "decayed_r2": ("max", r2_score(true, guessed)),
    }
    assert list(METRICS) == list(expected)
    for name, (direction, value) in expected.items():
        metric = METRICS[name]
        assert (metric.name, metric.direction) == (name, direction)
        assert metric.of(scores) == pytest.approx(value)
        assert metric.cost(scores) == pytest.approx(value if direction == "min" else -value)
