"""A persistent worker: it trains one task of the queue after another."""

from __future__ import annotations

import gc
import itertools
import uuid
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import ray
import ray.train.collective
import torch
from ray.actor import ActorHandle
from torch import distributed

from ncf.data.sampling import Shard
from ncf.errors import CheckpointError, DivergedError
from ray_jobs.training.local_mode import LocalMode
from ray_jobs.training.split_cache import SplitCache, device_of_worker, shard_of_worker
from ray_jobs.training.task_queue import Order, TaskQueue, reason_of
from ray_jobs.training.tasks import TaskResult, TrainingTask
from ray_jobs.training.worker import train_task


@dataclass(frozen=True)
class PoolWorkerConfig:
    """What the workers of one group need to know."""

    queue: ActorHandle[TaskQueue]
    group_index: int
    local: LocalMode | None
    """If there are no workers."""


def run_worker(settings: dict[str, PoolWorkerConfig]) -> None:
    """Body of every worker; ``settings`` are Ray Train's, with the key ``config``."""
    config = settings["config"]
    with config.local.threads() if config.local else nullcontext():
        _train_tasks(config)


def _train_tasks(config: PoolWorkerConfig) -> None:
    queue, group_index = config.queue, config.group_index
    shard, device = shard_of_worker(), device_of_worker(config.local)
    workers = ray.train.collective.broadcast_from_rank_zero(uuid.uuid4().hex)
    ray.get(queue.join.remote(group_index, workers))
    gc.freeze()  # these objects stay, and need not be traversed after every task
    rows: SplitCache | None = None
    for number in itertools.count():
        order: Order | None = ray.get(queue.next.remote(group_index, workers, number))
        if order is None:
            return
        if rows is None or not rows.fits(order.task.prepared, order.num_groups):
            rows = None  # before others are read
            rows = SplitCache(order.task.prepared, device, order.num_groups)
        error, result = _train(config, order.task, rows, shard)
        if shard.rank == 0:
            ray.get(queue.ended.remote(order.task.name, error, result))
        # Schedules and optimisers form reference cycles, which would keep the model on the device.
        gc.collect()


def _train(
    config: PoolWorkerConfig, task: TrainingTask, rows: SplitCache, shard: Shard
) -> tuple[str | None, TaskResult | None]:
    """Train one model; returns the reason of a failure that the workers recover from, or its
    result."""
    queue, group_index = config.queue, config.group_index

    def report(metrics: dict[str, Any]) -> bool:
        proceed = shard.rank > 0 or ray.get(queue.report.remote(group_index, task.name, metrics))
        return _broadcast(proceed, shard, rows.device)

    try:
        return None, train_task(replace(task, prepared=rows.prepared), rows, report)
    except Exception as error:
        if not _is_recoverable(error, shard, rows.device):
            raise
        return reason_of(error), None


def _broadcast(value: bool, shard: Shard, device: torch.device) -> bool:
    """The first worker's ``value``, on all workers of the group."""
    if shard.world_size == 1:
        return value
    tensor = torch.tensor(value, dtype=torch.uint8, device=device)
    distributed.broadcast(tensor, src=0)
    return bool(tensor)


def _is_recoverable(error: Exception, shard: Shard, device: torch.device) -> bool:
    """Whether workers can train another model after this exception without a restart."""
    if isinstance(error, (DivergedError, CheckpointError)):
        return (
            True  # all workers compute the same loss, and read the same state, and raise together
        )
    if shard.world_size > 1:
        return False  # the others may wait for this worker's gradients
    return device.type == "cpu" or isinstance(error, torch.OutOfMemoryError)
