"""CPU time that a trial costs the queue and the program that searches, without training.

    python benchmarks/bench_search.py [--groups 200] [--trials 500 1000 2000] [--epochs 10] [--json]

The queue, the sampler (TPE), the scheduler (ASHA) and the records are those of a search; worker
groups and drivers of trials are coroutines of one process, and their models return at once. What
Ray Tune and Ray's calls cost comes on top."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar, cast

REPOSITORY: Final = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from ray.tune.schedulers import TrialScheduler  # noqa: E402

from foundation.storage import Storage  # noqa: E402
from ncf.config import ExperimentConfig  # noqa: E402
from ray_jobs.cli import load_config  # noqa: E402
from ray_jobs.search.resume import (  # noqa: E402
    Recorder,
    ResumableSampler,
    ResumableScheduler,
    optuna_search,
)
from ray_jobs.search.samplers import sampler  # noqa: E402
from ray_jobs.search.schedulers import SchedulerSettings, scheduler  # noqa: E402
from ray_jobs.search.trials import TrialRecords  # noqa: E402
from ray_jobs.training.lost_workers import Loss  # noqa: E402
from ray_jobs.training.pool_run import PoolEnd, PoolRun  # noqa: E402
from ray_jobs.training.task_queue import GroupId, Over, TaskQueue  # noqa: E402
from ray_jobs.training.tasks import TaskResult, TrainingTask  # noqa: E402
from ray_jobs.training.telemetry import SEARCH_METRICS  # noqa: E402

CONFIG: Final = REPOSITORY / "configs" / "protocols" / "losses.toml"
Result = TypeVar("Result")


@dataclass(frozen=True)
class Endless(PoolRun):
    """A pool whose workers are coroutines of this program."""

    async def run(self) -> PoolEnd:
        """Never ends by itself."""
        await asyncio.Event().wait()
        return PoolEnd(Loss("cluster", "over"))


@dataclass
class Trial:
    """What callbacks and schedulers look at of Ray Tune's trials."""

    trial_id: str
    last_result: dict[str, Any] | None = None

    __hash__ = object.__hash__


class Search:
    """A search of which each part's CPU time is counted."""

    def __init__(self, folder: Path, trials: int, epochs: int) -> None:
        space = load_config([str(CONFIG)], []).tune.space
        metric = SEARCH_METRICS["rmse"]
        self.key, self.epochs, self.trials = metric.key, epochs, trials
        self.cpu: defaultdict[str, float] = defaultdict(float)
        self.records = TrialRecords(Storage.at(folder), metric)
        settings = SchedulerSettings(
            metric, epochs, 2, 2.0, 1, lambda trial_id: self.records.of(trial_id).number
        )
        self.scheduler = ResumableScheduler(scheduler("asha", settings), self.records)
        inner = optuna_search(space, sampler("tpe", 1), metric)
        self.sampler = ResumableSampler(inner, space, self.records, trials)
        self.recorder = Recorder(self.records, self.scheduler, lambda record: None)
        self.queue = TaskQueue()
        self.begun = 0

    def timed(
        self, part: str, call: Callable[..., Result], *arguments: Any, **named: Any
    ) -> Result:
        """What ``call`` returns."""
        started = time.process_time()
        try:
            return call(*arguments)
        finally:
            self.cpu[part] += time.process_time() - started

    async def drive(self) -> None:
        """A driver: one trial after another."""
        while self.begun < self.trials:
            self.begun += 1
            trial = Trial(str(self.begun))
            parameters = self.timed("sampler", self.sampler.suggest, trial.trial_id)
            assert parameters is not None
            self.timed("scheduler", self.scheduler.on_trial_add, None, cast(Any, trial))
            task = TrainingTask(trial.trial_id, cast(Any, None), ExperimentConfig())
            await self.queue.add(task)
            await self._epochs(trial)
            result = trial.last_result or {}
            self.timed("sampler", self.sampler.on_trial_complete, trial.trial_id, result)
            self.timed("records", self.recorder.on_trial_complete, 0, [], cast(Any, trial))
            await self.queue.drop(trial.trial_id)

    async def _epochs(self, trial: Trial) -> None:
        while not isinstance(found := await self.queue.result(trial.trial_id), Over):
            trial.last_result = found | {"max_epochs": self.epochs}
            given = (None, cast(Any, trial), found)
            decision = self.timed("scheduler", self.scheduler.on_trial_result, *given)
            self.timed("records", self.recorder.on_trial_result, 0, [], *given[1:])
            if decision == TrialScheduler.STOP:
                return
        self.timed(
            "scheduler",
            self.scheduler.on_trial_complete,
            None,
            cast(Any, trial),
            {**(trial.last_result or {})},
        )

    async def work(self, group_id: GroupId) -> None:
        """A worker: one task after another."""
        workers, number = str(group_id), 0
        await self.queue.join(group_id, workers)
        while order := await self.queue.next(group_id, workers, number):
            quality = (int(order.task.name) * 0.618) % 1
            for epoch in range(1, self.epochs + 1):
                metrics = {"epoch": epoch, self.key: 1 + quality / epoch}
                if not await self.queue.report(group_id, workers, number, metrics):
                    break
            else:
                await self.queue.ended(group_id, workers, number, None, cast(TaskResult, object()))
            number += 1

    async def run(self, groups: int) -> None:
        """All trials, as many at a time as there are groups."""
        await self.queue.start(0, groups, Endless())
        ids = [GroupId(0, number) for number in range(groups)]
        workers: list[asyncio.Task[None]] = [spawn(self.work(each)) for each in ids]
        await asyncio.gather(*(self.drive() for _ in ids))
        for worker in workers:
            worker.cancel()


def spawn(coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """A task of the running event loop."""
    return asyncio.get_running_loop().create_task(coroutine)


def measure(groups: int, trials: int, epochs: int) -> dict[str, float]:
    """Milliseconds of CPU a trial, by what they were spent on; the rest is the queue's."""
    with tempfile.TemporaryDirectory(prefix="bench-search-") as folder:
        search = Search(Path(folder), trials, epochs)
        started = time.process_time()
        with asyncio.Runner() as runner:
            runner.run(search.run(groups))
        whole = time.process_time() - started
    assert len(search.records.ended()) == trials
    parts = {name: 1000 * seconds / trials for name, seconds in search.cpu.items()}
    whole_ms = 1000 * whole / trials
    return {"trials": trials, "ms": whole_ms, **parts, "queue": whole_ms - sum(parts.values())}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--groups", type=int, default=200, help="trials at a time")
    parser.add_argument("--trials", type=int, nargs="+", default=[500, 1000, 2000])
    parser.add_argument("--epochs", type=int, default=10, help="of a trial, if it is not stopped")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    results = [measure(options.groups, trials, options.epochs) for trials in options.trials]
    if options.json:
        print(json.dumps(results))
    else:
        for result in results:
            print("  ".join(f"{name} {value:.2f}" for name, value in result.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
