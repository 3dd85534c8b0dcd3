"""Persistent worker groups that train one model after another without starting new processes.

::

    clients --add, result, drop--> TrialQueue <--join, next, report, ended-- workers
                                        ^--lost-- Train's controllers

A worker group is one long-lived ``TorchTrainer``. When one of its workers fails, Ray Train restarts
the group, and the trial queue marks the job that it was training as failed, and no other.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import uuid
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import ray
import ray.train.collective
import ray.train.torch
import torch
from ray.actor import ActorHandle
from ray.exceptions import RayActorError, RayError
from ray.train import FailureConfig, RunConfig, TrainingFailedError, UserCallback
from ray.train.torch import TorchTrainer
from ray.util import placement_group_table, remove_placement_group
from ray.util.placement_group import PlacementGroup
from torch import distributed

from foundation.storage import Storage
from ncf.config import ExperimentConfig
from ncf.data.dataset import PreparedDataset
from ncf.data.sampling import Shard
from ncf.errors import DivergedError
from ray_jobs.cluster.resources import Resources
from ray_jobs.cluster.session import beside_the_driver
from ray_jobs.training.worker import (
    SplitCache,
    TrainingTask,
    first_cause,
    scaling_of,
    shard_of_worker,
    train_task,
)

_SECONDS_TO_END: Final = 10.0
"""How long workers may take to exit; those in a longer epoch are killed."""

_EPOCHS_AHEAD: Final = 1
"""Unfetched epochs beyond which a worker waits: without a limit, a model with short epochs would
end before a scheduler could stop it."""


@dataclass
class _Job:
    """One model to train, until it is dropped."""

    experiment: ExperimentConfig
    epochs: deque[dict[str, Any]] = field(default_factory=deque)
    """Metrics of the epochs that were not fetched yet, oldest first."""
    over: bool = False
    error: str | None = None


@dataclass
class _WorkerGroup:
    """One ``TorchTrainer`` and the workers that it has at present."""

    workers: str | None = None
    """Id of its current set of workers, if there is one."""
    taken: int = 0
    """Number of jobs that they have taken."""
    job: tuple[str, ExperimentConfig] | None = None
    """Name and experiment of the newest of these."""


@dataclass(frozen=True)
class Over:
    """What follows a job's last epoch."""

    error: str | None
    """Why it failed, if it did."""


