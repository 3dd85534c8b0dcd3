"""The state of a search as Ray metrics, which each node exports for Prometheus.

They are recorded in the program that runs the job, because it outlives workers and controllers: Ray
collects a process's metrics every ten seconds, and drops a gauge that was not set for twenty.
"""

from __future__ import annotations

from collections import Counter as Count
from collections.abc import Sequence
from typing import Any, get_args

from ray.tune import Callback
from ray.tune.experiment import Trial
from ray.util.metrics import Gauge

from ray_jobs.search.trials import State, TrialRecord, TrialRecords
from ray_jobs.training.telemetry import EpochMetrics


class TrialMetrics(Callback):
    """Counts the trials of a search by state, and records their epochs.

    Args:
        run: name of the run.
        search: names it; its trials are the tasks ``<search> trial <number>``.
        records: those of this search.
        earlier: the trials that have ended before.
    """

    def __init__(
        self, run: str, search: str, records: TrialRecords, earlier: Sequence[TrialRecord]
    ) -> None:
        self._run = run
        self._search = search
        self._records = records
        self._epochs = EpochMetrics(run)
        self._trials = Gauge("ratings_trials", "Trials of a search.", ("run", "search", "state"))
        keys = ("run", "search", "metric")
        self._best = Gauge("ratings_search_best", "Best validation metric of a search.", keys)
        self._ended = Count(record.state for record in earlier)
        self._running: set[str] = set()
        self._values = [record.result for record in earlier if record.result is not None]
        """The best value of the metric so far, or none."""
        self._set_gauges()

    def on_trial_result(
        self,
        iteration: int,
        trials: list[Trial],
        trial: Trial,
        result: dict[str, Any],
        **info: Any,
    ) -> None:
        """Called by Ray Tune in the driver."""
        number = self._records.of(trial.trial_id).number
        self._epochs.epoch(f"{self._search} trial {number}", result)
        if self._records.metric.key in result:
            self._values.append(result[self._records.metric.key])
        self._set_gauges()  # again, as Ray drops old values while long trials run

    def on_trial_start(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Called by Ray Tune in the driver."""
        self._running.add(trial.trial_id)
        self._set_gauges()

    def ended(self, record: TrialRecord) -> None:
        """Count a trial that has ended."""
        self._running.discard(record.trial_id)
        self._ended[record.state] += 1
        self._set_gauges()

    def _set_gauges(self) -> None:
        for state in get_args(State):
            count = len(self._running) if state == "running" else self._ended[state]
            self._trials.set(count, {"run": self._run, "search": self._search, "state": state})
        if self._values:
            metric = self._records.metric
            self._values = [metric.best(self._values)]
            tags = {"run": self._run, "search": self._search, "metric": metric.name}
            self._best.set(self._values[0], tags)
