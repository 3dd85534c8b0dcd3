"""Training tasks, their results, and the files that they leave."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self

from foundation.storage import Storage
from ncf.choice_config import ChoiceConfig
from ncf.config import ExperimentConfig
from ncf.data.dataset import PreparedDataset
from ncf.data.placement import Placement
from ncf.evaluation.choice_data import ChoiceData
from ncf.evaluation.predictions import Predictions
from ncf.inference import checkpoint
from ncf.models.history.ratings import History
from ncf.training.state import FitResult
from ray_jobs.config import with_parameters

Report = Callable[[dict[str, Any]], bool]
"""Takes an epoch's metrics on every worker; returns whether to continue."""


@dataclass(frozen=True)
class Task:
    """Something that the workers of a group train; see ``ray_jobs.training.trainers``."""

    name: str
    """Names the task in progress lines and in the queue."""
    prepared: PreparedDataset
    state: Storage | None = field(default=None, kw_only=True)
    """Folder for the state after an epoch, from which training continues if it is interrupted."""

    @property
    def needs(self) -> str | None:
        """Name of an earlier task of the same run, whose result this one depends on."""
        return None

    def named_in(self, job: str) -> Self:
        """This task under a name that no task of another job has."""
        return replace(self, name=f"{job}: {self.name}")

    def can_start_after(self, earlier: Sequence[TaskResult]) -> bool:
        """Whether what it depends on is among ``earlier``."""
        return self.needs is None or self.needs in {each.name for each in earlier}

    def after(self, earlier: Sequence[TaskResult]) -> Task:
        """This task, once the tasks before it have ended."""
        if self.needs is None:
            return self
        (result,) = (each for each in earlier if each.name == self.needs)
        assert isinstance(result, TrainingResult)
        return self.as_chosen_by(result)

    def as_chosen_by(self, result: TrainingResult) -> Task:
        """This task with what the one that it ``needs``, a model's training, has chosen."""
        raise NotImplementedError


@dataclass(frozen=True)
class TrainingTask(Task):
    """A rating model to train."""

    experiment: ExperimentConfig
    score_test: bool = False
    """Whether the best epoch's weights are scored on the test rows, once, at the end."""
    predictions: Storage | None = None
    """File for predictions for the test rows, if they are scored."""
    validation_predictions: Storage | None = None
    """File for predictions of the best epoch's weights for the validation rows."""
    models: Storage | None = None
    """Folder in which the best and the last weights are stored when training ends, also if it ends
    before its last epoch."""
    needs_models: bool = True
    """Whether training fails if they cannot be stored. Otherwise this is logged."""
    metric: str = "rmse"
    """Name of the metric on the validation rows that chooses the best epoch, see
    ``ncf.evaluation.metrics.METRICS``."""
    stop_at_best_of: str | None = None
    """Name of an earlier task of the same run; training stops after as many epochs as that task's
    best one took."""
    state_every: float = 0.0
    """Seconds between two states, at least; 0 stores one after every epoch."""
    keeps_state: bool = True
    """Whether the state is still there when training has ended."""

    @property
    def needs(self) -> str | None:
        """``stop_at_best_of``."""
        return self.stop_at_best_of

    def named_in(self, job: str) -> Self:
        """This task, and the one that it needs, under such a name."""
        needs = self.needs and f"{job}: {self.needs}"
        return replace(super().named_in(job), stop_at_best_of=needs)

    def as_chosen_by(self, result: TrainingResult) -> TrainingTask:
        """This task, stopped after as many epochs as the other one's best took."""
        experiment = with_parameters(self.experiment, {"train.stop_after": result.best_epoch})
        return replace(self, experiment=experiment, stop_at_best_of=None)


@dataclass(frozen=True)
class ChoiceProtocol:
    """How rankings of the choice model are scored."""

    mask: Literal["random", "forward"] = "random"
    """How the network's known ratings and choices are divided if its own setting is ``auto``."""
    num_given: int = 0
    """Of each user's held-out ratings, so many are given."""
    min_ratings: int = 0
    """Training ratings of a movie that is ranked."""
    max_validation_users: int | None = None
    """Of the validation users, so many are drawn; all by default."""
    metric: str = "ndcg@10"
    """Of the validation users' rankings; it chooses ridges, epochs and powers."""

    def data(self, prepared: PreparedDataset) -> ChoiceData:
        """The rows of a prepared data set, which are read when they are first used."""
        return ChoiceData(prepared, self.num_given, self.min_ratings, self.max_validation_users)


@dataclass(frozen=True)
class ChoiceTask(Task):
    """A choice model to train."""

    choice: ChoiceConfig
    protocol: ChoiceProtocol
    score_test: bool = False
    """Whether rankings of the test users are scored, once, at the end."""
    rankings: Storage | None = None
    """Folder for ``rankings_file``s of each member, if the test users are scored."""
    model: Storage | None = None
    """Folder in which the model is stored."""
    as_chosen_in: str | None = None
    """Name of an earlier task of the same run, whose ridge, epoch and power this one takes."""

    @property
    def needs(self) -> str | None:
        """``as_chosen_in``."""
        return self.as_chosen_in

    def named_in(self, job: str) -> Self:
        """This task, and the one that it needs, under such a name."""
        needs = self.needs and f"{job}: {self.needs}"
        return replace(super().named_in(job), as_chosen_in=needs)

    def as_chosen_by(self, result: TrainingResult) -> ChoiceTask:
        """This task with the other one's ridge, epoch and power."""
        assert result.choice
        return replace(self, choice=result.choice, as_chosen_in=None)


@dataclass(frozen=True)
class CallTask(Task):
    """A function that one worker of a group calls, such as one that fits a baseline."""

    function: Callable[[], Any]
    """Everything that it needs comes with it, so it should read rows by itself."""
    what: str = "baseline"
    """What it fits, for progress lines."""


@dataclass(frozen=True)
class TaskResult:
    """The result of a task."""

    name: str
    seconds: float = field(kw_only=True)
    rows: Placement = field(default=Placement(), kw_only=True)
    """Which splits were streamed."""


@dataclass(frozen=True)
class CallResult(TaskResult):
    """The result of a ``CallTask``."""

    value: Any
    """What the function returned."""


@dataclass(frozen=True)
class TrainingResult(TaskResult):
    """The result of a model's training."""

    seed: int
    best_epoch: int
    epochs: tuple[dict[str, Any], ...]
    """One flat record an epoch, see ``ncf.training.state.Epoch.as_dict``."""
    validation: dict[str, Any] | None
    """Metrics of the best epoch on the validation rows; of a choice model by member."""
    test: dict[str, Any] | None
    """Metrics of the best epoch's weights on the test rows, if it is scored."""
    predictions: str | None = None
    """Name of the file with predictions for the test rows, if they are saved."""
    validation_predictions: str | None = None
    """Name of the file with those for the validation rows likewise."""
    choice: ChoiceConfig | None = None
    """Of a choice model: its settings with the ridge, epoch and power that were best."""


def predictions_file(name: str) -> str:
    """Name of the file with the predictions of a model of this name."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-") + ".parquet"


def rankings_file(seed: int, member: str) -> str:
    """Name of the file with a member's rankings of the test users."""
    return f"seed-{seed}-{member}.parquet"


def save_predictions(
    predictions: Predictions, prepared: PreparedDataset, split: str, file: Storage
) -> None:
    """Save predictions for the rows of a split of ``prepared``."""
    rows = prepared.table(split, ["row"])["row"].to_numpy()
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
