"""The queue between training tasks and persistent worker groups.

::

    stages, trials --add, result, drop--> TaskQueue <--join, next, report, ended-- workers
    Workers --start, pools, retire, dismiss--^   ^--lost-- Ray Train's controllers

A process that holds a handle of an actor imports the actor's module, and drivers of trials need no
PyTorch, so this module does not import it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from foundation.errors import MovieRatingsError
from ray_jobs.training.lost_workers import Loss, Losses, Retries
from ray_jobs.training.pool_run import PoolRun

if TYPE_CHECKING:
    from ray_jobs.training.tasks import Task, TaskResult

_MAX_EPOCHS_AHEAD: Final = 1
"""Unfetched epochs beyond which a worker waits: without a limit, a model with short epochs would
end before a scheduler could stop it."""


_EPOCHS_TIMED: Final = 30
"""Of a pool."""


_NONE: Final = Retries()

_REPLACED: Final = Loss("resize", "their number has changed")


@dataclass(frozen=True)
class Over:
    """The end of a task, after its last epoch."""

    error: str | None
    """Why it failed, if it did."""
    result: TaskResult | None = None
    """None if it failed."""


@dataclass(frozen=True)
class Order:
    """A task for the workers of one group."""

    task: Task
    workers_on_node: int
    """Maximum number of workers on a node at a time, which share its memory."""
    num_datasets: int = 1
    """Data sets whose rows they hold, so that not all of them share one copy."""


class _Signal:
    """Wakes those that wait for something to become true.

    An ``asyncio.Condition`` for all would wake everybody at every change: with hundreds of workers
    most of the queue's time.
    """

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[None]] = []

    async def wait_for(self, is_so: Callable[[], object]) -> None:
        """Wait until a change after which it is so, unless it is already."""
        while not is_so():
            change = asyncio.get_running_loop().create_future()
            self._waiting.append(change)
            await change

    def changed(self) -> None:
        """To be called after every change."""
        waiting, self._waiting = self._waiting, []
        for change in waiting:
            if not change.done():  # the call may have been cancelled
                change.set_result(None)


@dataclass
class _Job:
    """One task, until it is dropped."""

    task: Task
    losses: Losses
    """Of its workers."""
    device: str | None = None
    """Whose groups alone may take it, if any may not."""
    newest_epoch: int = 0
    """Number of the newest epoch that was reported; trained again, it reports further ones only."""
    lost: str | None = None
    """Why it lost its workers, until its next epoch says so."""
    epochs: deque[dict[str, Any]] = field(default_factory=deque)
    """Metrics of the epochs that were not fetched yet, oldest first."""
    over: Over | None = None
    signal: _Signal = field(default_factory=_Signal)
    """Of changes of the job, and of the group that trains it."""

    def end(self, over: Over) -> None:
        """End the task."""
        self.over = over
        self.signal.changed()

    def append(self, metrics: dict[str, Any]) -> None:
        """Add an epoch, unless it was there before the task lost its workers."""
        if metrics["epoch"] <= self.newest_epoch:
            return
        self.newest_epoch = metrics["epoch"]
        losses = sum(self.losses.counts.values())
        if losses:
            metrics = metrics | {"losses": losses}
        if self.lost:
            metrics, self.lost = metrics | {"lost": self.lost}, None
        self.epochs.append(metrics)
        self.signal.changed()


class GroupId(NamedTuple):
    """A worker group."""

    pool: int
    """Which of all pools that were started."""
    number: int
    """Which group of the pool."""


@dataclass(frozen=True)
class PoolState:
    """What ``Workers`` need to know of a pool."""

    num_ready: int
    """Number of its groups that have their workers."""
    seconds_idle: float
    """How long all of its groups have waited for a task; 0 if one does not."""
    is_given_up: bool
    """Whether Ray Train has replaced its workers as often as it may."""
    epoch_seconds: tuple[float, ...] = ()
    """Of the newest epochs that its groups have trained."""


@dataclass
class _WorkerGroup:
    """The current workers of a group."""

    workers: str | None = None
    """Id of its current set of workers, if there is one."""
    num_orders: int = 0
    """Number of tasks that they have taken."""
    order: Order | None = None
    """The newest of these."""
    is_dismissed: bool = False
    """Whether its workers are asked to exit."""
    is_retired: bool = False
    """Whether its workers are asked to exit once their task has ended."""
    is_cut_short: bool = False
    """Whether its task was stopped because of that, and so has no result."""
    idle_since: float | None = None
    """When its workers began to wait for a task, by the event loop's clock."""
    signal: _Signal = field(default_factory=_Signal)


