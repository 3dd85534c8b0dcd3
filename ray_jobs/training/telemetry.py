"""Epochs as Ray metrics, which each node exports for Prometheus, and the metrics of a search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from ray.util.metrics import Counter, Gauge

METRIC: Final = "best_validation_rmse"
"""Lowest validation RMSE so far, in stars."""


@dataclass(frozen=True)
class SearchMetric:
    """A metric by which the trials of a search are compared."""

    name: str
    """As in ``tune.metric``, and in ``validation_<name>`` of an epoch."""
    mode: Literal["min", "max"]
    """Which values are better, in Ray Tune's words."""
    title: str
    """For tables and messages."""

    @property
    def key(self) -> str:
        """Name of the reported value, and of the column in trials.parquet: the metric on the
        validation rows at the epoch with the lowest validation RMSE so far."""
        return f"best_validation_{self.name}"

    def cost(self, value: float) -> float:
        """``value`` on a scale on which lower is better."""
        return value if self.mode == "min" else -value


SEARCH_METRICS: Final[Mapping[str, SearchMetric]] = {
    metric.name: metric
    for metric in (
        SearchMetric("rmse", "min", "RMSE"),
        SearchMetric("mae", "min", "MAE"),
        SearchMetric("r2", "max", "R2"),
    )
}
"""The values of ``tune.metric``."""


class EpochMetrics:
    """Counts epochs and exports the validation error of every model that is trained."""

    def __init__(self) -> None:
        task = ("task",)
        self._epochs = Counter("ratings_epochs", "Epochs trained.", task)
        self._last = Gauge("ratings_validation_rmse", "Of the last epoch, in stars.", task)
        self._best = Gauge("ratings_best_validation_rmse", "Of the best epoch, in stars.", task)

    def epoch(self, task: str, metrics: dict[str, Any]) -> None:
        """Record an epoch's metrics, as reported; ``task`` names the model."""
        tags = {"task": task}
        self._epochs.inc(tags=tags)
        if "validation_rmse" in metrics:
            self._last.set(metrics["validation_rmse"], tags)
            self._best.set(metrics[METRIC], tags)
