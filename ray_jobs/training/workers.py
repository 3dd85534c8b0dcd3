"""What a job trains on: worker groups that are kept until its end.

A long-lived ``TorchTrainer`` starts the workers of a pool, whose groups train one model after
another: starting workers takes seconds, training a small model takes less. When a worker fails, Ray
Train replaces it, and the task queue ends the task that it was training, or queues it again.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

import ray
from ray.actor import ActorHandle
from ray.exceptions import GetTimeoutError, RayActorError, RayError
from ray.train import UserCallback
from ray.train.torch import TorchTrainer
from ray.util import placement_group_table, remove_placement_group
from ray.util.placement_group import PlacementGroup

from foundation.storage import Storage
from ray_jobs.cluster.autoscaler import Demand
from ray_jobs.cluster.ray_internals import draining_nodes, living_actors
from ray_jobs.cluster.resources import GroupPlan, Pool, usable_nodes
from ray_jobs.cluster.session import beside_the_driver
from ray_jobs.cluster.waiting import Waiting
from ray_jobs.training.epoch_times import EpochTimes
from ray_jobs.training.local_mode import LocalMode
from ray_jobs.training.lost_workers import Loss
from ray_jobs.training.pool_run import PoolRun, RunHere, RunOnNode
from ray_jobs.training.pool_worker import PoolWorkerConfig, run_worker
from ray_jobs.training.task_queue import GroupId, PoolState, TaskQueue
from ray_jobs.training.telemetry import GroupMetrics
from ray_jobs.training.torch_trainers import torch_trainer

_SECONDS_TO_EXIT: Final = 10.0
"""How long workers may take to exit; those in a longer epoch are killed."""

_SECONDS_TO_DIE: Final = 30.0
"""How long Ray may take to end a controller whose owner was killed."""

_SECONDS_BETWEEN_LOOKS: Final = 0.05

_SECONDS_BETWEEN_SCALINGS: Final = 2.0

_SECONDS_TO_KEEP: Final = 20.0
"""How long a pool may be idle that no task is left for: the next stage may have some."""

_MAX_CALLS: Final = 10_000
"""Calls that wait in the queue at a time: some of each worker, and one of each trial."""


@dataclass
class Wanted:
    """How many worker groups are wanted.

    An object of its own, which can be pickled: Ray Tune stores the callbacks that lower it.
    """

    at_once: int = 0
    """Tasks that may be done at a time."""
    left: int = 0
    """Tasks that have not ended."""
    left_for_any: int = 0
    """Those of them that need no group of the preferred kind."""

    @property
    def count(self) -> int:
        """Groups that are wanted now."""
        return min(self.at_once, self.left)

    @property
    def preferred(self) -> int:
        """Groups of the preferred kind that are wanted now."""
        return min(self.at_once, self.left - self.left_for_any)


class Workers:
    """Worker groups with a queue of tasks, as a context manager that ends them.

    Nothing is started before ``queue`` is called. From then on a thread starts groups as nodes
    appear, asks an autoscaler for nodes if there is one, and lets idle groups go.
    """

    def __init__(self, where: Storage, max_failures: int, run: str = "") -> None:
        """Groups that write to ``where``, which is deleted at the end.

        Args:
            where: folder for what Ray Train writes.
            max_failures: how often workers of a pool are replaced.
            run: its name, for metrics.
        """
        self._run_name = run
        self._metrics: GroupMetrics | None = None
        self._where = where
        self._max_failures = max_failures
        self._queue: ActorHandle[TaskQueue] | None = None
        self._plan: GroupPlan | None = None
        self._num_datasets = 1
        self.wanted = Wanted()
        self._pools: dict[int, Pool] = {}
        """Those that were started, and neither dismissed nor lost. One that was given up, after
        ``max_failures``, is not replaced before the next stage."""
        self._retired: set[int] = set()
        """Pools that exit when their tasks have ended."""
        self._times = EpochTimes()
        self.quicker: str | None = None
        """The device, GPU or CPU, on which the epochs of the last search for a rating model have
        taken less time, if it used both."""
        self._numbers = itertools.count()
        self._demand = Demand()
        self._waiting = Waiting()
        self._lock = threading.Lock()
        """Held while pools are started or dismissed."""
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
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

    def queue(self, plan: GroupPlan, wanted: int, num_datasets: int = 1) -> ActorHandle[TaskQueue]:
        """The queue of at most ``wanted`` worker groups of a plan, as many as fit the cluster.

        If there are more tasks than that, set ``self.wanted.left`` afterwards. ``num_datasets`` are
        the prepared data sets that tasks have rows of.

        Groups that are there already are kept; others are started, and those of another kind exit.
        """
        if self._queue is None:
            self._others = _controllers(), _placement_groups()
            self._queue = start_queue()
        with self._lock:
            self._plan, self._num_datasets = plan, num_datasets
            self.wanted.at_once, self.wanted.left, self.wanted.left_for_any = wanted, wanted, 0
            self._times = EpochTimes()
            try:
                ray.get(self._queue.begin.remote())
                self._scale()
            except RayActorError:  # it died since the last stage
                queue_died = True
            else:
                queue_died = False
        if queue_died:
            self.close()
            return self.queue(plan, wanted, num_datasets)
        if self._thread is None and plan.preferred.num_workers:
            self._closing.clear()
            self._thread = threading.Thread(target=self._keep_scaling, daemon=True)
            self._thread.start()
        return self._queue

    def _keep_scaling(self) -> None:
        """Body of the thread."""
        while not self._closing.wait(_SECONDS_BETWEEN_SCALINGS):
            with self._lock, contextlib.suppress(RayError):
                if not self._closing.is_set():
                    self._scale()

    def _scale(self) -> None:
        """Start the pools that are missing and fit, and dismiss those that are not wanted.

        Raises:
            RayActorError: if the queue has died.
        """
        assert self._queue is not None
        assert self._plan is not None
        state: dict[int, PoolState] = ray.get(self._queue.pools.remote())
        # Before workers are started on a node that was added, perhaps a larger one.
        workers_on_node = self._plan.workers_on_node(self.wanted.at_once)
        ray.get(self._queue.share_nodes.remote(workers_on_node, self._num_datasets))
        self._pools = {i: pool for i, pool in self._pools.items() if i in state}
        self._retired &= self._pools.keys()
        if self._plan.is_timed:
            self._leave_out_what_is_too_slow(state)
        kinds = self._plan.kinds
        self._dismiss(
            [
                index
                for index, pool in self._pools.items()
                if pool.resources not in kinds and index not in self._retired
            ]
        )
        self._leave(draining_nodes())
        running = [p for i, p in self._pools.items() if state[i].num_ready == p.num_groups]
        starting = [p for i, p in self._pools.items() if state[i].num_ready < p.num_groups]
        nodes, wanted = usable_nodes(), self.wanted
        for pool in self._plan.missing(nodes, running, starting, wanted.count, wanted.preferred):
            index = next(self._numbers)
            self._pools[index] = pool
            run = self._run(index, pool)
            device = pool.resources.device
            ray.get(self._queue.start.remote(index, pool.num_groups, run, device))
        num_groups = sum(pool.num_groups for pool in self._pools.values())
        surplus = num_groups - self.wanted.count
        if surplus > 0:
            for index in ray.get(self._queue.dismiss_idle.remote(_SECONDS_TO_KEEP, surplus)):
                self._pools.pop(index, None)
        if self._plan.may_grow:
            missing = self.wanted.preferred - self._plan.num_preferred(self._pools.values())
            self._demand.ask_for(self._plan.preferred.bundles, max(0, missing))
        num_ready = sum(pool.num_ready for pool in state.values())
        self._metrics = self._metrics or GroupMetrics(self._run_name)
        self._metrics.set(num_ready, self.wanted.count)
        # Trials train on any group.
        of_preferred = [i for i, p in self._pools.items() if p.resources == self._plan.preferred]
        num_useful = sum(state[i].num_ready for i in of_preferred if i in state)
        if not self.wanted.left_for_any:
            num_useful = num_ready
        is_over = num_useful > 0 or not self.wanted.preferred
        self._waiting.update(self._plan.waited_for, is_over=is_over)

    def _leave_out_what_is_too_slow(self, state: Mapping[int, PoolState]) -> None:
        """Let the pools of a kind of groups end that would hold up the end of the stage."""
        assert self._queue is not None
        assert self._plan is not None
        seconds: dict[str, list[float]] = {}
        num_groups: Counter[str] = Counter()
        for index, pool in self._pools.items():
            if index in state:
                device = pool.resources.device
                seconds.setdefault(device, []).extend(state[index].epoch_seconds)
                num_groups[device] += state[index].num_ready
        slow = self._times.too_slow(seconds, num_groups, self.wanted.left)
        if self._plan.is_of_ratings:
            self.quicker = self._times.quicker or self.quicker
        if slow is None:
            return
        for index, pool in self._pools.items():
            if pool.resources.device == slow:
                self._retired.add(index)
                ray.get(self._queue.retire.remote(index))
        self._plan = self._plan.without(slow)

    def _leave(self, draining: set[str]) -> None:
        """Move the tasks of nodes that will be taken away."""
        assert self._queue is not None
        for index, pool in list(self._pools.items()):
            if pool.node in draining:
                del self._pools[index]
                loss = Loss("cluster", "its node will be taken away")
                ray.get(self._queue.leave.remote(index, loss))

    def close(self, *, at_once: bool = False) -> None:
        """Ask workers to exit after the current epoch, and kill those that take long, or all of
        them ``at_once``: what a training needs to continue is stored after each epoch."""
        if self._queue is None:
            return
        self._closing.set()
        if self._thread:
            self._thread.join()
            self._thread = None
        controllers, placement_groups = self._others
        try:
            self._demand.end()
            # If the queue has died, its trainers have ended too.
            with contextlib.suppress(RayActorError):
                self._dismiss([] if at_once else list(self._pools))
        finally:
            ray.kill(self._queue)
            self._queue, self._pools = None, {}
            # A controller that is starting workers asks for their CPUs until it has died.
            _wait_until_dead(controllers)
            _free(_placement_groups() - placement_groups)
            self._where.delete()

    def _dismiss(self, indices: list[int]) -> None:
        if not indices:
            return
        assert self._queue is not None
        for index in indices:
            self._pools.pop(index, None)
        with contextlib.suppress(GetTimeoutError):
            ray.get(self._queue.dismiss.remote(indices), timeout=_SECONDS_TO_EXIT)

    def _run(self, index: int, pool: Pool) -> PoolRun:
        trainer = self._trainer(index, pool)
        if pool.node in (None, ray.get_runtime_context().get_node_id()):
            return RunHere(trainer)
        return RunOnNode(ray.put(trainer), pool.node)

    def _trainer(self, index: int, pool: Pool) -> TorchTrainer:
        assert self._queue is not None
        local = LocalMode.of(pool.resources)
        config = PoolWorkerConfig(self._queue, index, pool.is_one_group, local)
        return torch_trainer(
            run_worker,
            {"config": config},
            pool,
            self._where / f"pool-{index}",
            [_FailureReporter(self._queue, index, pool.is_one_group)],
            self._max_failures,
        )


def start_queue() -> ActorHandle[TaskQueue]:
    """A queue in a process of its own, on this program's node."""
    options = beside_the_driver() | {"max_concurrency": _MAX_CALLS}
    queue: ActorHandle[TaskQueue] = ray.remote(TaskQueue).options(**options).remote()
    return queue


def _controllers() -> set[str]:
    """Ids of the living controllers of this program's training runs."""
    return living_actors("TrainController")


def _wait_until_dead(before: set[str]) -> None:
    """Wait for the controllers that were started since ``before``, but not for ever."""
    deadline = time.monotonic() + _SECONDS_TO_DIE
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

    def __init__(self, queue: ActorHandle[TaskQueue], pool: int, one_group: bool) -> None:
        self._queue = queue
        self._pool = pool
        self._one_group = one_group

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Called by Ray Train in its controller."""
        if self._one_group:
            failed = {0: Loss.of_workers(worker_exceptions.values())}
        else:
            failed = {rank: Loss.of_workers([each]) for rank, each in worker_exceptions.items()}
        ray.get(
            [
                self._queue.lost.remote(GroupId(self._pool, number), loss)
                for number, loss in failed.items()
            ]
        )
