"""``TorchTrainer`` around training tasks: a worker group trains one task after another.

Starting a group takes seconds, training a small model takes less.
"""

from __future__ import annotations

import json
import logging
import shutil
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Final

import ray.train
import ray.train.torch
from pydantic import TypeAdapter
from ray.train import (
    Checkpoint,
    CheckpointConfig,
    FailureConfig,
    RunConfig,
    ScalingConfig,
    UserCallback,
)
from ray.train.torch import TorchTrainer

from foundation.storage import Storage
from ncf.errors import NcfError
from ncf.training.parallel import data_parallel_pays_off
from ray_jobs.cluster.resources import Resources
from ray_jobs.errors import TrainingError
from ray_jobs.training.local_mode import LocalRun
from ray_jobs.training.scratch import scratch_folder
from ray_jobs.training.split_cache import SplitCache, device_of_worker
from ray_jobs.training.tasks import RESULTS, TaskResult, TrainingTask
from ray_jobs.training.worker import train_task

logger: Final = logging.getLogger(__name__)


def train_tasks(
    tasks: Sequence[TrainingTask],
    resources: Resources,
    where: Storage,
    callbacks: Sequence[UserCallback] = (),
) -> tuple[list[TaskResult], Checkpoint]:
    """Train all tasks in one worker group; the checkpoint has the saved models and predictions.

    If workers are lost, their replacements continue a task that saves its models after its last
    epoch, and repeat the other tasks. A later call with the same ``where`` does the same.

    Raises:
        TrainingError: if a worker failed, with its reason.
    """
    _log_start(tasks, resources)
    trainer = torch_trainer(tasks, resources, where, callbacks, collect=True)
    try:
        with _keyboard_interrupts():
            result = trainer.fit()
    except ray.train.TrainingFailedError as error:
        raise TrainingError(f"training failed: {first_cause(error)}") from error
    except RuntimeError as error:  # of torch, in this process
        raise TrainingError(f"training failed: {error}") from error
    if result.checkpoint is None:
        raise TrainingError("training ended without a result")
    with result.checkpoint.as_directory() as folder:
        content = json.loads((Path(folder) / RESULTS).read_text(encoding="utf-8"))
    if "failure" in content:
        raise TrainingError(f"training failed: {content['failure']}")
    results = TypeAdapter(list[TaskResult]).validate_python(content["results"])
    for each in results:
        if each.rows.note:
            logger.info("   note: %s: %s", each.name, each.rows.note)
    return results, result.checkpoint


def _log_start(tasks: Sequence[TrainingTask], resources: Resources) -> None:
    if resources.num_workers > 1 and not (
        resources.use_gpu or all(data_parallel_pays_off(task.experiment) for task in tasks)
    ):
        logger.info(
            "note: with batches this small, %d workers are likely slower than one; set "
            "scaling.num_workers = 1 or raise train.batch_size",
            resources.num_workers,
        )
    by = f", by {resources.num_workers} worker(s) that start now" if resources.num_workers else ""
    logger.info(f"   {len(tasks)} model(s) to train{by}")


@contextmanager
def _keyboard_interrupts() -> Iterator[None]:
    """Let Ctrl-C raise ``KeyboardInterrupt``: Ray Train leaves a handler that ends the program."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as ended:
        raise KeyboardInterrupt from ended
    finally:
        signal.signal(signal.SIGINT, handler)


def torch_trainer(
    tasks: Sequence[TrainingTask],
    resources: Resources,
    where: Storage,
    callbacks: Sequence[UserCallback],
    *,
    collect: bool,
    groups: int = 1,
) -> TorchTrainer:
    """A trainer for ``tasks``.

    With ``collect``, its last checkpoint has their results, saved models and predictions; without,
    it only reports epochs, as the trials of a search do. ``groups`` is the maximum number of such
    trainers at a time.
    """
    return TorchTrainer(
        _work,
        train_loop_config={
            "tasks": list(tasks),
            "collect": collect,
            "groups": groups,
            "local": LocalRun.of(resources, where, callbacks),
        },
        scaling_config=scaling_of(resources),
        run_config=RunConfig(
            name=where.name,
            storage_path=where.parent.path,
            storage_filesystem=where.filesystem,
            checkpoint_config=CheckpointConfig(num_to_keep=1),
            failure_config=FailureConfig(max_failures=resources.max_failures if collect else 0),
            callbacks=list(callbacks),
        ),
    )


def scaling_of(resources: Resources) -> ScalingConfig:
    """The workers of one training run, for Ray Train."""
    return ScalingConfig(
        num_workers=resources.num_workers,
        use_gpu=resources.use_gpu,
        resources_per_worker=resources.per_worker,
    )


def first_cause(error: ray.train.TrainingFailedError) -> str:
    """The worker's own exception, without the traceback."""
    failures = getattr(error, "worker_failures", None) or {}
    causes = [str(failure).strip().splitlines()[-1] for failure in failures.values()]
    return causes[0] if causes else str(error).strip().splitlines()[0]


def _work(config: dict[str, Any]) -> None:
    """Body of every worker."""
    local: LocalRun | None = config["local"]
    with local.threads() if local else nullcontext():
        _train(config["tasks"], config["groups"], local, collect=config["collect"])


def _train(
    tasks: Sequence[TrainingTask], groups: int, local: LocalRun | None, *, collect: bool
) -> None:
    device = device_of_worker(local)
    report = partial(_report, local=local)

    def train(task: TrainingTask, folder: Path | None = None) -> TaskResult:
        rows = SplitCache(task.prepared, device, groups)
        return train_task(task, rows, report, folder)

    if not collect:
        # No folder for a trial: it may be stopped at any moment, and would leave it behind.
        for task in tasks:
            train(task)
        return
    with scratch_folder() as folder:
        _copy_checkpoint(local.latest_checkpoint() if local else ray.train.get_checkpoint(), folder)
        content: dict[str, Any]
        try:
            results: list[TaskResult] = []
            for task in tasks:
                results.append(train(task.after(results), folder))
            content = {"results": [asdict(result) for result in results]}
        except NcfError as error:
            # If it were raised, Ray Train would restart the workers, which would fail again.
            content = {"failure": str(error)}
        (folder / RESULTS).write_text(json.dumps(content), encoding="utf-8")
        report({"finished": True}, folder)


def _copy_checkpoint(checkpoint: Checkpoint | None, folder: Path) -> None:
    """Copy the checkpoint of an interrupted run of the same tasks, if there is one."""
    if checkpoint is not None:
        with checkpoint.as_directory() as saved:
            shutil.copytree(saved, folder, dirs_exist_ok=True)


def _report(metrics: dict[str, Any], folder: Path | None, *, local: LocalRun | None) -> bool:
    """Report from every worker, as Ray Train requires, and a checkpoint from the first one only."""
    if local:
        ray.train.report(metrics, checkpoint=local.report(metrics, folder))
        return True
    is_first = ray.train.get_context().get_world_rank() == 0
    checkpoint = Checkpoint.from_directory(folder) if folder and is_first else None
    ray.train.report(metrics, checkpoint=checkpoint)
    return True
