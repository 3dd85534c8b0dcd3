"""Worker groups that stay and train one model after another: a further one starts no process.

::

    who wants models trained --add, result, drop--> Desk <--join, next, report, ended-- workers
                                                     ^--lost-- Train's controllers

A slot is one long-lived ``TorchTrainer``. When one of its workers fails, Ray Train starts them
anew, and the desk counts the model that they were at as failed, and no other.
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
"""How long workers may take to end by themselves; those in a longer epoch are killed."""

_EPOCHS_AHEAD: Final = 1
"""Epochs not yet fetched beyond which a worker waits: without a limit, a model with short epochs
would be done before anyone could stop it."""


@dataclass
class _Job:
    """One model to train, until nobody asks for it any more."""

    experiment: ExperimentConfig
    epochs: deque[dict[str, Any]] = field(default_factory=deque)
    """Metrics of the epochs that were not fetched yet."""
    over: bool = False
    error: str | None = None


@dataclass
class _WorkerGroup:
    """One ``TorchTrainer`` and the workers that it has at present."""

    workers: str | None = None
    """Names its present workers, if there are any."""
    taken: int = 0
    """Jobs that they have taken."""
    job: tuple[str, ExperimentConfig] | None = None
    """The newest of these."""


@dataclass(frozen=True)
class Over:
    """What follows a job's last epoch."""

    error: str | None
    """Why it failed, if it did."""


class TrialQueue:
    """Where jobs are handed in and taken, and their epochs brought and fetched; an async actor."""

    def __init__(self, num_groups: int) -> None:
        self._jobs: dict[str, _Job] = {}
        self._waiting: deque[str] = deque()
        self._groups = [_WorkerGroup() for _ in range(num_groups)]
        self._changed = asyncio.Condition()
        self._closed = False
        self._given_up: list[str] = []
        """Why slots are run no longer, of each that is not."""

    # For whoever wants models trained.

    async def add(self, name: str, experiment: ExperimentConfig) -> None:
        """Hand in a job; the first slot that is free takes it."""
        async with self._changing():
            self._jobs[name] = _Job(experiment)
            self._waiting.append(name)
            self._refuse_if_none_is_left()

    async def result(self, name: str) -> dict[str, Any] | Over:
        """A job's next epoch, once it has come."""
        async with self._changing():
            job = self._jobs[name]
            await self._changed.wait_for(lambda: job.epochs or job.over)
            return job.epochs.popleft() if job.epochs else Over(job.error)

    async def drop(self, name: str) -> None:
        """Forget a job; workers that are at it stop after their epoch."""
        async with self._changing():
            self._jobs.pop(name, None)
            if name in self._waiting:
                self._waiting.remove(name)

    # For workers.

    async def join(self, group_index: int, workers: str) -> None:
        """Be one of a slot's present workers."""
        async with self._changing():
            if self._groups[group_index].workers not in (None, workers):
                self._lose(group_index, "its workers were replaced")
            self._groups[group_index].workers = workers

    async def next(
        self, group_index: int, workers: str, number: int
    ) -> tuple[str, ExperimentConfig] | None:
        """The job with this number, counted from 0 by each of the slot's workers; None: no more."""
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
        """Bring an epoch; returns whether to go on with the job."""
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
        """A job is done, or has failed and left its workers well."""
        async with self._changing():
            self._end(name, error)

    # For what watches the workers.

    async def run(self, trainers: Sequence[TorchTrainer]) -> None:
        """Run a trainer in every slot until the desk closes."""
        with ThreadPoolExecutor(len(trainers)) as threads:
            await asyncio.gather(
                *(
                    self._run(threads, group_index, trainer)
                    for group_index, trainer in enumerate(trainers)
                )
            )

    async def lost(self, group_index: int, reason: str) -> None:
        """A slot's workers are gone, and with them the job that they were at."""
        async with self._changing():
            self._lose(group_index, reason)

    async def close(self) -> None:
        """Send all workers home after their epoch."""
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
        """Alone at the desk, but for waiting; all others look again afterwards."""
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
    """The desk of worker groups that stay for the length of the block.

    Args:
        prepared: the data that all jobs train on.
        groups: what each group takes; as many as fit the cluster, at most.
        max_failures: how often a group is started anew.
        where: folder for what Ray Train writes.
        models: folder that gets the weights of each job, in a folder of the job's name.
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
        with contextlib.suppress(RayActorError):  # if it is gone, so is all that it started
            ray.get(trial_queue.close.remote())
        ray.wait([running], timeout=_SECONDS_TO_END)
    finally:
        ray.kill(trial_queue)
    _free(_placement_groups() - before)


def _placement_groups() -> set[str]:
    """Those of this program that hold something, by their ids."""
    job = ray.get_runtime_context().get_job_id()
    return {
        key
        for key, group in placement_group_table().items()
        if key.endswith(job) and group["state"] != "REMOVED"
    }


def _free(groups: set[str]) -> None:
    """Take CPUs and GPUs back from workers that were killed, and end what is left of them.

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
    """Tells the desk why workers failed, before others take their place."""

    def __init__(self, trial_queue: ActorHandle[TrialQueue], group_index: int) -> None:
        self._trial_queue = trial_queue
        self._slot = group_index

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Called by Ray Train in its controller."""
        reason = _reason(next(iter(worker_exceptions.values())))
        ray.get(self._trial_queue.lost.remote(self._slot, reason))


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


class _StoppedError(Exception):
    """Nobody waits for the rest of a job."""


def _serve(config: dict[str, Any]) -> None:
    """Body of every worker: one job after the other."""
    trial_queue, group_index = config["trial_queue"], config["group_index"]
    shard = shard_of_worker()
    rows = SplitCache(config["prepared"], ray.train.torch.get_device(), config["groups"])
    workers = ray.train.collective.broadcast_from_rank_zero(uuid.uuid4().hex)
    ray.get(trial_queue.join.remote(group_index, workers))
    gc.freeze()  # what there is now stays, and need not be looked through after every job
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
    """Train one model; returns why it failed, if it did and the workers are none the worse."""

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
    """What the first worker of the group has said, on all of them."""
    if shard.world_size == 1:
        return wanted
    said = torch.tensor(wanted, dtype=torch.uint8, device=device)
    distributed.broadcast(said, src=0)
    return bool(said)


def _is_recoverable(error: Exception, shard: Shard, device: torch.device) -> bool:
    """Whether workers can train another model after this error, and need no new processes."""
    if isinstance(error, DivergedError):
        return True  # all workers found the same sum of their errors
    if shard.world_size > 1:
        return False  # the others may wait for this one's gradients
    return device.type == "cpu" or isinstance(error, torch.OutOfMemoryError)
