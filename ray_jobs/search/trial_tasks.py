"""The training tasks of a search's trials."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from ncf.config import ExperimentConfig
from ncf.data.dataset import PreparedDataset
from ray_jobs.config import with_parameters
from ray_jobs.errors import TrainingError
from ray_jobs.search.trial_models import TrialModels
from ray_jobs.training.tasks import TrainingTask


@dataclass(frozen=True)
class TrialTasks:
    """The training tasks of a search's trials."""

    prepared: PreparedDataset
    experiment: ExperimentConfig
    """The settings that trials do not change."""
    models: TrialModels
    metric: str
    """Name of the metric that chooses the best epoch."""

    def of(self, trial_id: str, parameters: dict[str, Any]) -> TrainingTask:
        """The task of one trial.

        Raises:
            TrainingError: if its parameters are not valid together.
        """
        try:
            experiment = with_parameters(self.experiment, parameters)
        except ValidationError as error:
            reasons = [detail["msg"].removeprefix("Value error, ") for detail in error.errors()]
            raise TrainingError(
                "its parameters do not go together: " + "; ".join(reasons)
            ) from error
        return TrainingTask(
            trial_id,
            self.prepared,
            experiment,
            models=self.models.of(trial_id),
            needs_models=False,
            metric=self.metric,
        )
