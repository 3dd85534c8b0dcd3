"""Epochs as Ray metrics, which each node exports for Prometheus."""

from __future__ import annotations

from typing import Any, Final

from ray.util.metrics import Counter, Gauge


class EpochMetrics:
    """Counts epochs and tells the validation error of every model that is trained."""

    def __init__(self) -> None:
        task = ("task",)
        self._epochs = Counter("ratings_epochs", "Epochs trained.", task)
        self._last = Gauge("ratings_validation_rmse", "Of the last epoch, in stars.", task)
        self._best = Gauge("ratings_best_validation_rmse", "Of the best epoch, in stars.", task)

    def epoch(self, task: str, metrics: dict[str, Any]) -> None:
        """Take an epoch's metrics, as reported; ``task`` names the model."""
        tags = {"task": task}
        self._epochs.inc(tags=tags)
        if "validation_rmse" in metrics:
            self._last.set(metrics["validation_rmse"], tags)
            self._best.set(metrics[METRIC], tags)


METRIC: Final = "best_validation_rmse"
"""Lowest validation RMSE so far, in stars."""
