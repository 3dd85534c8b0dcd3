"""How Ray Tune runs a trial: on persistent worker groups, or on a ``TorchTrainer`` of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import ray
from ray import tune
from ray.actor import ActorHandle
from ray.tune import Callback
from ray.tune.experiment import Trial
from ray.tune.integration.ray_train import TuneReportCallback

from foundation.storage import Storage
from ray_jobs.cluster.resources import Resources
from ray_jobs.config import JobConfig
from ray_jobs.search.persistent_trial import PersistentTrial
from ray_jobs.search.trial_tasks import TrialTasks
from ray_jobs.training.task_queue import TaskQueue
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
    tasks: TrialTasks,
    workers: Workers,
    groups: Sequence[Resources],
    where: Storage,
) -> Iterator[TrainableSpec]:
    """Run trials as configured for this block, one on each of ``groups`` at a time."""
    if config.tune.executor == "isolated" and config.scaling.num_workers:
        workers.close()  # its trials take the CPUs
        settings = {"resources": groups[0], "groups": len(groups), "where": where / "trials"}
        yield TrainableSpec(_with(_isolated_trial, tasks=tasks, **settings))
        return
    queue = workers.queue(groups)
    ray.get(queue.define.remote(where.name, tasks.of))
    trainable = _with(PersistentTrial, search=where.name, queue=queue)
    yield TrainableSpec(trainable, reuse_actors=True, callbacks=(_DropEnded(queue),))


def _with(trainable: Any, **settings: Any) -> Any:
    """A trainable that receives ``settings`` besides a trial's parameters."""
    return tune.with_resources(tune.with_parameters(trainable, **settings), _DRIVER_RESOURCES)


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
