"""The training tasks of a search's trials."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from pydantic import ValidationError

from foundation.storage import Storage
from ncf.choice_config import ChoiceConfig
from ncf.config import ExperimentConfig
from ncf.data.dataset import PreparedDataset
from ray_jobs.config import with_choice_parameters, with_parameters
from ray_jobs.errors import TrainingError
from ray_jobs.search.trial_models import TrialModels
from ray_jobs.training.tasks import ChoiceProtocol, ChoiceTask, Task, TrainingTask

_SECONDS_BETWEEN_STATES: Final = 20.0
"""At most so much of a trial, and one epoch, is trained again if it loses its workers. Shorter
trials store no state, which in an object store takes as long as many of their epochs."""


class TrialTasks(ABC):
    """The training tasks of a search's trials."""

    def of(self, trial_id: str, parameters: dict[str, Any]) -> Task:
        """The task of one trial.

        Raises:
            TrainingError: if its parameters are not valid together.
        """
        try:
            return self.task(trial_id, parameters)
        except ValidationError as error:
            reasons = [detail["msg"].removeprefix("Value error, ") for detail in error.errors()]
            raise TrainingError(
                "its parameters do not go together: " + "; ".join(reasons)
            ) from error

    @abstractmethod
    def task(self, trial_id: str, parameters: Mapping[str, Any]) -> Task:
        """The same, with the exception of pydantic."""


@dataclass(frozen=True)
class RatingTrials(TrialTasks):
    """Those of a search for the rating model."""

    prepared: PreparedDataset
    experiment: ExperimentConfig
    """The settings that trials do not change."""
    models: TrialModels
    metric: str
    """Name of the metric that chooses the best epoch."""
    states: Storage | None = None
    """Folder for the states of trials in training, from which others of this search's workers go on
    if one loses its own. Nothing in it is used by another search."""
    state_every: float = _SECONDS_BETWEEN_STATES

    def task(self, trial_id: str, parameters: Mapping[str, Any]) -> TrainingTask:
        """The task of one trial."""
        return TrainingTask(
            trial_id,
            self.prepared,
            with_parameters(self.experiment, parameters),
            models=self.models.of(trial_id),
            needs_models=False,
            metric=self.metric,
            state=self.states / trial_id if self.states else None,
            state_every=self.state_every,
            keeps_state=False,
        )


@dataclass(frozen=True)
class ChoiceTrials(TrialTasks):
    """Those of a search for one member of the choice model."""

    prepared: PreparedDataset
    choice: ChoiceConfig
    """The settings that trials do not change."""
    member: Literal["ease", "network"]
    protocol: ChoiceProtocol

    def task(self, trial_id: str, parameters: Mapping[str, Any]) -> ChoiceTask:
        """The task of one trial."""
        choice = with_choice_parameters(self.choice, {"member": self.member, **parameters})
        return ChoiceTask(trial_id, self.prepared, choice, self.protocol)
