"""Training tasks, their results, and the files that they leave."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from foundation.storage import Storage
from ncf.config import ExperimentConfig
from ncf.data.dataset import PreparedDataset
from ncf.data.placement import Placement
from ncf.evaluation.predictions import Predictions
from ncf.inference import checkpoint
from ncf.models.history.ratings import History
from ncf.training.state import FitResult
from ray_jobs.config import with_parameters

Report = Callable[[dict[str, Any]], bool]
"""Takes an epoch's metrics on every worker; returns whether to continue."""


@dataclass(frozen=True)
class TrainingTask:
    """One model to train."""

    name: str
    """Names the task in progress lines and in the queue."""
    prepared: PreparedDataset
    experiment: ExperimentConfig
    score_test: bool = False
    """Whether the best epoch's weights are scored on the test rows, once, at the end."""
    predictions: Storage | None = None
    """File for predictions for the test rows, if they are scored."""
    models: Storage | None = None
    """Folder in which the best and the last weights are stored when training ends, also if it ends
    before its last epoch."""
    needs_models: bool = True
    """Whether training fails if they cannot be stored. Otherwise this is logged."""
    state: Storage | None = None
    """Folder for the state after each epoch, from which training continues if it is interrupted."""
    metric: str = "rmse"
    """Name of the metric on the validation rows that chooses the best epoch, see
    ``ncf.evaluation.metrics.METRICS``."""
    stop_at_best_of: str | None = None
    """Name of an earlier task of the same run; training stops after as many epochs as that task's
    best one took."""

    def can_start_after(self, earlier: Sequence[TaskResult]) -> bool:
        """Whether what it depends on is among ``earlier``."""
        needed = self.stop_at_best_of
        return needed is None or needed in {each.name for each in earlier}

    def after(self, earlier: Sequence[TaskResult]) -> TrainingTask:
        """This task, once the tasks before it have ended."""
        if self.stop_at_best_of is None:
            return self
        (best,) = (each.best_epoch for each in earlier if each.name == self.stop_at_best_of)
        experiment = with_parameters(self.experiment, {"train.stop_after": best})
        return replace(self, experiment=experiment, stop_at_best_of=None)


@dataclass(frozen=True)
class TaskResult:
    """The result of a task."""

    name: str
    seed: int
    best_epoch: int
    epochs: tuple[dict[str, Any], ...]
    """One flat record an epoch, see ``ncf.training.state.Epoch.as_dict``."""
    validation: dict[str, Any] | None
    """Metrics of the best epoch on the validation rows."""
    test: dict[str, Any] | None
    """Metrics of the best epoch's weights on the test rows, if it is scored."""
    seconds: float
    rows: Placement
    """Which splits were streamed."""
    predictions: str | None = None
    """Name of the file with predictions for the test rows, if they are saved."""


def predictions_file(name: str) -> str:
    """Name of the file with the predictions of a model of this name."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-") + ".parquet"


def save_predictions(predictions: Predictions, prepared: PreparedDataset, file: Storage) -> None:
    """Save predictions for the test rows of ``prepared``."""
    rows = prepared.table("test", ["row"])["row"].to_numpy()
    file.write_table(predictions.to_arrow(rows))


def save_models(
    task: TrainingTask, result: FitResult, history: History | None, folder: Path
) -> None:
    """Save the best and the last weights so far, each as a checkpoint in ``folder``."""
    for which, weights, number in (
        ("best", result.best, result.best_epoch),
        ("last", result.last, result.epochs[-1].number),
    ):
        record = {
            "epoch": number,
            "seed": task.experiment.train.seed,
            "metrics": result.epochs[number - 1].as_dict(),
        }
        checkpoint.save(
            folder / which, weights, task.experiment, task.prepared.preprocessor, record, history
        )
