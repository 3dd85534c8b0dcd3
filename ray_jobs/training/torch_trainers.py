"""``TorchTrainer`` with this project's resources and folders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import ray.train
import ray.train.torch
from ray.train import FailureConfig, RunConfig, ScalingConfig, UserCallback
from ray.train.backend import Backend
from ray.train.torch import TorchConfig, TorchTrainer

from foundation.storage import Storage
from ray_jobs.cluster.resources import Pool, Resources
from ray_jobs.training.split_cache import NodeMemory, SplitCache
from ray_jobs.training.tasks import Task
from ray_jobs.training.trainers import train_task
from ray_jobs.training.worker_context import device_of_worker, shard_of_worker

_NODE_ID: Final = "ray.io/node-id"
"""A label that Ray gives each node."""


SECONDS_BETWEEN_RESIZES: Final = 30.0
"""How often the number of a group's workers may change, if it may."""


class _NoProcessGroup(Backend):
    """Sets nothing up, as the workers do not know of each other."""

    has_replica_groups = True
    """A worker that is lost is replaced alone."""


class IndependentWorkers(TorchConfig):
    """Configures a trainer whose workers each train models of their own."""

    @property
    def backend_cls(self) -> type[Backend]:
        """In place of one that lets the workers form a process group."""
        return _NoProcessGroup


def torch_trainer(
    body: Callable[[dict[str, Any]], None],
    settings: dict[str, Any],
    pool: Pool,
    where: Storage,
    callbacks: Sequence[UserCallback],
    max_failures: int = 0,
) -> TorchTrainer:
    """A trainer whose workers each call ``body`` with ``settings``.

    Args:
        body: what workers do.
        settings: its argument.
        pool: the workers.
        where: folder for what Ray Train writes.
        callbacks: of Ray Train, in its controller.
        max_failures: how often workers are replaced.
    """
    resources = pool.resources
    return TorchTrainer(
        body,
        train_loop_config=settings,
        scaling_config=ScalingConfig(
            num_workers=(resources.num_workers, resources.max_workers)
            if resources.max_workers
            else resources.num_workers * pool.num_groups,
            elastic_resize_monitor_interval_s=SECONDS_BETWEEN_RESIZES,
            use_gpu=resources.use_gpu,
            resources_per_worker=resources.per_worker,
            label_selector={_NODE_ID: pool.node} if pool.node else None,
        ),
        torch_config=None if pool.is_one_group else IndependentWorkers(),
        run_config=RunConfig(
            name=where.name,
            storage_path=where.parent.path,
            storage_filesystem=where.filesystem,
            failure_config=FailureConfig(max_failures=max_failures),
            callbacks=list(callbacks),
        ),
    )


def trainer_of_one_task(
    task: Task,
    workers_on_node: int,
    resources: Resources,
    where: Storage,
    callbacks: Sequence[UserCallback],
    lost: str | None = None,
    losses: int = 0,
) -> TorchTrainer:
    """A trainer that trains one task and reports its epochs.

    Args:
        task: what to train.
        workers_on_node: maximum number of workers on a node at a time.
        resources: the workers.
        where: folder for what Ray Train writes.
        callbacks: of Ray Train, in its controller.
        lost: why the task lost its workers before, if it did; reported with the first epoch.
        losses: how often it has.
    """
    settings = {
        "task": task,
        "workers_on_node": workers_on_node,
        "lost": lost,
        "losses": losses,
    }
    return torch_trainer(_train_one, settings, Pool(resources), where, callbacks)


def _train_one(settings: dict[str, Any]) -> None:
    """Body of every worker."""
    task: Task = settings["task"]
    memory = NodeMemory(settings["workers_on_node"])
    rows = SplitCache(task.prepared, device_of_worker(None), shard_of_worker(), memory)
    of_first_epoch = {"lost": settings["lost"]} if settings["lost"] else {}
    of_all_epochs = {"losses": settings["losses"]} if settings["losses"] else {}

    def report(metrics: dict[str, Any]) -> bool:
        """Report from every worker, as Ray Train requires."""
        ray.train.report(metrics | of_all_epochs | of_first_epoch)
        of_first_epoch.clear()
        return True

    try:
        train_task(task, rows, report)
    finally:
        rows.release()
