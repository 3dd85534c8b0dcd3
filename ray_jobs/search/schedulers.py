"""Trial schedulers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from ray_jobs.search.trials import TrialRecord, TrialRecords
from ray_jobs.training.telemetry import METRIC


class ResumableASHA(ASHAScheduler):
    """ASHA, with the epochs of earlier trials in its rungs; remembers which trials it stops.

    Args:
        records: those of this search.
        epochs: that a trial has at most.
        grace_epochs: that it has at least.
        reduction_factor: the best one in this many goes on at each rung.
    """

    def __init__(
        self, records: TrialRecords, epochs: int, grace_epochs: int, reduction_factor: float
    ) -> None:
        super().__init__(
            time_attr="epoch",
            metric=METRIC,
            mode="min",
            grace_period=min(grace_epochs, epochs),
            # Beyond the last epoch: a trial that gets there ends by itself, and cleanly.
            max_t=epochs + 1,
            reduction_factor=reduction_factor,
        )
        self._stopped: set[str] = set()
        for record in records.ended():
            self._show(record)

    def has_stopped(self, trial: Trial) -> bool:
        """Whether this is why the trial has ended."""
        return trial.trial_id in self._stopped

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Called by Ray Tune after each epoch."""
        decision = super().on_trial_result(tune_controller, trial, result)
        if decision == TrialScheduler.STOP:
            self._stopped.add(trial.trial_id)
        return decision

    def _show(self, record: TrialRecord) -> None:
        stand_in = cast(Trial, SimpleNamespace(trial_id=record.trial_id))
        self.on_trial_add(None, stand_in)
        for epoch in record.epochs:
            super().on_trial_result(None, stand_in, epoch)
        self.on_trial_remove(None, stand_in)
