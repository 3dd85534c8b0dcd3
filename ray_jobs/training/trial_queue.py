"""The queue between the trials of a search and persistent worker groups.

::

    trials --add, result, drop--> TrialQueue <--join, next, report, ended-- workers
                                       ^--lost-- Ray Train's controllers
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

from ray.train import TrainingFailedError
from ray.train.torch import TorchTrainer

from ncf.config import ExperimentConfig
from ray_jobs.training.torch_trainers import first_cause

_MAX_EPOCHS_AHEAD: Final = 1
"""Unfetched epochs beyond which a worker waits: without a limit, a model with short epochs would
end before a scheduler could stop it."""


@dataclass
class _Job:
    """One model to train, until it is dropped."""

    experiment: ExperimentConfig
    epochs: deque[dict[str, Any]] = field(default_factory=deque)
    """Metrics of the epochs that were not fetched yet, oldest first."""
    is_over: bool = False
    error: str | None = None
    """Why it failed, if it did."""


@dataclass
class _WorkerGroup:
    """One ``TorchTrainer`` and its current workers."""

    workers: str | None = None
    """Id of its current set of workers, if there is one."""
    num_jobs: int = 0
    """Number of jobs that they have taken."""
    job: tuple[str, ExperimentConfig] | None = None
    """Name and experiment of the newest of these."""


@dataclass(frozen=True)
class Over:
    """The end of a job, after its last epoch."""

    error: str | None
    """Why it failed, if it did."""


class TrialQueue:
    """Passes jobs to worker groups, and their epochs to trials; an async actor."""

    def __init__(self, num_groups: int) -> None:
        self._jobs: dict[str, _Job] = {}
        self._waiting: deque[str] = deque()
        self._groups = [_WorkerGroup() for _ in range(num_groups)]
        self._changed = asyncio.Condition()
        self._closed = False
        self._failures: list[str] = []
        """Why each worker group failed that will not be restarted."""

    # Called by trials.

    async def add(self, name: str, experiment: ExperimentConfig) -> None:
        """Add a job; the first free worker group takes it."""
        async with self._changing():
            self._jobs[name] = _Job(experiment)
            self._waiting.append(name)
            self._fail_without_groups()

    async def result(self, name: str) -> dict[str, Any] | Over:
        """Wait for a job's next epoch, or its end."""
        async with self._changing():
            job = self._jobs[name]
            await self._changed.wait_for(lambda: job.epochs or job.is_over)
            return job.epochs.popleft() if job.epochs else Over(job.error)

    async def drop(self, name: str) -> None:
        """Remove a job; workers that train it stop after the current epoch."""
        async with self._changing():
            self._jobs.pop(name, None)
            if name in self._waiting:
                self._waiting.remove(name)

    # Called by workers.

    async def join(self, group_index: int, workers: str) -> None:
        """Register one of a group's current workers."""
        async with self._changing():
            if self._groups[group_index].workers not in (None, workers):
                self._lose(group_index, "its workers were replaced")
            self._groups[group_index].workers = workers

    async def next(
        self, group_index: int, workers: str, number: int
    ) -> tuple[str, ExperimentConfig] | None:
        """Wait for the job with this number, counted from 0 by each of the group's workers; None
        means to exit."""
        group = self._groups[group_index]

        def should_exit() -> bool:
            return self._closed or group.workers != workers

        async with self._changing():
            await self._changed.wait_for(
                lambda: should_exit() or group.num_jobs > number or self._waiting
            )
            if should_exit():
                return None
            if group.num_jobs == number:
                name = self._waiting.popleft()
                group.num_jobs, group.job = number + 1, (name, self._jobs[name].experiment)
            return group.job

    async def report(self, name: str, metrics: dict[str, Any]) -> bool:
        """Report an epoch; returns whether to continue the job."""
        async with self._changing():
            job = self._jobs.get(name)
            if job is None or job.is_over:
                return False
            job.epochs.append(metrics)
            self._changed.notify_all()

            def is_stopped() -> bool:
                return self._closed or name not in self._jobs

            await self._changed.wait_for(
                lambda: is_stopped() or len(job.epochs) <= _MAX_EPOCHS_AHEAD
            )
            return not is_stopped()

    async def ended(self, name: str, error: str | None) -> None:
        """End a job that is complete, or that failed without loss of its workers."""
        async with self._changing():
            self._end(name, error)

    # Called by the pool and by Ray Train's controllers.

    async def run(self, trainers: Sequence[TorchTrainer]) -> None:
        """Run the trainer of every group until the queue is closed."""
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
        reason = "its workers have exited"
        try:
            await asyncio.get_running_loop().run_in_executor(threads, trainer.fit)
        except TrainingFailedError as error:
            reason = first_cause(error)
        except Exception as error:  # of Ray, or in local mode of the training itself
            reason = reason_of(error)
        async with self._changing():
            self._lose(group_index, reason)
            self._failures.append(reason)
            self._fail_without_groups()

    @contextlib.asynccontextmanager
    async def _changing(self) -> AsyncIterator[None]:
        """Hold the lock, except while waiting, and notify all waiting calls afterwards."""
        async with self._changed:
            yield
            self._changed.notify_all()

    def _end(self, name: str, error: str | None) -> None:
        job = self._jobs.get(name)
        if job and not job.is_over:
            job.is_over, job.error = True, error

    def _lose(self, group_index: int, reason: str) -> None:
        group = self._groups[group_index]
        if group.job:
            self._end(group.job[0], reason)
        group.workers, group.num_jobs, group.job = None, 0, None

    def _fail_without_groups(self) -> None:
        """Fail the waiting jobs if no worker group is left."""
        if len(self._failures) == len(self._groups):
            while self._waiting:
                self._end(self._waiting.popleft(), self._failures[0])


def reason_of(error: Exception) -> str:
    """The type and message of an exception."""
    return f"{type(error).__name__}: {error}"
