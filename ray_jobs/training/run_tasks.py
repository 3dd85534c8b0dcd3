"""Do tasks for a stage: on the job's worker groups, or in its own process."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Final

import ray
from ray import ObjectRef
from ray.actor import ActorHandle
from ray.exceptions import RayActorError

from foundation.errors import StorageError
from ncf.errors import NcfError
from ncf.training.parallel import data_parallel_pays_off
from ray_jobs.cluster.resources import GroupPlan
from ray_jobs.cluster.session import ensure_ray
from ray_jobs.config import JobConfig
from ray_jobs.errors import TrainingError
from ray_jobs.training.local_mode import LocalMode
from ray_jobs.training.lost_workers import Retries
from ray_jobs.training.progress import EpochLog
from ray_jobs.training.split_cache import SplitCache
from ray_jobs.training.task_queue import Over, TaskQueue
from ray_jobs.training.tasks import (
    CallResult,
    CallTask,
    ChoiceTask,
    Task,
    TaskResult,
    TrainingResult,
    TrainingTask,
)
from ray_jobs.training.trainers import train_task
from ray_jobs.training.worker_context import device_of_worker
from ray_jobs.training.workers import Workers

logger: Final = logging.getLogger(__name__)


Run = Callable[[Sequence[Task]], Iterator[TaskResult]]
"""Does tasks, and yields results as they come: ``run_tasks`` for a job."""

Train = Callable[[Sequence[TrainingTask | ChoiceTask]], Iterator[TrainingResult]]
"""Trains models likewise."""


def train_tasks(
    tasks: Sequence[TrainingTask | ChoiceTask], workers: Workers, config: JobConfig
) -> Iterator[TrainingResult]:
    """``run_tasks`` for models alone."""
    return train_beside((), partial(run_tasks, workers=workers, config=config))(tasks)


def train_beside(
    calls: Sequence[CallTask],
    run: Run,
    ended: Callable[[CallResult], None] | None = None,
    first: Sequence[CallTask] = (),
) -> Train:
    """A function that trains models and makes ``calls`` at the same time.

    Those of ``first`` begin before the models: what takes longest would otherwise end long after
    all else. ``ended`` takes the results of the calls as they come.
    """

    def train(tasks: Sequence[TrainingTask | ChoiceTask]) -> Iterator[TrainingResult]:
        # Models before other calls: some are followed by further ones, and calls fill the gaps.
        wanted = [*first, *tasks, *calls]
        for result in run(wanted) if wanted else ():
            if isinstance(result, TrainingResult):
                yield result
            elif isinstance(result, CallResult) and ended:
                ended(result)

    return train


def run_tasks(tasks: Sequence[Task], workers: Workers, config: JobConfig) -> Iterator[TaskResult]:
    """Do all tasks, and yield the results in the order in which they end.

    A task whose workers are lost is continued from its state, or repeated if it has none, as often
    as ``tune.max_preemptions`` and ``scaling.max_failures`` say.

    Raises:
        TrainingError: if a task failed, with the reason.
        ResourceError: if Ray cannot be reached, or not even one worker group fits.
    """
    ensure_ray(config)
    at_once = sum(task.needs is None for task in tasks)
    at_once = min(config.tune.max_concurrent_trials or at_once, at_once)
    # Where the number of workers changes, a model goes on from its state.
    alone = at_once == 1 and all(task.state for task in tasks)
    num_calls = sum(isinstance(task, CallTask) for task in tasks)
    of_choices = any(isinstance(task, ChoiceTask) for task in tasks)
    quicker = None if of_choices else workers.quicker
    plan = GroupPlan.of(config, alone=alone, quicker=quicker, has_calls=num_calls > 0)
    _log_start(tasks, plan, at_once)
    log = EpochLog(config.name)
    local = LocalMode.of(plan.preferred)
    if local:
        results = _train_here(tasks, local, log)
    else:
        retries = Retries(config.tune.max_preemptions, config.scaling.max_failures)
        num_datasets = len({task.prepared.folder for task in tasks})
        queue = workers.queue(plan, at_once, num_datasets)
        workers.wanted.left, workers.wanted.left_for_any = len(tasks), num_calls
        results = _train_on(queue, tasks, log, retries, plan.preferred.device)
    for number, result in enumerate(results, start=1):
        num_calls -= isinstance(result, CallResult)
        workers.wanted.left, workers.wanted.left_for_any = len(tasks) - number, num_calls
        if isinstance(result, CallResult):
            logger.info("   %s: %.1f s", result.name, result.seconds)
        if result.rows.note:
            logger.info("   note: %s: %s", result.name, result.rows.note)
        yield result


def _log_start(tasks: Sequence[Task], plan: GroupPlan, at_once: int) -> None:
    resources = plan.preferred
    models = [task for task in tasks if not isinstance(task, CallTask)]
    fitted = Counter(task.what for task in tasks if isinstance(task, CallTask))
    of_ratings = [task.experiment for task in tasks if isinstance(task, TrainingTask)]
    num_workers = resources.max_workers or resources.num_workers
    if num_workers > 1 and not (resources.use_gpu or all(map(data_parallel_pays_off, of_ratings))):
        logger.info(
            "note: with batches this small, %d workers are likely slower than one; set "
            "scaling.num_workers = 1 or raise train.batch_size",
            num_workers,
        )
    logger.info(
        "   %s, %d at a time, %s",
        _count(len(models), fitted),
        max(1, min(at_once, plan.fitting().count(resources))),
        resources.description,
    )


def _count(models: int, fitted: Mapping[str, int]) -> str:
    parts = [f"{models} model(s) to train"] if models else []
    parts += [f"{count} {what}(s) to fit" for what, count in fitted.items()]
    return " and ".join(parts)


def _train_on(
    queue: ActorHandle[TaskQueue],
    tasks: Sequence[Task],
    log: EpochLog,
    retries: Retries,
    device: str,
) -> Iterator[TaskResult]:
    """Train on the worker groups of ``queue``: models on those with ``device`` alone."""
    waiting, results = list(tasks), list[TaskResult]()
    running: dict[ObjectRef[object], str] = {}

    def add_what_can_start() -> None:
        for task in [task for task in waiting if task.can_start_after(results)]:
            waiting.remove(task)
            only_on = None if isinstance(task, CallTask) else device
            ray.get(queue.add.remote(task.after(results), retries, only_on))
            running[queue.result.remote(task.name)] = task.name

    try:
        add_what_can_start()
        while running:
            (ready, *_), _ = ray.wait(list(running), num_returns=1)
            name = running.pop(ready)
            found = ray.get(ready)
            if not isinstance(found, Over):
                log.record(found)
                running[queue.result.remote(name)] = name
                continue
            queue.drop.remote(name)
            if found.result is None:
                raise TrainingError(f"training of {name} failed: {found.error}")
            results.append(found.result)
            yield found.result
            add_what_can_start()
    except RayActorError as error:
        raise TrainingError(f"training failed: the queue of its tasks ended: {error}") from error
    finally:
        for name in running.values():
            queue.drop.remote(name)


def _train_here(tasks: Sequence[Task], local: LocalMode, log: EpochLog) -> Iterator[TaskResult]:
    """Train in this process, one task after the other."""
    results: list[TaskResult] = []
    rows: SplitCache | None = None

    def report(metrics: dict[str, object]) -> bool:
        log.record(metrics)
        return True

    def work(task: Task) -> None:
        nonlocal rows
        if rows is None or not rows.fits(task.prepared):
            rows = SplitCache(task.prepared, device_of_worker(local))
        results.append(train_task(task, rows, report))

    for task in tasks:
        try:
            local.run(partial(work, task.after(results)))
        except (NcfError, StorageError, RuntimeError) as error:  # the last one of torch
            raise TrainingError(f"training of {task.name} failed: {error}") from error
        yield results[-1]
