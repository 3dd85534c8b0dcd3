"""Epochs as Ray metrics, which each node exports for Prometheus, and the metrics of a search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ray.util.metrics import Counter, Gauge

from ncf.evaluation.metrics import METRICS, Direction

METRIC: Final = "best_validation_rmse"
"""Lowest validation RMSE so far, in stars."""


@dataclass(frozen=True)
class SearchMetric:
    """A metric by which the trials of a search are compared."""

    name: str
    """As in ``tune.metric``, and in ``validation_<name>`` of an epoch."""
    title: str
    """For tables and messages."""
    mode: Direction
    """Which values are better, as Ray Tune names it."""

    @property
    def key(self) -> str:
        """Name of the reported value, and of the column in trials.parquet: the best value on the
        validation rows of all epochs so far."""
        return f"best_validation_{self.name}"

    @property
    def scale(self) -> str:
        """The title with the unit, if it has one."""
        return f"{self.title} in stars" if self.mode == "min" else self.title

    def best(self, values: Sequence[float]) -> float:
        """The best one of ``values``, those of one or more epochs."""
        return min(values, key=self.cost)

    def cost(self, value: float) -> float:
        """``value`` on a scale on which lower is better."""
        return value if self.mode == "min" else -value


SEARCH_METRICS: Final[Mapping[str, SearchMetric]] = {
    name: SearchMetric(name, title, METRICS[name].direction)
    for name, title in (("rmse", "RMSE"), ("mae", "MAE"), ("r2", "R2"))
}
"""The values of ``tune.metric``."""


def search_metric(name: str) -> SearchMetric:
    """The metric of this name: one of ``SEARCH_METRICS``, or one of rankings, such as ndcg@10."""
    return SEARCH_METRICS.get(name) or SearchMetric(name, name.replace("_", " ").upper(), "max")


class GroupMetrics:
    """Exports how many worker groups ``run`` has, and how many more it waits for."""

    def __init__(self, run: str) -> None:
        keys = ("run", "state")
        self._groups = Gauge("ratings_worker_groups", "Worker groups of a job.", keys)
        self._run = run

    def set(self, ready: int, wanted: int) -> None:
        """Record the groups that have their workers, and how many are wanted."""
        self._groups.set(ready, {"run": self._run, "state": "ready"})
        self._groups.set(max(0, wanted - ready), {"run": self._run, "state": "waiting"})


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
