"""Training tasks, their results, and the files that they leave."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq

from foundation.storage import Storage
from ncf.config import ExperimentConfig
from ncf.data.dataset import PreparedDataset
from ncf.data.placement import Placement
from ncf.evaluation.predictions import Predictions
from ncf.inference import checkpoint
from ncf.models.history.ratings import History
from ncf.training.state import FitResult
from ray_jobs.config import with_parameters

RESULTS: Final = "results.json"
"""File in the folder of a run's tasks with their results."""

STATE: Final = "state"
"""Folder in the folder of a task with what training needs to continue after its last epoch."""

PREDICTIONS: Final = "predictions"
"""Folder with the tasks' predictions for the test rows."""

Report = Callable[[dict[str, Any], Path | None], bool]
"""Takes an epoch's metrics on every worker, and the folder with saved models, if there is one;
returns whether to continue."""


@dataclass(frozen=True)
class TrainingTask:
    """One model to train."""

    name: str
    """Names the task in progress lines, and its folder in the checkpoint."""
    prepared: PreparedDataset
    experiment: ExperimentConfig
    score_test: bool = False
    """Whether the best epoch's weights are scored on the test rows, once, at the end."""
    save_models: bool = False
    """Whether the best and the last weights are saved in the run's checkpoint after every epoch."""
    predictions: str | None = None
    """File in the folder ``PREDICTIONS`` of the run's checkpoint for predictions for the test rows,
    if they are scored."""
    models: Storage | None = None
    """Folder in which the best and the last weights are stored when training ends, also if it ends
    before its last epoch."""
    metric: str = "rmse"
    """Name of the metric on the validation rows that chooses the best epoch, see
    ``ncf.evaluation.metrics.METRICS``."""
    stop_at_best_of: str | None = None
    """Name of an earlier task of the same run; training stops after as many epochs as that task's
    best one took."""

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
    """File in the folder ``PREDICTIONS`` with predictions for the test rows, if they are saved."""


def predictions_file(name: str) -> str:
    """Name of the file with the predictions of a model of this name."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-") + ".parquet"


def save_predictions(predictions: Predictions, prepared: PreparedDataset, file: Path) -> None:
    """Save predictions for the test rows of ``prepared``."""
    file.parent.mkdir(exist_ok=True)
    rows = prepared.table("test", ["row"])["row"].to_numpy()
    pq.write_table(predictions.to_arrow(rows), file)


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