class TrialQueue:
    """Passes jobs to worker groups, and their epochs to clients; an async actor."""

    def __init__(self, num_groups: int) -> None:
        self._jobs: dict[str, _Job] = {}
        self._waiting: deque[str] = deque()
        self._groups = [_WorkerGroup() for _ in range(num_groups)]
        self._changed = asyncio.Condition()
        self._closed = False
        self._given_up: list[str] = []
        """The reason of each worker group that has ended for good."""

    # For clients.

    async def add(self, name: str, experiment: ExperimentConfig) -> None:
        """Add a job; the first free worker group takes it."""
        async with self._changing():
            self._jobs[name] = _Job(experiment)
            self._waiting.append(name)
            self._refuse_if_none_is_left()

    async def result(self, name: str) -> dict[str, Any] | Over:
        """Wait for a job's next epoch, or its end."""
        async with self._changing():
            job = self._jobs[name]
            await self._changed.wait_for(lambda: job.epochs or job.over)
            return job.epochs.popleft() if job.epochs else Over(job.error)

    async def drop(self, name: str) -> None:
        """Remove a job; workers that train it stop after the current epoch."""
        async with self._changing():
            self._jobs.pop(name, None)
            if name in self._waiting:
                self._waiting.remove(name)

    # For workers.

    async def join(self, group_index: int, workers: str) -> None:
        """Register one of a group's current workers."""
        async with self._changing():
            if self._groups[group_index].workers not in (None, workers):
                self._lose(group_index, "its workers were replaced")
            self._groups[group_index].workers = workers

    async def next(
        self, group_index: int, workers: str, number: int
    ) -> tuple[str, ExperimentConfig] | None:
        """The job with this number, counted from 0 by each of the group's workers; None to exit."""
        group = self._groups[group_index]

        def should_exit() -> bool:
            return self._closed or group.workers != workers

        async with self._changing():
            await self._changed.wait_for(
                lambda: should_exit() or group.taken > number or self._waiting
            )
            if should_exit():
                return None
            if group.taken == number:
                name = self._waiting.popleft()
                group.taken, group.job = number + 1, (name, self._jobs[name].experiment)
            return group.job

    async def report(self, name: str, metrics: dict[str, Any]) -> bool:
        """Report an epoch; returns whether to continue the job."""
        async with self._changing():
            job = self._jobs.get(name)
            if job is None or job.over:
                return False
            job.epochs.append(metrics)
            self._changed.notify_all()

            def stopped() -> bool:
                return self._closed or name not in self._jobs

            await self._changed.wait_for(lambda: stopped() or len(job.epochs) <= _EPOCHS_AHEAD)
            return not stopped()

    async def ended(self, name: str, error: str | None) -> None:
        """End a job that is done, or has failed in a way its workers recover from."""
        async with self._changing():
            self._end(name, error)

    # For those that watch the workers.

    async def run(self, trainers: Sequence[TorchTrainer]) -> None:
        """Run the trainer of every group until the queue closes."""
        with ThreadPoolExecutor(len(trainers)) as threads:
            await asyncio.gather(
                *(
                    self._run(threads, group_index, trainer)
                    for group_index, trainer in enumerate(trainers)
                )
            )

    async def lost(self, group_index: int, reason: str) -> None:
        """End the job of a group whose workers have failed."""
        async with self._changing():
            self._lose(group_index, reason)

    async def close(self) -> None:
        """Ask workers to exit after the current epoch."""
        async with self._changing():
            self._closed = True

    async def _run(
        self, threads: ThreadPoolExecutor, group_index: int, trainer: TorchTrainer
    ) -> None:
        reason = "its workers have left"
        try:
            await asyncio.get_running_loop().run_in_executor(threads, trainer.fit)
        except TrainingFailedError as error:
            reason = first_cause(error)
        except RayError as error:
            reason = _reason(error)
        async with self._changing():
            self._lose(group_index, reason)
            self._given_up.append(reason)
            self._refuse_if_none_is_left()

    @contextlib.asynccontextmanager
    async def _changing(self) -> AsyncIterator[None]:
        """Hold the lock, except while waiting, and wake all waiting calls afterwards."""
        async with self._changed:
            yield
            self._changed.notify_all()

    def _end(self, name: str, error: str | None) -> None:
        job = self._jobs.get(name)
        if job and not job.over:
            job.over, job.error = True, error

    def _lose(self, group_index: int, reason: str) -> None:
        group = self._groups[group_index]
        if group.job:
            self._end(group.job[0], reason)
        group.workers, group.taken, group.job = None, 0, None

    def _refuse_if_none_is_left(self) -> None:
        if len(self._given_up) == len(self._groups):
            while self._waiting:
                self._end(self._waiting.popleft(), self._given_up[0])


@contextlib.contextmanager
def persistent_workers(
    prepared: PreparedDataset,
    groups: Sequence[Resources],
    max_failures: int,
    where: Storage,
    models: Storage | None = None,
) -> Iterator[ActorHandle[TrialQueue]]:
    """The trial queue of worker groups that persist during the block.

    Args:
        prepared: the data that all jobs train on.
        groups: resources of each group; no more groups than fit the cluster.
        max_failures: how often a group is restarted.
        where: folder for what Ray Train writes.
        models: folder for the weights of each job, in a folder with the job's name.
    """
    trial_queue = ray.remote(TrialQueue).options(**beside_the_driver()).remote(len(groups))
    before = _placement_groups()
    try:
        trainers = [
            _trainer(
                {
                    "trial_queue": trial_queue,
                    "group_index": group_index,
                    "prepared": prepared,
                    "groups": len(groups),
                    "models": models,
                },
                resources,
                max_failures,
                where / f"group-{group_index}",
            )
            for group_index, resources in enumerate(groups)
        ]
        running = trial_queue.run.remote(trainers)
        yield trial_queue
        with contextlib.suppress(RayActorError):  # if it has died, so has all that it started
            ray.get(trial_queue.close.remote())
        ray.wait([running], timeout=_SECONDS_TO_END)
    finally:
        ray.kill(trial_queue)
    _free(_placement_groups() - before)


