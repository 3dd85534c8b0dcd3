"""Epochs as Ray metrics, which each node exports for Prometheus, and the metrics of a search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ray.util.metrics import Counter, Gauge

from ncf.evaluation.metrics import METRICS, Direction, Metric, Scores

METRIC: Final = "best_validation_rmse"
"""Lowest validation RMSE so far, in stars."""


@dataclass(frozen=True)
class SearchMetric:
    """A metric by which the trials of a search are compared."""

    metric: Metric
    title: str
    """For tables and messages."""

    @property
    def name(self) -> str:
        """As in ``tune.metric``, and in ``validation_<name>`` of an epoch."""
        return self.metric.name

    @property
    def mode(self) -> Direction:
        """Which values are better, as Ray Tune names it."""
        return self.metric.direction

    @property
    def key(self) -> str:
        """Name of the reported value, and of the column in trials.parquet: the best value on the
        validation rows of all epochs so far."""
        return f"best_validation_{self.name}"

    def best(self, scores: Sequence[Scores]) -> float:
        """The best value of the metric among ``scores``, those of one or more epochs."""
        return self.metric.of(min(scores, key=self.metric.cost))

    def cost(self, value: float) -> float:
        """``value`` on a scale on which lower is better."""
        return value if self.mode == "min" else -value


SEARCH_METRICS: Final[Mapping[str, SearchMetric]] = {
    name: SearchMetric(METRICS[name], title)
    for name, title in (("rmse", "RMSE"), ("mae", "MAE"), ("r2", "R2"))
}
"""The values of ``tune.metric``."""


class EpochMetrics:
    """Counts epochs, and exports the validation RMSE of every model that is trained in ``run``."""

    def __init__(self, run: str) -> None:
        keys = ("run", "task")
        self._epochs = Counter("ratings_epochs", "Epochs trained.", keys)
        self._last = Gauge("ratings_validation_rmse", "Of the last epoch, in stars.", keys)
        self._best = Gauge("ratings_best_validation_rmse", "Of the best epoch, in stars.", keys)
        self._run = run

    def epoch(self, task: str, metrics: dict[str, Any]) -> None:
        """Record an epoch's metrics, as reported; ``task`` names the model."""
        tags = {"run": self._run, "task": task}
        self._epochs.inc(tags=tags)
        if "validation_rmse" in metrics:
            self._last.set(metrics["validation_rmse"], tags)
            self._best.set(metrics[METRIC], tags)
