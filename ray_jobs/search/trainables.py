"""How Ray Tune runs a trial: on persistent worker groups, or on a ``TorchTrainer`` of its own."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import ray
from ray import tune
from ray.actor import ActorHandle
from ray.train import TrainingFailedError
from ray.tune import Callback
from ray.tune.experiment import Trial
from ray.tune.integration.ray_train import TuneReportCallback

from foundation.storage import Storage
from ray_jobs.cluster.resources import GroupPlan, Resources
from ray_jobs.config import JobConfig
from ray_jobs.errors import TrainingError
from ray_jobs.search.persistent_trial import PersistentTrial
from ray_jobs.search.trial_tasks import RatingTrials, TrialTasks
from ray_jobs.training.lost_workers import Loss, Losses, Retries
from ray_jobs.training.task_queue import TaskQueue
from ray_jobs.training.torch_trainers import trainer_of_one_task
from ray_jobs.training.workers import Workers

_SHARE_OF_A_NODE: Final = 0.0001
"""The smallest amount of a resource that Ray knows."""


@dataclass(frozen=True)
class TrainableSpec:
    """What Ray Tune needs to know to run trials."""

    trainable: Any
    """A function or class for Tune, with its resources."""
    num_ready: Callable[[], int]
    """How many trials find workers now."""
    reuse_actors: bool = False
    """Whether a driver runs one trial after another."""
    callbacks: tuple[Callback, ...] = ()


@contextlib.contextmanager
def executor(
    config: JobConfig,
    tasks: TrialTasks,
    workers: Workers,
    plan: GroupPlan,
    at_once: int,
    where: Storage,
    metric: str,
) -> Iterator[TrainableSpec]:
    """Run trials as configured for this block.

    Args:
        config: of the job.
        tasks: of the trials.
        workers: what persistent trials are trained on.
        plan: the worker groups, of which each trial takes one.
        at_once: maximum number of trials at a time.
        where: folder for what Ray writes.
        metric: name of the reported value by which trials are compared.
    """
    if config.tune.executor == "isolated" and config.scaling.min_workers:
        workers.close()  # its trials take the CPUs
        settings = {
            "resources": plan.preferred,
            "workers_on_node": plan.workers_on_node(at_once),
            "where": where / "trials",
            "retries": Retries(config.tune.max_preemptions),
        }
        trial = _with(_isolated_trial, tasks=tasks, **settings)
        # Where nothing fits yet, the first trial waits, and the autoscaler adds a node for it.
        yield TrainableSpec(trial, num_ready=lambda: max(1, len(plan.fitting())))
        return
    plan = replace(plan, is_of_ratings=isinstance(tasks, RatingTrials))
    queue = workers.queue(plan, at_once)
    retries = Retries(config.tune.max_preemptions)
    ray.get(queue.define.remote(where.name, tasks.of, retries))
    trainable = persistent_trial(search=where.name, queue=queue, metric=metric)
    yield TrainableSpec(
        trainable,
        num_ready=lambda: ray.get(queue.num_ready.remote()),
        reuse_actors=True,
        callbacks=(_DropEnded(queue),),
    )


def _with(trainable: Any, **settings: Any) -> Any:
    """A function that receives ``settings`` besides a trial's parameters."""
    return tune.with_resources(tune.with_parameters(trainable, **settings), _driver_resources())


def persistent_trial(**settings: Any) -> type[PersistentTrial]:
    """The class with its settings, under its own name, which Ray's dashboard shows."""
    found: type[PersistentTrial] = tune.with_parameters(PersistentTrial, **settings)
    resources = _driver_resources()
    found.default_resource_request = classmethod(lambda cls, config: resources)
    found.__qualname__ = PersistentTrial.__qualname__
    return found


def _driver_resources() -> tune.PlacementGroupFactory:
    """A trial's driver takes no CPU, so that drivers cannot hold the CPUs that workers wait for.

    It runs on the node of this program, without which the search ends anyway: on another one it
    might be lost, and the trial with it.
    """
    here = ray.get_runtime_context().get_node_id()
    (node,) = (node for node in ray.nodes() if node["NodeID"] == here)
    names = [name for name in node["Resources"] if name.startswith("node:")]
    # That of the head is its alone; one by address may be shared by the nodes of one machine.
    name = min(names, key=lambda name: "__" not in name)
    return tune.PlacementGroupFactory([{"CPU": 0, name: _SHARE_OF_A_NODE}])


def _isolated_trial(
    parameters: dict[str, Any],
    *,
    tasks: TrialTasks,
    resources: Resources,
    workers_on_node: int,
    where: Storage,
    retries: Retries,
) -> None:
    """Driver of one trial: a ``TorchTrainer`` that reports its epochs to Tune, and another one if
    it loses its workers.

    Raises:
        TrainingError: if the trial failed.
    """
    task = tasks.of(tune.get_context().get_trial_id(), parameters)
    losses, lost = Losses(retries), None
    for attempt in itertools.count(1):
        folder = where / (task.name if attempt == 1 else f"{task.name}-{attempt}")
        trainer = trainer_of_one_task(
            task, workers_on_node, resources, folder, [TuneReportCallback()], lost, attempt - 1
        )
        try:
            trainer.fit()
            return
        except TrainingFailedError as error:
            loss = Loss.of_training(error)
            failure, lost = losses.add(loss), loss.reason
            if failure:
                raise TrainingError(failure) from None


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
