"""How Ray Tune runs a trial: on persistent worker groups, or on a ``TorchTrainer`` of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import ray
from pydantic import ValidationError
from ray import tune
from ray.actor import ActorHandle
from ray.tune import Callback, Trainable
from ray.tune.experiment import Trial
from ray.tune.integration.ray_train import TuneReportCallback
from ray.tune.result import DONE, RESULT_DUPLICATE

from foundation.storage import Storage
from ncf.config import ExperimentConfig
from ncf.data.dataset import PreparedDataset
from ray_jobs.cluster.resources import Resources
from ray_jobs.config import JobConfig, with_parameters
from ray_jobs.errors import TrainingError
from ray_jobs.search.trial_models import TrialModels
from ray_jobs.training.task_queue import Over, TaskQueue
from ray_jobs.training.tasks import TrainingTask
from ray_jobs.training.torch_trainers import trainer_of_one_task
from ray_jobs.training.workers import Workers

_DRIVER_RESOURCES: Final = {"cpu": 0, "memory": 1}
"""A trial's driver takes no CPU, so that drivers cannot hold the CPUs that workers wait for. Ray
refuses an empty request, hence the byte of memory."""


@dataclass(frozen=True)
class TrainableSpec:
    """What Ray Tune needs to know to run trials."""

    trainable: Any
    """A function or class for Tune, with its resources."""
    reuse_actors: bool = False
    """Whether a driver runs one trial after another."""
    callbacks: tuple[Callback, ...] = ()


@contextlib.contextmanager
def executor(
    config: JobConfig,
    prepared: PreparedDataset,
    workers: Workers,
    groups: Sequence[Resources],
    models: TrialModels,
    where: Storage,
) -> Iterator[TrainableSpec]:
    """Run trials as configured for this block, one on each of ``groups`` at a time."""
    tasks = TrialTasks(prepared, config.experiment, models, config.tune.metric)
    if config.tune.executor == "isolated" and config.scaling.num_workers:
        workers.close()  # its trials take the CPUs
        settings = {"resources": groups[0], "groups": len(groups), "where": where / "trials"}
        yield TrainableSpec(_with(_isolated_trial, tasks=tasks, **settings))
        return
    queue = workers.queue(groups)
    trainable = _with(_PersistentTrial, tasks=tasks, queue=queue)
    yield TrainableSpec(trainable, reuse_actors=True, callbacks=(_DropEnded(queue),))


def _with(trainable: Any, **settings: Any) -> Any:
    """A trainable that receives ``settings`` besides a trial's parameters."""
    return tune.with_resources(tune.with_parameters(trainable, **settings), _DRIVER_RESOURCES)


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


def _isolated_trial(
    parameters: dict[str, Any],
    *,
    tasks: TrialTasks,
    resources: Resources,
    groups: int,
    where: Storage,
) -> None:
    """Driver of one trial: a ``TorchTrainer`` that reports its epochs to Tune."""
    task = tasks.of(tune.get_context().get_trial_id(), parameters)
    callbacks = [TuneReportCallback()]
    trainer_of_one_task(task, groups, resources, where / task.name, callbacks).fit()


class _PersistentTrial(Trainable):
    """Driver of one trial after another, which adds the task of each to the queue."""

    def setup(
        self, config: dict[str, Any], *, tasks: TrialTasks, queue: ActorHandle[TaskQueue]
    ) -> None:
        """Called by Ray Tune before the first trial."""
        self._tasks = tasks
        self._queue = queue
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Called by Ray Tune before each further trial.

        Parameters that are not valid together fail in ``step``: an error here would reach loggers
        before the start of its trial, and loggers such as MLflow's would end the search.
        """
        self._error: TrainingError | None = None
        try:
            task = self._tasks.of(self.trial_id, new_config)
        except TrainingError as error:
            self._error = error
        else:
            ray.get(self._queue.add.remote(task))
        return True

    def step(self) -> dict[str, Any]:
        """The next epoch.

        Raises:
            TrainingError: if the trial failed.
        """
        if self._error:
            raise self._error
        found = ray.get(self._queue.result.remote(self.trial_id))
        if not isinstance(found, Over):
            return found
        if found.error:
            raise TrainingError(found.error)
        # What Tune's own wrapper of functions returns at their end: no result, and so no new row.
        return {DONE: True, RESULT_DUPLICATE: True}


class _DropEnded(Callback):
    """Drops trials from the queue when Tune ends them, before their last epoch or after."""

    def __init__(self, queue: ActorHandle[TaskQueue]) -> None:
        self._queue = queue

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Called by Ray Tune in the program that searches, also for a trial that was stopped."""
        self._queue.drop.remote(trial.trial_id)

    def on_trial_error(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Called by Ray Tune in the program that searches."""
        self._queue.drop.remote(trial.trial_id)
