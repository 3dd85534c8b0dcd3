"""A persistent worker: it trains one job of the trial queue after another."""

from __future__ import annotations

import gc
import itertools
import uuid
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import ray.train.collective
import torch
from ray.actor import ActorHandle
from torch import distributed

from foundation.storage import Storage
from ncf.data.dataset import PreparedDataset
from ncf.data.sampling import Shard
from ncf.errors import DivergedError
from ray_jobs.training.local_mode import LocalRun
from ray_jobs.training.split_cache import SplitCache, device_of_worker, shard_of_worker
from ray_jobs.training.tasks import TrainingTask
from ray_jobs.training.trial_queue import TrialQueue, reason_of
from ray_jobs.training.worker import train_task


@dataclass(frozen=True)
class PoolWorkerConfig:
    """What the workers of one group need to know."""

    trial_queue: ActorHandle[TrialQueue]
    group_index: int
    prepared: PreparedDataset
    """The data that all jobs train on."""
    num_groups: int
    metric: str
    """Name of the metric that chooses the best epoch."""
    models: Storage | None
    """Folder for the weights of each job, in a folder with the job's name."""
    local: LocalRun | None
    """If there are no workers."""


def run_worker(settings: dict[str, PoolWorkerConfig]) -> None:
    """Body of every worker; ``settings`` are Ray Train's, with the key ``config``."""
    config = settings["config"]
    with config.local.threads() if config.local else nullcontext():
        _train_jobs(config)


def _train_jobs(config: PoolWorkerConfig) -> None:
    trial_queue, group_index = config.trial_queue, config.group_index
    shard = shard_of_worker()
    rows = SplitCache(config.prepared, device_of_worker(config.local), config.num_groups)
    workers = ray.train.collective.broadcast_from_rank_zero(uuid.uuid4().hex)
    ray.get(trial_queue.join.remote(group_index, workers))
    gc.freeze()  # these objects stay, and need not be traversed after every job
    for number in itertools.count():
        job = ray.get(trial_queue.next.remote(group_index, workers, number))
        if job is None:
            return
        name, experiment = job
        models = config.models / name if config.models else None
        task = TrainingTask(name, config.prepared, experiment, models=models, metric=config.metric)
        error = _train(trial_queue, task, rows, shard)
        if shard.rank == 0:
            ray.get(trial_queue.ended.remote(name, error))
        # Schedules and optimisers form reference cycles, which would keep the model on the device.
        gc.collect()


def _train(
    trial_queue: ActorHandle[TrialQueue], task: TrainingTask, rows: SplitCache, shard: Shard
) -> str | None:
    """Train one model; returns the reason of a failure that the workers recover from, or None."""

    def report(metrics: dict[str, Any], folder: Path | None) -> bool:
        proceed = shard.rank > 0 or ray.get(trial_queue.report.remote(task.name, metrics))
        return _broadcast(proceed, shard, rows.device)

    try:
        train_task(task, rows, report)
    except Exception as error:
        if not _is_recoverable(error, shard, rows.device):
            raise
        return reason_of(error)
    return None


def _broadcast(value: bool, shard: Shard, device: torch.device) -> bool:
    """The first worker's ``value``, on all workers of the group."""
    if shard.world_size == 1:
        return value
    tensor = torch.tensor(value, dtype=torch.uint8, device=device)
    distributed.broadcast(tensor, src=0)
    return bool(tensor)


def _is_recoverable(error: Exception, shard: Shard, device: torch.device) -> bool:
    """Whether workers can train another model after this exception without a restart."""
    if isinstance(error, DivergedError):
        return True  # all workers compute the same loss and raise it together
    if shard.world_size > 1:
        return False  # the others may wait for this worker's gradients
    return device.type == "cpu" or isinstance(error, torch.OutOfMemoryError)