class TaskQueue:
    """An async actor that passes tasks to worker groups, and their epochs and results back.

    Groups come and go; a task is taken by the one that has been free for longest. No method awaits
    anything between two changes that belong together.
    """

    def __init__(self) -> None:
        self._jobs: dict[str, _Job] = {}
        self._waiting: deque[str] = deque()
        """Names of tasks."""
        self._free: dict[GroupId, None] = {}
        """Groups that wait for a task, in order."""
        self._groups: dict[GroupId, _WorkerGroup] = {}
        self._runs: dict[int, asyncio.Task[None]] = {}
        """Of the trainers of the pools."""
        self._given_up: set[int] = set()
        """Pools that count as there, so that no other takes their place."""
        self._leaving: dict[int, Loss] = {}
        """Pools whose nodes will be taken away."""
        self._devices: dict[int, str] = {}
        """``GPU`` or ``CPU``, of each pool."""
        self._epoch_seconds: dict[int, deque[float]] = {}
        """Of the newest epochs, by pool."""
        self._workers_on_node = 1
        self._num_datasets = 1
        self._searches: dict[str, tuple[Callable[[str, dict[str, Any]], Task], Retries]] = {}
        """What makes the tasks of the trials of each search, and how often they are retried."""
        self._trials: dict[str, str | None] = {}
        """By the ids of all trials that were added, also of those that have ended, why there is no
        task, if so."""
        self._failures: dict[str, str] = {}
        """By device, why the last pool was given up, if no other takes its place."""

    # Called by stages.

    async def add(self, task: Task, retries: Retries = _NONE, device: str | None = None) -> None:
        """Add a task; one that loses its workers is queued again as ``retries`` says.

        With a ``device``, groups on another one do not take it.

        Raises:
            ValueError: if there is a task of this name.
        """
        if task.name in self._jobs:
            raise ValueError(f"there is a task {task.name!r} already")
        self._jobs[task.name] = _Job(task, Losses(retries), device)
        self._waiting.append(task.name)
        self._pass_on()
        self._fail_without_groups()

    async def result(self, name: str) -> dict[str, Any] | Over:
        """Wait for a task's next epoch, or its end."""
        job = self._jobs[name]
        await job.signal.wait_for(lambda: job.epochs or job.over)
        if job.epochs:
            epoch = job.epochs.popleft()
            job.signal.changed()
            return epoch
        assert job.over
        return job.over

    async def drop(self, name: str) -> None:
        """Remove a task; workers that train it stop after the current epoch."""
        job = self._jobs.pop(name, None)
        if name in self._waiting:
            self._waiting.remove(name)
        if job:
            job.signal.changed()

    async def define(
        self, search: str, task_of: Callable[[str, dict[str, Any]], Task], retries: Retries
    ) -> None:
        """Say what the task of a trial is, by its id and parameters."""
        self._searches[search] = task_of, retries

    # Called by trials, which do not import what these tasks are made of.

    async def add_trial(self, search: str, trial_id: str, parameters: dict[str, Any]) -> str | None:
        """Add the task of a trial; returns why there can be none, or None.

        Ray Tune starts a driver for a trial, and gives the trial to another driver that has become
        free meanwhile. Then both call this, the new one possibly after the trial has ended; its
        task would never be asked for, and hold its workers for ever.
        """
        if trial_id not in self._trials:
            self._trials[trial_id] = None
            task_of, retries = self._searches[search]
            try:
                task = task_of(trial_id, parameters)
            except MovieRatingsError as error:
                self._trials[trial_id] = str(error)
            else:
                await self.add(task, retries)
        return self._trials[trial_id]

    async def next_epoch(self, trial_id: str) -> tuple[dict[str, Any] | None, str | None]:
        """Wait for the metrics of a trial's next epoch; None after the last one, then with the
        reason if it failed."""
        found = await self.result(trial_id)
        return (None, found.error) if isinstance(found, Over) else (found, None)

    async def trial_ended(self) -> None:
        """Does nothing: Ray's dashboard shows the name of the call."""

    # Called by workers.

    async def join(self, group_id: GroupId, workers: str) -> None:
        """Register one of a group's current workers."""
        if self._groups[group_id].workers not in (None, workers):
            self._lose(group_id, _REPLACED)
        self._groups[group_id].workers = workers

    async def next(
        self, group_id: GroupId, workers: str, number: int, *, is_first: bool = True
    ) -> Order | None:
        """Wait for a task; None means to exit.

        Args:
            group_id: the group.
            workers: names its current workers.
            number: of the task, counted from 0 by each of the group's workers.
            is_first: whether this is the worker that reports: the group is free when it is.
        """
        group = self._groups[group_id]

        def should_exit() -> bool:
            # If the others of the group have a task, these workers take part in it.
            is_asked = group.is_dismissed or group.is_retired
            is_last = is_asked and group.num_orders <= number
            return group.workers != workers or is_last

        is_free = group.num_orders == number and group_id not in self._free
        if is_first and is_free and not should_exit():
            self._free[group_id] = None
            group.idle_since = asyncio.get_running_loop().time()
            self._pass_on()
        await group.signal.wait_for(lambda: should_exit() or group.num_orders > number)
        return None if should_exit() else group.order

    async def report(
        self, group_id: GroupId, workers: str, number: int, metrics: dict[str, Any]
    ) -> bool:
        """Report an epoch of the group's task; returns whether to continue the task."""
        job, group = self._job_of(group_id, workers, number), self._groups.get(group_id)
        if job is None or group is None:
            return False
        job.append(metrics)
        if "seconds" in metrics:
            newest = self._epoch_seconds.setdefault(group_id.pool, deque(maxlen=_EPOCHS_TIMED))
            newest.append(metrics["seconds"])

        def is_stopped() -> bool:
            return group.is_dismissed or self._job_of(group_id, workers, number) is not job

        await job.signal.wait_for(lambda: is_stopped() or len(job.epochs) <= _MAX_EPOCHS_AHEAD)
        group.is_cut_short = group.is_dismissed
        return not is_stopped()

    async def ended(
        self,
        group_id: GroupId,
        workers: str,
        number: int,
        error: str | None,
        result: TaskResult | None,
    ) -> None:
        """End the group's task, which is complete or has failed for a reason of its own."""
        job = self._job_of(group_id, workers, number)
        if job and not self._groups[group_id].is_cut_short:
            job.end(Over(error, result))

    # Called by ``Workers`` and by Ray Train's controllers.

    async def start(self, pool: int, num_groups: int, run: PoolRun, device: str = "CPU") -> None:
        """Start a pool, by running its trainer until the pool is dismissed or fails.

        Args:
            pool: its number.
            num_groups: number of its groups.
            run: of its trainer.
            device: that its groups train on.
        """
        self._failures.pop(device, None)
        self._devices[pool] = device
        for number in range(num_groups):
            self._groups[GroupId(pool, number)] = _WorkerGroup()
        self._runs[pool] = asyncio.create_task(self._run(pool, run))

    async def begin(self) -> None:
        """Begin a stage, which forgets what was given up before."""
        self._given_up.clear()
        self._failures.clear()
        self._epoch_seconds.clear()

    async def share_nodes(self, workers_on_node: int, num_datasets: int = 1) -> None:
        """Say how many workers share a node's memory, of all further tasks; see ``Order``."""
        self._workers_on_node, self._num_datasets = workers_on_node, num_datasets

    async def pools(self) -> dict[int, PoolState]:
        """Pools that were started, and neither dismissed nor lost."""
        now = asyncio.get_running_loop().time()
        found = {pool: PoolState(0, 0.0, is_given_up=True) for pool in self._given_up}
        for pool, by_id in self._by_pool().items():
            groups = by_id.values()
            if not any(group.is_dismissed for group in groups):
                idle = [now if each.idle_since is None else each.idle_since for each in groups]
                num_ready = sum(group.workers is not None for group in groups)
                found[pool] = PoolState(
                    num_ready,
                    now - max(idle),
                    is_given_up=False,
                    epoch_seconds=tuple(self._epoch_seconds.get(pool, ())),
                )
        return found

    async def num_ready(self) -> int:
        """Worker groups that have workers; 1 if there is none and tasks fail for that reason."""
        if self._failures and not self._groups:
            return 1
        return sum(pool.num_ready for pool in (await self.pools()).values())

    async def dismiss(self, pools: Sequence[int]) -> None:
        """Ask the workers of pools to exit after the current epoch, and wait until they have.

        Pools that wait for resources do not start any more, but this does not wait for them.
        """
        by_pool = self._by_pool()
        runs = []
        for pool in pools:
            groups = by_pool.get(pool, {})
            self._dismiss(groups)
            if any(group.workers for group in groups.values()):
                runs.append(self._runs[pool])
        await asyncio.gather(*runs)

    async def retire(self, pool: int) -> None:
        """Ask the workers of a pool to exit when their tasks have ended."""
        for group_id, group in self._by_pool().get(pool, {}).items():
            group.is_retired = True
            self._free.pop(group_id, None)
            group.signal.changed()

    async def dismiss_idle(self, seconds: float, at_most: int) -> list[int]:
        """Ask the workers of pools to exit that have waited for a task so long; returns which.

        They are chosen and dismissed in one step, so that none of them takes a task in between.

        Args:
            seconds: how long all groups of a pool have waited.
            at_most: number of groups to dismiss.
        """
        dismissed = []
        by_pool = self._by_pool()
        for pool, state in (await self.pools()).items():
            groups = by_pool.get(pool, {})
            if groups and state.seconds_idle > seconds and len(groups) <= at_most:
                at_most -= len(groups)
                dismissed.append(pool)
                self._dismiss(groups)
        return dismissed

    async def lost(self, group_id: GroupId, loss: Loss) -> None:
        """End the task of a group whose workers have failed, or queue it again."""
        self._lose(group_id, loss)

    async def leave(self, pool: int, loss: Loss) -> None:
        """Dismiss a pool whose node will be taken away.

        Others take its tasks once its workers have exited, which may write files of these, or are
        lost with the node.
        """
        self._leaving[pool] = loss
        self._dismiss(self._by_pool().get(pool, {}))

    async def _run(self, pool: int, run: PoolRun) -> None:
        end = await run.run()
        groups = self._by_pool().get(pool, {})
        loss = self._leaving.pop(pool, end.loss)
        for group_id in groups:
            self._lose(group_id, loss)
            del self._groups[group_id]
        del self._runs[pool]
        self._epoch_seconds.pop(pool, None)
        device = self._devices.pop(pool)
        is_asked = any(group.is_dismissed or group.is_retired for group in groups.values())
        if end.is_given_up and not is_asked:
            self._given_up.add(pool)
            self._failures[device] = end.loss.reason
        elif not is_asked:  # another one may take its place
            self._failures.pop(device, None)
        self._fail_without_groups()

    def _by_pool(self) -> dict[int, dict[GroupId, _WorkerGroup]]:
        found: dict[int, dict[GroupId, _WorkerGroup]] = {}
        for group_id, group in self._groups.items():
            found.setdefault(group_id.pool, {})[group_id] = group
        return found

    def _dismiss(self, groups: Mapping[GroupId, _WorkerGroup]) -> None:
        for group_id, group in groups.items():
            group.is_dismissed = True
            self._free.pop(group_id, None)
            group.signal.changed()
            job = self._jobs.get(group.order.task.name) if group.order else None
            if job:
                job.signal.changed()

    def _pass_on(self) -> None:
        """Pass tasks that wait to groups that are free and may take them."""
        for name in list(self._waiting) if self._free else ():
            job = self._jobs[name]
            for group_id in self._free:
                if job.device in (None, self._devices[group_id.pool]):
                    self._waiting.remove(name)
                    self._pass_to(group_id, job.task)
                    break
            if not self._free:
                return

    def _pass_to(self, group_id: GroupId, task: Task) -> None:
        del self._free[group_id]
        group = self._groups[group_id]
        group.order = Order(task, self._workers_on_node, self._num_datasets)
        group.num_orders += 1
        group.idle_since = None
        group.signal.changed()

    def _job_of(self, group_id: GroupId, workers: str, number: int) -> _Job | None:
        """The task with this number that these workers train; None if it has ended, or was dropped,
        or if the group has another task or other workers now."""
        group = self._groups.get(group_id)
        if group is None or group.workers != workers or group.order is None:
            return None
        if group.num_orders != number + 1:
            return None
        job = self._jobs.get(group.order.task.name)
        return job if job and job.task is group.order.task and not job.over else None

    def _lose(self, group_id: GroupId, loss: Loss) -> None:
        group = self._groups.get(group_id)
        if group is None:  # reported after it has ended
            return
        task = group.order.task if group.order else None
        group.workers, group.num_orders, group.order, group.idle_since = None, 0, None, None
        self._free.pop(group_id, None)
        group.signal.changed()
        if task:
            self._end_or_repeat(task, loss)

    def _end_or_repeat(self, task: Task, loss: Loss) -> None:
        job = self._jobs.get(task.name)
        if job is None or job.over or job.task is not task:
            return
        failure = job.losses.add(loss)
        if failure:
            job.end(Over(failure))
        else:
            job.lost = loss.reason
            job.signal.changed()
            self._waiting.appendleft(task.name)
            self._pass_on()

    def _fail_without_groups(self) -> None:
        """Fail the waiting tasks that no group may take, if that is because pools were given up."""
        devices = {self._devices[group_id.pool] for group_id in self._groups}
        for name in list(self._waiting):
            job = self._jobs[name]
            wanted = {job.device} if job.device else {*devices, *self._failures}
            reasons = [self._failures[device] for device in wanted if device in self._failures]
            if reasons and not wanted & devices:
                self._waiting.remove(name)
                job.end(Over(reasons[-1]))
