"""What trials are called where people look: Ray's dashboard, TensorBoard, MLflow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ray.tune.experiment import Trial

    from ray_jobs.search.trials import TrialRecords


@dataclass(frozen=True)
class TrialNames:
    """Names of one search's trials, by their numbers instead of Ray Tune's ids."""

    search: str
    records: TrialRecords

    def title(self, trial: Trial) -> str:
        """``tune trial 12``."""
        return f"{self.search} trial {self.records.of(trial.trial_id).number}"

    def folder(self, trial: Trial) -> str:
        """``trial-00012_``, and Ray's id: a trial that is made again has another one."""
        return f"trial-{self.records.of(trial.trial_id).number:05d}_{trial.trial_id}"


def described(parameters: Mapping[str, Any]) -> str:
    """A trial's parameters, by their short names."""
    return ", ".join(
        f"{key.rpartition('.')[2]}={value:.3g}"
        if isinstance(value, float)
        else f"{key.rpartition('.')[2]}={list(value) if isinstance(value, tuple) else value}"
        for key, value in parameters.items()
    )


def is_folder_of(name: str, trial_ids: set[str]) -> bool:
    """Whether a folder is that of one of these trials."""
    return name.rpartition("_")[2] in trial_ids
