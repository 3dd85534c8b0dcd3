"""Several jobs whose tasks are done side by side, without workers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

import pytest

from ncf.config import ExperimentConfig
from ncf.data.dataset import PreparedDataset
from ray_jobs.training.run_tasks import Run
from ray_jobs.training.run_together import run_together
from ray_jobs.training.tasks import CallResult, CallTask, Task, TaskResult, TrainingTask

NO_DATA = cast(PreparedDataset, None)


def call(name: str, value: Any) -> CallTask:
    return CallTask(name, NO_DATA, lambda: value)


class Workers:
    """Does tasks in reverse order, and notes which were given together."""

    def __init__(self) -> None:
        self.rounds: list[list[str]] = []
        self.thread: threading.Thread | None = None

    def run(self, tasks: Sequence[Task]) -> Iterator[TaskResult]:
        self.thread = threading.current_thread()
        self.rounds.append([task.name for task in tasks])
        for task in reversed(tasks):
            assert isinstance(task, CallTask)
            yield CallResult(task.name, task.function(), seconds=0.0)


def adding(*numbers: int) -> Callable[[Run], dict[str, Any]]:
    """A job with a task for each number, whose results are by name."""

    def job(run: Run) -> dict[str, Any]:
        tasks = [call(f"task {number}", number) for number in numbers]
        found = run(tasks) if numbers else ()
        return {result.name: cast(CallResult, result).value for result in found}

    return job


def test_tasks_of_all_jobs_are_done_in_one_go_and_each_gets_its_own_results() -> None:
    workers = Workers()
    found = run_together({"a": adding(1, 2), "b": adding(2, 3), "c": adding()}, workers.run)
    assert found == {
        "a": {"task 1": 1, "task 2": 2},
        "b": {"task 2": 2, "task 3": 3},
        "c": {},
    }
    (names,) = workers.rounds
    assert sorted(names) == ["a: task 1", "a: task 2", "b: task 2", "b: task 3"]
    assert workers.thread is threading.main_thread()


def test_a_job_may_have_tasks_again_and_an_empty_list_of_them() -> None:
    def twice(run: Run) -> int:
        return sum(cast(CallResult, r).value for _ in range(2) for r in run([call("x", 5)]))

    workers = Workers()
    found = run_together({"a": twice, "b": lambda run: len(list(run([])))}, workers.run)
    assert found == {"a": 10, "b": 0}
    assert ["a: x"] in workers.rounds


@pytest.mark.parametrize("error", [ValueError("no memory"), KeyboardInterrupt()])
def test_when_tasks_fail_all_jobs_end_with_the_reason(error: BaseException) -> None:
    def run(tasks: Sequence[Task]) -> Iterator[TaskResult]:
        yield CallResult(tasks[0].name, 1, seconds=0.0)
        raise error

    with pytest.raises(type(error)):
        run_together({"a": adding(1, 2), "b": adding(3)}, run)


def test_a_job_that_fails_ends_after_the_others() -> None:
    def failing(run: Run) -> dict[str, Any]:
        raise ValueError("no rows")

    workers = Workers()
    with pytest.raises(ValueError, match="no rows"):
        run_together({"a": failing, "b": adding(1)}, workers.run)
    assert workers.rounds == [["b: task 1"]]


def test_a_task_is_renamed_with_the_one_that_it_needs() -> None:
    first = TrainingTask("first", NO_DATA, ExperimentConfig())
    second = replace(first, name="second", stop_at_best_of="first")
    assert first.named_in("a").needs is None
    assert second.named_in("a").needs == first.named_in("a").name
