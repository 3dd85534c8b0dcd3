"""The queue by itself: what workers and stages would call, in one process."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from ray.exceptions import RayActorError

from ncf.config import ExperimentConfig
from ray_jobs.errors import TrainingError
from ray_jobs.training.lost_workers import Loss, Retries
from ray_jobs.training.pool_run import RunHere
from ray_jobs.training.task_queue import GroupId, Order, Over, PoolState, TaskQueue
from ray_jobs.training.tasks import TaskResult, TrainingTask

RESULT = cast(TaskResult, object())


def task(name: str) -> TrainingTask:
    return TrainingTask(name, cast(Any, None), ExperimentConfig())


@dataclass
class Trainer:
    """Stands for a ``TorchTrainer`` whose workers are the test."""

    ended: threading.Event = field(default_factory=threading.Event)
    error: Exception | None = None

    def fit(self) -> None:
        self.ended.wait(10)  # a test that fails does not end it
        if self.error:
            raise self.error


ERROR = Loss("error", "worker died")
GONE = Loss("cluster", "node 10.0.0.7 was lost")
MEMORY = Loss("memory", "node 10.0.0.7 ran out of memory")


class Group:
    """The only worker group of a pool, with a single worker."""

    def __init__(self, queue: TaskQueue, index: int) -> None:
        self.trainer = Trainer()
        self._queue = queue
        self._index = index
        self.id = GroupId(index, 0)
        self._life = 0
        self._number = -1

    async def start(self, num_groups: int = 1, device: str = "CPU") -> None:
        run = RunHere(cast(Any, self.trainer))
        await self._queue.start(self._index, num_groups, run, device)
        await self.join()

    async def join(self) -> None:
        await self._queue.join(self.id, self.workers)

    async def next(self) -> str | None:
        """Name of its next task."""
        self._number += 1
        order = await self._queue.next(self.id, self.workers, self._number)
        return order.task.name if isinstance(order, Order) else None

    async def report(self, epoch: int) -> bool:
        return await self._queue.report(self.id, self.workers, self._number, {"epoch": epoch})

    async def ended(self, error: str | None, result: TaskResult | None) -> None:
        await self._queue.ended(self.id, self.workers, self._number, error, result)

    async def lose_workers(self, loss: Loss = ERROR) -> None:
        """They are replaced by others."""
        await self._queue.lost(self.id, loss)
        self._life, self._number = self._life + 1, -1
        await self.join()

    def beside(self) -> Group:
        """Another group of the same pool; ``start`` must have been called with 2 groups."""
        other = Group(self._queue, self._index)
        other.trainer, other.id = self.trainer, GroupId(self._index, 1)
        return other

    @property
    def workers(self) -> str:
        return f"workers-{self.id}-{self._life}"


def in_event_loop(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """A test that pytest can call."""

    @functools.wraps(test)
    def run() -> None:
        asyncio.run(test())

    return run


def soon(awaitable: Any) -> Any:
    return asyncio.wait_for(awaitable, 10)


@in_event_loop
async def test_groups_take_tasks_in_order_and_results_reach_who_added_them() -> None:
    queue = TaskQueue()
    first, second = Group(queue, 0), Group(queue, 1)
    await first.start()
    await second.start()
    for name in ("a", "b", "c"):
        await queue.add(task(name))
    assert [await first.next(), await second.next()] == ["a", "b"]
    assert await soon(first.report(1))
    await second.ended(None, RESULT)
    assert await second.next() == "c"
    assert await soon(queue.result("a")) == {"epoch": 1}
    await first.ended("no memory", None)
    assert await soon(queue.result("a")) == Over("no memory")
    assert await soon(queue.result("b")) == Over(None, RESULT)
    await end(queue, first, second)


async def end(queue: TaskQueue, *groups: Group) -> None:
    for group in groups:
        group.trainer.ended.set()
    await soon(queue.dismiss(list(await queue.pools())))


@in_event_loop
async def test_a_task_that_loses_its_workers_is_queued_again_first() -> None:
    queue = TaskQueue()
    group = Group(queue, 0)
    await group.start()
    await queue.add(task("a"), retries=Retries(errors=2))
    await queue.add(task("b"))
    for _ in range(3):
        assert await group.next() == "a"
        await group.lose_workers()
    assert await soon(queue.result("a")) == Over("worker died")
    assert await group.next() == "b"
    await group.lose_workers()
    assert await soon(queue.result("b")) == Over("worker died")
    await end(queue, group)


@in_event_loop
async def test_only_groups_without_a_task_are_dismissed_as_idle() -> None:
    queue = TaskQueue()
    busy, first, second = (Group(queue, index) for index in range(3))
    for group in (busy, first, second):
        await group.start()
    await queue.add(task("a"))
    assert await busy.next() == "a"
    waiting = [asyncio.create_task(group.next()) for group in (first, second)]
    await asyncio.sleep(0)  # lets them begin to wait, and waits for nothing
    assert await queue.dismiss_idle(60, 3) == []
    assert await queue.dismiss_idle(0, 1) == [1]
    assert await soon(waiting[0]) is None
    assert await queue.dismiss_idle(0, 3) == [2]
    assert await soon(waiting[1]) is None
    # The one that trains goes on.
    assert list(await queue.pools()) == [0]
    assert await soon(busy.report(1))
    await busy.ended(None, RESULT)
    await end(queue, busy, first, second)


async def two_groups(queue: TaskQueue) -> tuple[Group, Group]:
    """Of one pool, with a task each, ``a`` and ``b``."""
    first = Group(queue, 0)
    await first.start(num_groups=2)
    second = first.beside()
    await second.join()
    for name, group in (("a", first), ("b", second)):
        await queue.add(task(name), retries=Retries(preemptions=1))
        assert await group.next() == name
    return first, second


@in_event_loop
async def test_a_group_that_loses_its_worker_leaves_the_others_of_its_pool_alone() -> None:
    queue = TaskQueue()
    first, second = await two_groups(queue)
    await first.lose_workers(GONE)
    assert await soon(second.report(1))
    assert await soon(queue.result("b")) == {"epoch": 1}
    assert await first.next() == "a"
    assert await soon(first.report(1))
    assert (await soon(queue.result("a")))["losses"] == 1
    assert (await queue.pools())[0].num_ready == 2
    await end(queue, first)


@in_event_loop
async def test_a_pool_is_idle_when_all_its_groups_are() -> None:
    queue = TaskQueue()
    first, second = await two_groups(queue)
    await first.ended(None, RESULT)
    waiting = [asyncio.create_task(first.next())]
    await asyncio.sleep(0)  # lets it begin to wait, and waits for nothing
    assert (await queue.pools())[0].seconds_idle == 0.0
    assert await queue.dismiss_idle(0, 2) == []
    await second.ended(None, RESULT)
    waiting.append(asyncio.create_task(second.next()))
    await asyncio.sleep(0)  # lets it begin to wait, and waits for nothing
    assert await queue.dismiss_idle(0, 1) == []  # one group would be missing
    assert await queue.dismiss_idle(0, 2) == [0]
    assert [await soon(each) for each in waiting] == [None, None]
    first.trainer.ended.set()


@in_event_loop
async def test_others_take_the_tasks_of_a_node_that_will_be_taken_away() -> None:
    queue = TaskQueue()
    first, second = await two_groups(queue)
    other = Group(queue, 1)
    await other.start()
    waits = asyncio.create_task(other.next())
    await queue.leave(0, GONE)
    assert list(await queue.pools()) == [1]
    assert not await soon(first.report(1))
    await first.ended(None, RESULT)  # of a training that was cut short
    assert await first.next() is None
    assert not waits.done()  # the other group of the node may write files of its task
    assert not await soon(second.report(1))
    assert await second.next() is None
    first.trainer.ended.set()
    assert await soon(waits) == "a"
    assert await soon(queue.result("a")) == {"epoch": 1}
    assert await soon(other.report(2))
    assert await soon(queue.result("a")) == {
        "epoch": 2,
        "losses": 1,
        "lost": "node 10.0.0.7 was lost",
    }
    await end(queue, other)


@in_event_loop
async def test_a_group_is_free_when_its_first_worker_is() -> None:
    queue = TaskQueue()
    group = Group(queue, 0)
    await group.start()
    await queue.add(task("a"))
    await queue.add(task("b"))
    assert await group.next() == "a"
    second = asyncio.create_task(queue.next(group.id, group.workers, 1, is_first=False))
    await asyncio.sleep(0)  # lets it begin to wait, and waits for nothing
    await group.ended(None, RESULT)  # the first one was still storing the model
    assert await soon(queue.result("a")) == Over(None, RESULT)
    assert await group.next() == "b"
    order = await soon(second)
    assert order.task.name == "b"
    # What another worker says of the task before, late.
    await queue.ended(group.id, group.workers, 0, "diverged", None)
    assert await soon(group.report(1))
    await group.ended(None, RESULT)
    assert await soon(queue.result("b")) == {"epoch": 1}
    assert await soon(queue.result("b")) == Over(None, RESULT)
    await end(queue, group)


@in_event_loop
async def test_tasks_wait_when_the_only_node_is_lost_and_fail_when_its_pool_is_given_up() -> None:
    queue = TaskQueue()
    lost = Group(queue, 0)
    lost.trainer.error = RayActorError()
    await lost.start()
    await queue.add(task("a"), retries=Retries(preemptions=2))
    assert await lost.next() == "a"
    lost.trainer.ended.set()
    await wait_for(lambda pools: not pools, queue)
    given_up = Group(queue, 1)
    given_up.trainer.error = RuntimeError("too many failures")
    await given_up.start()
    assert await given_up.next() == "a"
    given_up.trainer.ended.set()
    assert await soon(queue.result("a")) == Over("RuntimeError: too many failures")
    assert (await queue.pools())[1].is_given_up
    # A search goes on, so that its trials end with the reason.
    assert await queue.num_ready() == 1
    await queue.begin()
    assert await queue.pools() == {}
    assert await queue.num_ready() == 0
    await queue.add(task("b"))
    another = Group(queue, 2)
    await another.start()
    assert await another.next() == "b"
    await end(queue, another)


async def wait_for(is_so: Callable[[dict[int, PoolState]], bool], queue: TaskQueue) -> None:
    """Until the pools are so, which a thread changes."""
    deadline = asyncio.get_running_loop().time() + 10
    while not is_so(await queue.pools()):
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.01)


@in_event_loop
async def test_faults_of_the_cluster_are_counted_apart() -> None:
    queue = TaskQueue()
    group = Group(queue, 0)
    await group.start()
    await queue.add(task("a"), retries=Retries(preemptions=2, errors=1))
    for loss in (GONE, ERROR, GONE, MEMORY):
        assert await group.next() == "a"
        await group.lose_workers(loss)
    assert await group.next() == "a"
    await group.lose_workers(GONE)
    over = await soon(queue.result("a"))
    assert isinstance(over, Over)
    assert over.error == (
        "it lost its workers 3 times, the last time because node 10.0.0.7 was lost "
        "(tune.max_preemptions = 2)"
    )
    await end(queue, group)


@in_event_loop
async def test_a_task_whose_workers_need_too_much_memory_twice_has_failed() -> None:
    queue = TaskQueue()
    group = Group(queue, 0)
    await group.start()
    await queue.add(task("a"), retries=Retries(preemptions=5, errors=5))
    for _ in range(2):
        assert await group.next() == "a"
        await group.lose_workers(MEMORY)
    over = await soon(queue.result("a"))
    assert isinstance(over, Over)
    assert over.error is not None
    assert over.error.startswith("node 10.0.0.7 ran out of memory. Lower ")
    await end(queue, group)


@in_event_loop
async def test_epochs_that_are_trained_again_are_not_reported_again() -> None:
    queue = TaskQueue()
    group = Group(queue, 0)
    await group.start()
    await queue.add(task("a"), retries=Retries(preemptions=1))
    assert await group.next() == "a"
    assert await soon(group.report(1))
    assert await soon(queue.result("a")) == {"epoch": 1}
    assert await soon(group.report(2))
    await group.lose_workers(GONE)
    assert await group.next() == "a"
    assert await soon(group.report(1))
    assert await soon(group.report(2))
    assert await soon(queue.result("a")) == {"epoch": 2}
    assert await soon(group.report(3))
    assert await soon(queue.result("a")) == {
        "epoch": 3,
        "losses": 1,
        "lost": "node 10.0.0.7 was lost",
    }
    assert await soon(group.report(4))
    assert await soon(queue.result("a")) == {"epoch": 4, "losses": 1}
    await group.ended(None, RESULT)
    assert await soon(queue.result("a")) == Over(None, RESULT)
    await end(queue, group)


@in_event_loop
async def test_workers_that_are_lost_after_their_task_has_ended_change_nothing() -> None:
    queue = TaskQueue()
    group = Group(queue, 0)
    await group.start()
    await queue.add(task("a"))
    assert await group.next() == "a"
    await group.ended(None, RESULT)
    await queue.drop("a")
    await queue.add(task("a"))  # of the same name, in the next run
    await group.lose_workers()
    assert await group.next() == "a"
    await group.ended(None, RESULT)
    assert await soon(queue.result("a")) == Over(None, RESULT)
    await end(queue, group)


@in_event_loop
async def test_workers_that_were_replaced_tell_nothing_of_the_task_that_others_have_now() -> None:
    queue = TaskQueue()
    first, second = Group(queue, 0), Group(queue, 1)
    await first.start()
    await second.start()
    await queue.add(task("a"), retries=Retries(errors=1))
    assert await first.next() == "a"
    before = first.workers
    await first.lose_workers()
    assert await second.next() == "a"
    assert not await soon(queue.report(first.id, before, 0, {"epoch": 9}))
    await queue.ended(first.id, before, 0, None, cast(TaskResult, "of the lost workers"))
    assert await soon(second.report(1))
    assert await soon(queue.result("a")) == {"epoch": 1, "losses": 1, "lost": "worker died"}
    await second.ended(None, RESULT)
    assert await soon(queue.result("a")) == Over(None, RESULT)
    await end(queue, first, second)


@in_event_loop
async def test_names_of_tasks_differ_until_they_are_dropped() -> None:
    queue = TaskQueue()
    await queue.add(task("a"))
    with pytest.raises(ValueError, match="there is a task 'a' already"):
        await queue.add(task("a"))
    await queue.drop("a")
    await queue.add(task("a"))


@in_event_loop
async def test_all_workers_of_a_group_that_is_dismissed_take_part_in_its_last_task() -> None:
    queue = TaskQueue()
    group = Group(queue, 0)
    await group.start()
    await queue.add(task("a"))
    of_first = await queue.next(group.id, group.workers, 0)
    leaving = asyncio.create_task(queue.dismiss([0]))
    await asyncio.sleep(0)  # lets the task start, and waits for nothing
    assert await soon(queue.next(group.id, group.workers, 0)) is of_first
    assert await soon(queue.next(group.id, group.workers, 1)) is None
    group.trainer.ended.set()
    await soon(leaving)


@in_event_loop
async def test_a_dismissed_group_stops_after_its_epoch_and_others_take_what_is_left() -> None:
    queue = TaskQueue()
    first, second = Group(queue, 0), Group(queue, 1)
    await first.start()
    await second.start()
    waits = asyncio.create_task(second.next())
    await asyncio.sleep(0)  # lets the task start, and waits for nothing
    leaving = asyncio.create_task(queue.dismiss([1]))
    assert await soon(waits) is None
    second.trainer.ended.set()
    await soon(leaving)
    assert list(await queue.pools()) == [0]
    await queue.add(task("a"))
    assert await first.next() == "a"
    leaving = asyncio.create_task(queue.dismiss([0]))
    await asyncio.sleep(0)  # lets the task start, and waits for nothing
    assert not await soon(first.report(1))
    assert await first.next() is None
    first.trainer.ended.set()
    await soon(leaving)
    assert list(await queue.pools()) == []


@in_event_loop
async def test_without_groups_tasks_fail_with_the_reason_until_another_group_starts() -> None:
    queue = TaskQueue()
    group = Group(queue, 0)
    group.trainer.error = RuntimeError("too many failures")
    await queue.add(task("waits for the first group"))
    await group.start()
    assert await group.next() == "waits for the first group"
    await queue.add(task("a"))
    group.trainer.ended.set()
    expected = Over("RuntimeError: too many failures")
    for name in ("waits for the first group", "a"):
        assert await soon(queue.result(name)) == expected
    await queue.add(task("b"))
    assert await soon(queue.result("b")) == expected
    other = Group(queue, 1)
    await other.start()
    await queue.add(task("c"))
    assert await other.next() == "c"
    await end(queue, other)


@in_event_loop
async def test_workers_stay_one_epoch_ahead_of_who_reads_it() -> None:
    queue = TaskQueue()
    group = Group(queue, 0)
    await group.start()
    await queue.add(task("a"))
    assert await group.next() == "a"
    assert await soon(group.report(1))
    ahead = asyncio.create_task(group.report(2))
    await asyncio.sleep(0)  # lets the task start, and waits for nothing
    assert not ahead.done()
    assert await soon(queue.result("a")) == {"epoch": 1}
    assert await soon(ahead)
    third = asyncio.create_task(group.report(3))
    await asyncio.sleep(0)  # lets the task start, and waits for nothing
    await queue.drop("a")
    assert not await soon(third)
    await end(queue, group)


@in_event_loop
async def test_a_trial_that_two_drivers_add_is_trained_once() -> None:
    """Ray Tune may start a driver for a trial that another one runs, and even ends, meanwhile."""
    queue, made = TaskQueue(), list[str]()

    def task_of(trial_id: str, parameters: dict[str, Any]) -> TrainingTask:
        made.append(trial_id)
        if parameters:
            raise TrainingError("these do not go together")
        return task(trial_id)

    await queue.define("search", task_of, Retries())
    group = Group(queue, 0)
    await group.start()
    assert await queue.add_trial("search", "a", {}) is None
    assert await queue.add_trial("search", "a", {}) is None
    assert await group.next() == "a"
    await group.ended(None, RESULT)
    await queue.drop("a")
    assert await queue.add_trial("search", "a", {}) is None
    for _ in range(2):
        assert await queue.add_trial("search", "b", {"x": 1}) == "these do not go together"
    await queue.add_trial("search", "c", {})
    assert await group.next() == "c"
    assert made == ["a", "b", "c"]
    await end(queue, group)


@in_event_loop
async def test_a_retired_pool_ends_its_task_and_takes_no_other() -> None:
    queue = TaskQueue()
    busy, idle, other = Group(queue, 0), Group(queue, 1), Group(queue, 2)
    for group in (busy, idle, other):
        await group.start()
    await queue.add(task("a"))
    assert await busy.next() == "a"
    waiting = asyncio.create_task(idle.next())
    await asyncio.sleep(0)
    await queue.retire(0)
    await queue.retire(1)
    await queue.add(task("b"))
    assert await soon(waiting) is None
    assert await soon(busy.report(1))
    await busy.ended(None, RESULT)
    assert (await soon(queue.result("a"))) == {"epoch": 1}
    assert (await soon(queue.result("a"))) == Over(None, RESULT)
    assert await soon(busy.next()) is None
    assert await soon(other.next()) == "b"
    await end(queue, busy, idle, other)


@in_event_loop
async def test_a_pool_tells_how_long_its_epochs_took() -> None:
    queue = TaskQueue()
    group = Group(queue, 0)
    await group.start()
    await queue.add(task("a"))
    await group.next()
    for epoch, seconds in ((1, 2.0), (2, 0.5)):
        metrics = {"epoch": epoch, "seconds": seconds}
        await soon(queue.report(group.id, group.workers, 0, metrics))
        await soon(queue.result("a"))
    assert (await queue.pools())[0].epoch_seconds == (2.0, 0.5)
    await end(queue, group)


@in_event_loop
async def test_models_wait_for_their_device_and_other_tasks_take_what_is_free() -> None:
    queue = TaskQueue()
    on_cpu, on_gpu = Group(queue, 0), Group(queue, 1)
    await on_cpu.start()
    await on_gpu.start(device="GPU")
    await queue.add(task("model 1"), device="GPU")
    await queue.add(task("model 2"), device="GPU")
    await queue.add(task("baseline 1"))
    await queue.add(task("baseline 2"))
    assert await soon(on_cpu.next()) == "baseline 1"
    assert await soon(on_gpu.next()) == "model 1"
    await on_gpu.ended(None, RESULT)
    assert await soon(on_gpu.next()) == "model 2"
    await on_gpu.ended(None, RESULT)
    assert await soon(on_gpu.next()) == "baseline 2"
    await end(queue, on_cpu, on_gpu)


@in_event_loop
async def test_models_fail_when_their_device_is_given_up_though_other_groups_are_there() -> None:
    queue = TaskQueue()
    on_gpu, on_cpu = Group(queue, 0), Group(queue, 1)
    on_gpu.trainer.error = RuntimeError("too many failures")
    await on_gpu.start(device="GPU")
    await on_cpu.start()
    await queue.add(task("first"), device="GPU")
    await queue.add(task("second"), device="GPU")
    await queue.add(task("baseline"))
    assert await soon(on_cpu.next()) == "baseline"
    assert await soon(on_gpu.next()) == "first"
    on_gpu.trainer.ended.set()
    for name in ("first", "second"):
        assert await soon(queue.result(name)) == Over("RuntimeError: too many failures")
    await on_cpu.ended(None, RESULT)
    assert await soon(queue.result("baseline")) == Over(None, RESULT)
    await end(queue, on_cpu)


@in_event_loop
async def test_epochs_of_an_earlier_stage_are_not_timed() -> None:
    queue = TaskQueue()
    group = Group(queue, 0)
    await group.start()
    await queue.add(task("a"))
    await group.next()
    await queue.report(group.id, group.workers, 0, {"epoch": 1, "seconds": 2.0})
    await queue.begin()
    assert (await queue.pools())[0].epoch_seconds == ()
    await end(queue, group)
