"""Ray Tune's MLflow callback, for trials that fail before they start."""

from __future__ import annotations

from ray.air.integrations.mlflow import MLflowLoggerCallback
from ray.tune.experiment import Trial


class TrialRuns(MLflowLoggerCallback):
    """Logs each trial as a run of MLflow."""

    def log_trial_end(self, trial: Trial, failed: bool = False) -> None:
        """End a trial's run.

        A trial whose process cannot start, on a lost node for example, ends without a start. Ray's
        callback would end the whole search there, with a ``KeyError``.
        """
        self.log_trial_start(trial)  # no second run for a trial that has one
        super().log_trial_end(trial, failed)
