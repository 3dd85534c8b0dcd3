"""What training workers report."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch

from ncf.config import ExperimentConfig
from ncf.data.placement import Placement
from ncf.evaluation.metrics import ErrorSums, Scores
from ncf.training.state import Epoch, FitResult
from ray_jobs.training.tasks import TrainingTask
from ray_jobs.training.telemetry import SEARCH_METRICS
from ray_jobs.training.worker import epoch_metrics

TARGETS = torch.tensor([1.0, 2.0, 4.0, 5.0])
ERRORS = ([1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 1.9], [0.9, 0.9, 0.9, 0.9])
"""Errors of three epochs: the third has the lowest RMSE, 0.9, and the second the lowest MAE."""


def epoch(number: int, errors: list[float] | None) -> Epoch:
    scores = None
    if errors is not None:
        sums = ErrorSums.of(TARGETS + torch.tensor(errors), TARGETS)
        scores = Scores(sums, sums)
    return Epoch(number, 0.5, 0.01, 1.0, scores, is_best=True)


def reported(epochs: list[Epoch], best_epoch: int, placement: Placement) -> dict[str, Any]:
    task = TrainingTask("a", cast(Any, None), ExperimentConfig())
    result = FitResult(tuple(epochs), best_epoch, {}, {})
    return epoch_metrics(task, epochs[-1], result, placement)


def test_the_best_value_of_each_metric_is_that_of_its_own_best_epoch() -> None:
    epochs = [epoch(number, errors) for number, errors in enumerate(ERRORS, 1)]
    metrics = reported(epochs, 3, Placement())
    assert metrics["best_validation_rmse"] == pytest.approx(0.9)
    assert metrics["best_validation_mae"] == pytest.approx(1.9 / 4)
    # The squared deviations from the mean of 3 are 4, 1, 1 and 4.
    assert metrics["best_validation_r2"] == pytest.approx(1 - 4 * 0.81 / 10)
    assert metrics["validation_mae"] == pytest.approx(0.9)
    assert (metrics["best_epoch"], metrics["epoch"], metrics["max_epochs"]) == (3, 3, 10)
    assert "streamed" not in metrics
    first = reported(epochs[:1], 1, Placement(("train",)))
    assert first["best_validation_mae"] == first["validation_mae"] == pytest.approx(1)
    assert first["streamed"] is True


def test_without_validation_rows_there_is_no_best_value() -> None:
    metrics = reported([epoch(1, None)], 1, Placement())
    assert not {metric.key for metric in SEARCH_METRICS.values()} & set(metrics)


@pytest.mark.parametrize(("name", "mode", "cost"), [("mae", "min", 0.5), ("r2", "max", -0.5)])
def test_a_search_metric_has_the_direction_of_the_metric(name: str, mode: str, cost: float) -> None:
    metric = SEARCH_METRICS[name]
    assert (metric.name, metric.mode, metric.cost(0.5)) == (name, mode, cost)
    assert metric.key == f"best_validation_{name}"
