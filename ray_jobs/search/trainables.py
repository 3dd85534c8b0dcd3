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
from ray_jobs.training.tasks import TrainingTask
from ray_jobs.training.torch_trainers import torch_trainer
from ray_jobs.training.trial_queue import Over, TrialQueue
from ray_jobs.training.worker_pool import persistent_workers

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
    groups: Sequence[Resources],
    models: TrialModels,
    where: Storage,
) -> Iterator[TrainableSpec]:
    """Run trials as configured for this block, one on each of ``groups`` at a time."""
    experiment = config.experiment
    if config.tune.executor == "isolated" and config.scaling.num_workers:
        settings = {
            "prepared": prepared,
            "resources": groups[0],
            "groups": len(groups),
            "models": models,
            "metric": config.tune.metric,
            "where": where / "trials",
        }
        yield TrainableSpec(_with(_isolated_trial, experiment=experiment, **settings))
        return
    # A trial breaks a group at most once; further failures have other causes.
    failures = config.tune.num_trials
    kept = models.folder if models.count else None
    with persistent_workers(
        prepared, groups, failures, where / "groups", kept, config.tune.metric
    ) as trial_queue:
        trainable = _with(_PersistentTrial, experiment=experiment, trial_queue=trial_queue)
        yield TrainableSpec(trainable, reuse_actors=True, callbacks=(_DropEnded(trial_queue),))


def _with(trainable: Any, **settings: Any) -> Any:
    """A trainable that receives ``settings`` besides a trial's parameters."""
    return tune.with_resources(tune.with_parameters(trainable, **settings), _DRIVER_RESOURCES)


def _experiment_of(experiment: ExperimentConfig, parameters: dict[str, Any]) -> ExperimentConfig:
    """``experiment`` with a trial's parameters.

    Raises:
        TrainingError: if they are not valid together.
    """
    try:
        return with_parameters(experiment, parameters)
    except ValidationError as error:
        reasons = [detail["msg"].removeprefix("Value error, ") for detail in error.errors()]
        raise TrainingError("its parameters do not go together: " + "; ".join(reasons)) from error


def _isolated_trial(
    parameters: dict[str, Any],
    *,
    experiment: ExperimentConfig,
    prepared: PreparedDataset,
    resources: Resources,
    groups: int,
    models: TrialModels,
    metric: str,
    where: Storage,
) -> None:
    """Driver of one trial: a ``TorchTrainer`` that reports its epochs to Tune."""
    name = tune.get_context().get_trial_id()
    task = TrainingTask(
        name,
        prepared,
        _experiment_of(experiment, parameters),
        models=models.of(name),
        metric=metric,
    )
    trainer = torch_trainer(
        [task], resources, where / name, [TuneReportCallback()], collect=False, groups=groups
    )
    trainer.fit()


class _PersistentTrial(Trainable):
    """Driver of one trial after another, which adds each to the trial queue."""

    def setup(
        self,
        config: dict[str, Any],
        *,
        experiment: ExperimentConfig,
        trial_queue: ActorHandle[TrialQueue],
    ) -> None:
        """Called by Ray Tune before the first trial."""
        self._experiment = experiment
        self._trial_queue = trial_queue
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Called by Ray Tune before each further trial.

        Parameters that are not valid together fail in ``step``: an error here would reach loggers
        before the start of its trial, and loggers such as MLflow's would end the search.
        """
        self._error: TrainingError | None = None
        try:
            experiment = _experiment_of(self._experiment, new_config)
        except TrainingError as error:
            self._error = error
        else:
            ray.get(self._trial_queue.add.remote(self.trial_id, experiment))
        return True

    def step(self) -> dict[str, Any]:
        """The next epoch.

        Raises:
            TrainingError: if the trial failed.
        """
        if self._error:
            raise self._error
        found = ray.get(self._trial_queue.result.remote(self.trial_id))
        if not isinstance(found, Over):
            return found
        if found.error:
            raise TrainingError(found.error)
        # What Tune's own wrapper of functions returns at their end: no result, and so no new row.
        return {DONE: True, RESULT_DUPLICATE: True}


class _DropEnded(Callback):
    """Drops trials from the trial queue when Tune ends them, before their last epoch or after."""

    def __init__(self, trial_queue: ActorHandle[TrialQueue]) -> None:
        self._trial_queue = trial_queue

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Called by Ray Tune in the program that searches, also for a trial that was stopped."""
        self._trial_queue.drop.remote(trial.trial_id)

    def on_trial_error(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Called by Ray Tune in the program that searches."""
        self._trial_queue.drop.remote(trial.trial_id)