def _placement_groups() -> set[str]:
    """Ids of this program's placement groups that hold resources."""
    job = ray.get_runtime_context().get_job_id()
    return {
        key
        for key, group in placement_group_table().items()
        if key.endswith(job) and group["state"] != "REMOVED"
    }


def _free(groups: set[str]) -> None:
    """Release CPUs and GPUs of workers that were killed, and end their remaining processes.

    Ray Train does so only for workers that were all there when their controller was killed.
    """
    for group in groups:
        remove_placement_group(PlacementGroup(ray.PlacementGroupID.from_hex(group)))


def _trainer(
    config: dict[str, Any], resources: Resources, max_failures: int, where: Storage
) -> TorchTrainer:
    return TorchTrainer(
        _serve,
        train_loop_config=config,
        scaling_config=scaling_of(resources),
        run_config=RunConfig(
            name=where.name,
            storage_path=where.parent.path,
            storage_filesystem=where.filesystem,
            failure_config=FailureConfig(max_failures=max_failures),
            callbacks=[_Losses(config["trial_queue"], config["group_index"])],
        ),
    )


class _Losses(UserCallback):
    """Tells the trial queue why workers failed, before Ray Train replaces them."""

    def __init__(self, trial_queue: ActorHandle[TrialQueue], group_index: int) -> None:
        self._trial_queue = trial_queue
        self._group_index = group_index

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Called by Ray Train in its controller."""
        reason = _reason(next(iter(worker_exceptions.values())))
        ray.get(self._trial_queue.lost.remote(self._group_index, reason))


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


class _StoppedError(Exception):
    """A job was dropped, or the queue has closed."""


def _serve(config: dict[str, Any]) -> None:
    """Body of every worker: one job after the other."""
    trial_queue, group_index = config["trial_queue"], config["group_index"]
    shard = shard_of_worker()
    rows = SplitCache(config["prepared"], ray.train.torch.get_device(), config["groups"])
    workers = ray.train.collective.broadcast_from_rank_zero(uuid.uuid4().hex)
    ray.get(trial_queue.join.remote(group_index, workers))
    gc.freeze()  # these objects stay, and need not be traversed after every job
    for number in itertools.count():
        job = ray.get(trial_queue.next.remote(group_index, workers, number))
        if job is None:
            return
        name, experiment = job
        models = config["models"] / name if config["models"] else None
        task = TrainingTask(name, rows.prepared, experiment, models=models)
        error = _train(trial_queue, task, rows, shard)
        if shard.rank == 0:
            ray.get(trial_queue.ended.remote(name, error))
        # Schedules and optimisers refer to each other: else their model would stay on the device.
        gc.collect()


def _train(
    trial_queue: ActorHandle[TrialQueue], task: TrainingTask, rows: SplitCache, shard: Shard
) -> str | None:
    """Train one model; returns the reason of a failure that the workers recover from, or None."""

    def on_report(metrics: dict[str, Any], folder: Path | None) -> None:
        wanted = shard.rank > 0 or ray.get(trial_queue.report.remote(task.name, metrics))
        if not _as_first_says(wanted, shard, rows.device):
            raise _StoppedError

    try:
        train_task(task, rows, on_report)
    except _StoppedError:
        pass
    except Exception as error:
        if not _is_recoverable(error, shard, rows.device):
            raise
        return _reason(error)
    return None


def _as_first_says(wanted: bool, shard: Shard, device: torch.device) -> bool:
    """The first worker's ``wanted``, on all workers of the group."""
    if shard.world_size == 1:
        return wanted
    said = torch.tensor(wanted, dtype=torch.uint8, device=device)
    distributed.broadcast(said, src=0)
    return bool(said)


def _is_recoverable(error: Exception, shard: Shard, device: torch.device) -> bool:
    """Whether workers can train another model after this error without a restart."""
    if isinstance(error, DivergedError):
        return True  # all workers found the same sum of their errors
    if shard.world_size > 1:
        return False  # the others may wait for this one's gradients
    return device.type == "cpu" or isinstance(error, torch.OutOfMemoryError)
