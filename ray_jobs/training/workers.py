"""What a job trains on: worker groups that are kept until its end.

A worker group is one long-lived ``TorchTrainer``, which trains one model after another: starting a
group takes seconds, training a small model takes less. When one of its workers fails, Ray Train
restarts the group, and the task queue ends the task that it was training, or queues it again.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final, Self

import ray
from ray.actor import ActorHandle
from ray.exceptions import GetTimeoutError, RayActorError
from ray.train import UserCallback
from ray.train.torch import TorchTrainer
from ray.util import placement_group_table, remove_placement_group
from ray.util.placement_group import PlacementGroup
from ray.util.state import list_actors
from ray.util.state.exception import RayStateApiException

from foundation.storage import Storage
from ray_jobs.cluster.resources import Resources
from ray_jobs.cluster.session import beside_the_driver
from ray_jobs.training.local_mode import LocalMode
from ray_jobs.training.lost_workers import Loss
from ray_jobs.training.pool_worker import PoolWorkerConfig, run_worker
from ray_jobs.training.task_queue import TaskQueue
from ray_jobs.training.torch_trainers import torch_trainer

_SECONDS_TO_EXIT: Final = 10.0
"""How long workers may take to exit; those in a longer epoch are killed."""

_SECONDS_TO_DIE: Final = 30.0
"""How long Ray may take to end a controller whose owner was killed."""

_SECONDS_BETWEEN_LOOKS: Final = 0.05

_MAX_CALLS: Final = 10_000
"""Calls that wait in the queue at a time: some of each worker, and one of each trial."""


class Workers:
    """Worker groups with a queue of tasks, as a context manager that ends them.

    Nothing is started before ``queue`` is called.
    """

    def __init__(self, where: Storage, max_failures: int) -> None:
        """Groups that write to ``where``, which is deleted at the end.

        Args:
            where: folder for what Ray Train writes.
            max_failures: how often the workers of a group are replaced.
        """
        self._where = where
        self._max_failures = max_failures
        self._queue: ActorHandle[TaskQueue] | None = None
        self._groups: dict[int, Resources] = {}
        self._numbers = itertools.count()
        self._others: tuple[set[str], set[str]] = (set(), set())
        """Controllers and placement groups that were there before."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close(at_once=kind is not None)

    def queue(self, groups: Sequence[Resources]) -> ActorHandle[TaskQueue]:
        """The queue of worker groups with these resources, no more of them than fit the cluster.

        Groups that are there already are kept; others are started, and those that are too many
        exit.
        """
        if self._queue is None:
            with contextlib.suppress(RayStateApiException):
                self._others = _controllers(), _placement_groups()
            options = beside_the_driver() | {"max_concurrency": _MAX_CALLS}
            self._queue = ray.remote(TaskQueue).options(**options).remote()
        try:
            living = ray.get(self._queue.groups.remote())
        except RayActorError:  # it died since the last stage
            self.close()
            return self.queue(groups)
        surplus, missing = {index: self._groups[index] for index in living}, list(groups)
        for index, resources in list(surplus.items()):
            if resources in missing:
                missing.remove(resources)
                del surplus[index]
        if surplus:
            self._dismiss(list(surplus))
        for resources in missing:
            index = next(self._numbers)
            self._groups[index] = resources
            ray.get(self._queue.start.remote(index, self._trainer(index, resources)))
        return self._queue

    def close(self, *, at_once: bool = False) -> None:
        """Ask workers to exit after the current epoch, and kill those that take long, or all of
        them ``at_once``: what a training needs to continue is stored after each epoch."""
        if self._queue is None:
            return
        controllers, placement_groups = self._others
        try:
            # If the queue has died, its trainers have ended too.
            with contextlib.suppress(RayActorError):
                self._dismiss([] if at_once else list(self._groups))
        finally:
            ray.kill(self._queue)
            self._queue, self._groups = None, {}
            # A controller that is starting workers asks for their CPUs until it has died.
            _wait_until_dead(controllers)
            _free(_placement_groups() - placement_groups)
            self._where.delete()

    def _dismiss(self, indices: list[int]) -> None:
        assert self._queue is not None
        with contextlib.suppress(GetTimeoutError):
            ray.get(self._queue.dismiss.remote(indices), timeout=_SECONDS_TO_EXIT)

    def _trainer(self, index: int, resources: Resources) -> TorchTrainer:
        assert self._queue is not None
        config = PoolWorkerConfig(self._queue, index, LocalMode.of(resources))
        return torch_trainer(
            run_worker,
            {"config": config},
            resources,
            self._where / f"group-{index}",
            [_FailureReporter(self._queue, index)],
            self._max_failures,
        )


def _controllers() -> set[str]:
    """Ids of the living controllers of this program's training runs.

    Raises:
        RayStateApiException: if the dashboard does not answer.
    """
    job = ray.get_runtime_context().get_job_id()
    wanted = {"class_name": "TrainController", "job_id": job}
    found = list_actors(
        filters=[("state", "!=", "DEAD"), *((key, "=", value) for key, value in wanted.items())]
    )
    return {actor.actor_id for actor in found}


def _wait_until_dead(before: set[str]) -> None:
    """Wait for the controllers that were started since ``before``, but not for ever."""
    deadline = time.monotonic() + _SECONDS_TO_DIE
    with contextlib.suppress(RayStateApiException):
        while _controllers() - before and time.monotonic() < deadline:
            time.sleep(_SECONDS_BETWEEN_LOOKS)


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

    Ray Train does not do this if some workers had not started when their controller was killed.
    """
    for group in groups:
        remove_placement_group(PlacementGroup(ray.PlacementGroupID.from_hex(group)))


class _FailureReporter(UserCallback):
    """Reports to the task queue why workers failed, before Ray Train replaces them."""

    def __init__(self, queue: ActorHandle[TaskQueue], group_index: int) -> None:
        self._queue = queue
        self._group_index = group_index

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Called by Ray Train in its controller."""
        loss = Loss.of_workers(worker_exceptions.values())
        ray.get(self._queue.lost.remote(self._group_index, loss))
