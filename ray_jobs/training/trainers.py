"""What does each kind of task."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from ray_jobs.training.choice_worker import train_choice_task
from ray_jobs.training.split_cache import SplitCache
from ray_jobs.training.tasks import (
    CallResult,
    CallTask,
    ChoiceTask,
    Report,
    Task,
    TaskResult,
    TrainingTask,
)
from ray_jobs.training.worker import train_rating_task


def call(task: CallTask, rows: SplitCache, report: Report) -> CallResult:
    """Call the function of a task on the first worker of a group."""
    rows.release()  # it reads its own
    started = time.perf_counter()
    value = task.function() if rows.shard.rank == 0 else None
    return CallResult(task.name, value, seconds=time.perf_counter() - started)


TRAINERS: Final[Mapping[type[Task], Callable[[Any, SplitCache, Report], TaskResult]]] = {
    TrainingTask: train_rating_task,
    ChoiceTask: train_choice_task,
    CallTask: call,
}
"""Functions that all workers of a group call, by the class of the task."""


def train_task(task: Task, rows: SplitCache, report: Report) -> TaskResult:
    """Do one task; all workers of the group must call this.

    Args:
        task: what to do.
        rows: its rows, on this worker's device.
        report: called after every epoch; training stops if it returns False, and then no test row
            is scored.

    Raises:
        NcfError: if training diverges, or cannot continue from its state.
        StorageError: if something that the task needs cannot be stored.
    """
    return TRAINERS[type(task)](task, rows, report)
