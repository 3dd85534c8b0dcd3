"""A persistent worker: it trains one task of the queue after another."""

from __future__ import annotations

import gc
import itertools
import uuid
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, Final

import ray
import ray.train.collective
import torch
from ray import ObjectRef
from ray.actor import ActorHandle

from foundation.errors import MovieRatingsError
from ncf.data.sampling import SINGLE_WORKER, Shard
from ncf.errors import CheckpointError, DivergedError
from ray_jobs.training.local_mode import LocalMode
from ray_jobs.training.lost_workers import reason_of
from ray_jobs.training.split_cache import NodeMemory, SplitCache
from ray_jobs.training.task_queue import GroupId, Order, TaskQueue
from ray_jobs.training.tasks import Task, TaskResult
from ray_jobs.training.trainers import train_task
from ray_jobs.training.worker_context import broadcast, device_of_worker, shard_of_worker

_SECONDS_IDLE: Final = 5.0
"""Time without a task after which a worker frees the memory of its rows."""


@dataclass(frozen=True)
class PoolWorkerConfig:
    """What the workers of one trainer need to know."""

    queue: ActorHandle[TaskQueue]
    pool: int
    """Number of the trainer's pool."""
    one_group: bool
    """Whether all workers of the trainer are one group; otherwise each is one."""
    local: LocalMode | None
    """If there are no workers."""

    def group(self) -> tuple[GroupId, Shard, str]:
        """The group of the worker that calls this, its part of every batch, and a name of the
        group's current workers."""
        name = uuid.uuid4().hex
        if not self.one_group:
            return GroupId(self.pool, ray.train.get_context().get_world_rank()), SINGLE_WORKER, name
        name = ray.train.collective.broadcast_from_rank_zero(name)
        return GroupId(self.pool, 0), shard_of_worker(), name


def run_worker(settings: dict[str, PoolWorkerConfig]) -> None:
    """Body of every worker; ``settings`` are Ray Train's, with the key ``config``."""
    config = settings["config"]
    with config.local.threads() if config.local else nullcontext():
        _train_tasks(config)


def _train_tasks(config: PoolWorkerConfig) -> None:
    queue, device = config.queue, device_of_worker(config.local)
    group_id, shard, workers = config.group()
    ray.get(queue.join.remote(group_id, workers))
    gc.freeze()  # these objects stay, and need not be traversed after every task
    rows: SplitCache | None = None
    try:
        for number in itertools.count():
            pending = queue.next.remote(group_id, workers, number, is_first=shard.rank == 0)
            order = _next_order(pending, rows)
            if order is None:
                return
            memory = NodeMemory(order.workers_on_node, order.num_datasets)
            if rows is None or not rows.fits(order.task.prepared, memory):
                _release(rows)
                rows = SplitCache(order.task.prepared, device, shard, memory)
            job = _Job(queue, group_id, workers, number, order.task, rows)
            job.train()
            del job
            # Schedules and optimisers form reference cycles, which would keep the model on the
            # device.
            gc.collect()
    finally:
        _release(rows)


def _next_order(pending: ObjectRef[Order | None], rows: SplitCache | None) -> Order | None:
    """Wait for the next task; after a while without keeping ``rows``, whose memory others need."""
    ready, _ = ray.wait([pending], timeout=_SECONDS_IDLE)
    if not ready:
        _release(rows)
    return ray.get(pending)


def _release(rows: SplitCache | None) -> None:
    if rows:
        rows.release()
        gc.collect()
        torch.cuda.empty_cache()  # does nothing without a GPU


@dataclass(frozen=True)
class _Job:
    """A task, and the workers of the group that trains it."""

    queue: ActorHandle[TaskQueue]
    group_id: GroupId
    workers: str
    number: int
    """Of the task, counted from 0."""
    task: Task
    rows: SplitCache

    def train(self) -> None:
        """Train the model, and tell the queue its result, or the reason if the task failed.

        Raises:
            Exception: if workers must be replaced before they can train another model.
        """
        task = replace(self.task, prepared=self.rows.prepared)
        try:
            result = train_task(task, self.rows, self._report)
        except Exception as error:
            recoverable = _is_recoverable(error, self.rows.shard, self.rows.device)
            # Other workers would fail in the same way.
            if recoverable or isinstance(error, MovieRatingsError):
                self._ended(reason_of(error), None)
            if not recoverable:
                raise
        else:
            if self.rows.shard.rank == 0:
                self._ended(None, result)

    def _report(self, metrics: dict[str, Any]) -> bool:
        proceed = True
        if self.rows.shard.rank == 0:
            report = self.queue.report.remote
            proceed = ray.get(report(self.group_id, self.workers, self.number, metrics))
        return broadcast(proceed, self.rows.shard, self.rows.device)

    def _ended(self, error: str | None, result: TaskResult | None) -> None:
        ended = self.queue.ended.remote
        ray.get(ended(self.group_id, self.workers, self.number, error, result))


def _is_recoverable(error: Exception, shard: Shard, device: torch.device) -> bool:
    """Whether workers can train another model after this exception without a restart."""
    if shard.world_size > 1:
        # All compute the same loss and read the same state, and so raise these together. After
        # others, some workers may wait for the gradients of this one.
        return isinstance(error, (DivergedError, CheckpointError))
    known = isinstance(error, (MovieRatingsError, torch.OutOfMemoryError))
    return known or device.type == "cpu"
