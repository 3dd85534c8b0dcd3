"""Do the tasks of several jobs side by side on the same workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from queue import SimpleQueue
from typing import Final, TypeVar

from ray_jobs.training.run_tasks import Run
from ray_jobs.training.tasks import Task, TaskResult

T = TypeVar("T")

_END: Final = object()


@dataclass(frozen=True)
class _Request:
    """Tasks that a job wants to have done."""

    job: str
    tasks: Sequence[Task]
    results: SimpleQueue[object] = field(default_factory=SimpleQueue)
    """Each result, and ``_END`` after the last one, or the exception that ended them."""


def run_together(jobs: Mapping[str, Callable[[Run], T]], run: Run) -> dict[str, T]:
    """Call all functions, each in a thread, and return what they return, by name.

    Each is given a ``Run``. Once all of them have called theirs or returned, the tasks of all are
    done in one call of ``run``, in this thread, so that they share the workers.

    After Ctrl-C, what a function does between its tasks goes on to its end first.

    Raises:
        Exception: what ``run`` or the first of the functions raised; then all have ended.
    """
    events: SimpleQueue[_Request | None] = SimpleQueue()

    def run_for(job: str) -> Run:
        def run_of_job(tasks: Sequence[Task]) -> Iterator[TaskResult]:
            request = _Request(job, tasks)
            events.put(request)
            yield from _results_of(request)

        return run_of_job

    with ThreadPoolExecutor(max(1, len(jobs))) as threads:
        futures: dict[str, Future[T]] = {}
        for name, function in jobs.items():
            futures[name] = threads.submit(function, run_for(name))
            futures[name].add_done_callback(lambda _: events.put(None))
        _serve(events, len(futures), run)
        return {name: future.result() for name, future in futures.items()}


def _results_of(request: _Request) -> Iterator[TaskResult]:
    while (found := request.results.get()) is not _END:
        if isinstance(found, BaseException):
            raise RuntimeError("the tasks of all jobs have ended") from found
        assert isinstance(found, TaskResult)
        yield found


def _serve(events: SimpleQueue[_Request | None], num_jobs: int, run: Run) -> None:
    """Do what the jobs want until all of them have returned."""
    waiting: list[_Request] = []
    try:
        while num_jobs:
            event = events.get()
            if event is None:
                num_jobs -= 1
            else:
                waiting.append(event)
            if waiting and len(waiting) == num_jobs:
                _do(waiting, run)
                waiting = []
    except BaseException as error:
        while num_jobs:
            for request in waiting:
                request.results.put(error)
            event = events.get()
            waiting = [] if event is None else [event]
            num_jobs -= event is None
        raise


def _do(requests: Sequence[_Request], run: Run) -> None:
    owners: dict[str, tuple[_Request, str]] = {}
    tasks = list[Task]()
    left = {request.job: len(request.tasks) for request in requests}
    for request in requests:
        for task in request.tasks:
            own = task.named_in(request.job)
            owners[own.name] = request, task.name
            tasks.append(own)
        if not request.tasks:
            request.results.put(_END)
    for result in run(tasks) if tasks else ():
        request, name = owners[result.name]
        request.results.put(replace(result, name=name))
        left[request.job] -= 1
        if not left[request.job]:
            request.results.put(_END)
