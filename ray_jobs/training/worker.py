"""What runs on a training worker, and the ``TorchTrainer`` around it.

A run is a list of tasks that one worker group trains one after the other: starting a group takes
seconds, training a small model takes less.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import ray.train
import ray.train.torch
import torch
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

from foundation.console import say
from foundation.errors import StorageError
from foundation.storage import Storage
from ncf.config import ExperimentConfig
from ncf.data.batches import Batch, RatingSource
from ncf.data.dataset import PreparedDataset
from ncf.data.placement import Placement, free_on_every_worker, plan_placement
from ncf.data.sampling import Shard
from ncf.data.streaming import Streamed
from ncf.errors import NcfError
from ncf.evaluation.predictions import Predictions, evaluate, predict
from ncf.inference import checkpoint
from ncf.models.history.ratings import History
from ncf.models.targets import Objective
from ncf.models.weights import unwrapped
from ncf.training.loop import fit
from ncf.training.parallel import data_parallel_pays_off
from ncf.training.state import Epoch, FitResult, TrainingState, load_state, save_state
from ncf.training.trainer import build
from ray_jobs.cluster.resources import Resources
from ray_jobs.errors import TrainingError
from ray_jobs.results.final_model import copy_folder
from ray_jobs.training.scratch import scratch_folder
from ray_jobs.training.telemetry import SEARCH_METRICS

_log = logging.getLogger(__name__)

RESULTS = "results.json"

STATE = "state"
"""Folder, beside the models of a task, with what it needs to go on after its last epoch."""

PREDICTIONS = "predictions"
"""Folder of a run's checkpoint, and of the run's own, with predictions for the test rows."""


@dataclass(frozen=True)
class TrainingTask:
    """One model to train."""

    name: str
    """Names the task in progress lines and its folder in the checkpoint."""
    prepared: PreparedDataset
    experiment: ExperimentConfig
    score_test: bool = False
    """Score the best epoch's weights on the test rows, once, at the end."""
    keep: bool = False
    """Put the best and the last weights into the run's checkpoint after every epoch."""
    keep_predictions: bool = False
    """Put the predictions for the test rows into the run's checkpoint, if they are scored."""
    models: Storage | None = None
    """Folder that gets the best and the last weights when training ends, be it before its last
    epoch."""


@dataclass(frozen=True)
class TaskResult:
    """What came of a task."""

    name: str
    seed: int
    best_epoch: int
    epochs: tuple[dict[str, Any], ...]
    """One flat record an epoch, see ``ncf.training.trainer.Epoch.as_dict``."""
    validation: dict[str, Any] | None
    """Metrics of the best epoch on the validation rows."""
    test: dict[str, Any] | None
    """Metrics of the best epoch's weights on the test rows, if asked for."""
    seconds: float
    rows: Placement
    """Which splits were not held in memory."""
    predictions: str | None = None
    """Name of the file in the checkpoint's folder ``PREDICTIONS``, if asked for."""


Report = Callable[[dict[str, Any], Path | None], None]
"""Takes an epoch's metrics on every worker, and the folder with kept models, if there is one."""


@dataclass(frozen=True)
class SplitCache:
    """Prepared rows on a worker's device: each split read at most once, or streamed."""

    prepared: PreparedDataset
    device: torch.device
    groups: int = 1
    """Worker groups that may be on one machine at a time, which part its memory."""

    def placement(self, experiment: ExperimentConfig) -> Placement:
        """Which splits are streamed; the same on every worker of the group, all of which ask."""
        return plan_placement(experiment, self.prepared.manifest.counts, lambda: self._free)

    def of(self, split: str, placement: Placement) -> RatingSource | None:
        """A split's rows, or None if it has none."""
        if split in placement.streamed:
            return Streamed(self.prepared, split, self.device)
        if split not in self._resident:
            rows = self.prepared.rows(split)
            self._resident[split] = None if rows is None else rows.to(self.device)
        return self._resident[split]

    @cached_property
    def _free(self) -> int:
        """Measured once, before any rows are there."""
        neighbours = self.groups * ray.train.get_context().get_local_world_size()
        return free_on_every_worker(self.device, shard_of_worker(), neighbours)

    @cached_property
    def _resident(self) -> dict[str, Batch | None]:
        return {}


def train_tasks(
    tasks: Sequence[TrainingTask],
    resources: Resources,
    where: Storage,
    callbacks: Sequence[UserCallback] = (),
) -> tuple[list[TaskResult], Checkpoint]:
    """Train every task in one worker group; the checkpoint holds the kept models and predictions.

    If workers are lost, others go on from the last epoch of a task whose model is kept, and train
    the other tasks again; so does a later call with the same ``where``.

    Raises:
        TrainingError: if a worker failed, with its reason.
    """
    if resources.num_workers > 1 and not (
        resources.use_gpu or all(data_parallel_pays_off(task.experiment) for task in tasks)
    ):
        say(
            f"note: with batches this small, {resources.num_workers} workers are likely slower "
            "than one; set scaling.num_workers = 1 or raise train.batch_size"
        )
    say(f"   {len(tasks)} model(s) to train, by {resources.num_workers} worker(s) that start now")
    trainer = torch_trainer(tasks, resources, where, callbacks, collect=True)
    try:
        with _interrupts_as_usual():
            result = trainer.fit()
    except ray.train.TrainingFailedError as error:
        raise TrainingError(f"training failed: {first_cause(error)}") from error
    if result.checkpoint is None:
        raise TrainingError("training ended without a result")
    with result.checkpoint.as_directory() as folder:
        content = json.loads((Path(folder) / RESULTS).read_text(encoding="utf-8"))
    if "failure" in content:
        raise TrainingError(f"training failed: {content['failure']}")
    results = TypeAdapter(list[TaskResult]).validate_python(content["results"])
    for each in results:
        if each.rows.note:
            say(f"   note: {each.name}: {each.rows.note}")
    return results, result.checkpoint


@contextmanager
def _interrupts_as_usual() -> Iterator[None]:
    """Let Ctrl-C be a ``KeyboardInterrupt``: Ray Train leaves a handler that ends the program."""
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

    With ``collect`` its last checkpoint holds their results and the kept models; without, it only
    reports epochs, which is all that a trial of a search is for. ``groups`` such trainers may run
    at a time.
    """
    return TorchTrainer(
        _work,
        train_loop_config={"tasks": list(tasks), "collect": collect, "groups": groups},
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
    """The workers of one training run, as Train wants to be told."""
    return ScalingConfig(
        num_workers=resources.num_workers,
        use_gpu=resources.use_gpu,
        resources_per_worker=resources.per_worker,
    )


def first_cause(error: ray.train.TrainingFailedError) -> str:
    """The worker's own exception, without the traceback that led to it."""
    failures = getattr(error, "worker_failures", None) or {}
    causes = [str(failure).strip().splitlines()[-1] for failure in failures.values()]
    return causes[0] if causes else str(error).strip().splitlines()[0]


def _work(config: dict[str, Any]) -> None:
    """Body of every worker."""
    tasks: list[TrainingTask] = config["tasks"]
    device = ray.train.torch.get_device()

    def train(task: TrainingTask, folder: Path | None = None) -> TaskResult:
        rows = SplitCache(task.prepared, device, config["groups"])
        return train_task(task, rows, report, folder)

    if not config["collect"]:
        # No folder for a trial: it may be stopped at any moment, and would leave it behind.
        for task in tasks:
            train(task)
        return
    with scratch_folder() as folder:
        _continue_from(ray.train.get_checkpoint(), folder)
        content: dict[str, Any]
        try:
            content = {"results": [asdict(train(task, folder)) for task in tasks]}
        except NcfError as error:
            # Raised, it would make Ray Train start the workers anew, to come to the same error.
            content = {"failure": str(error)}
        (folder / RESULTS).write_text(json.dumps(content), encoding="utf-8")
        report({"finished": True}, folder)


def _continue_from(checkpoint: Checkpoint | None, folder: Path) -> None:
    """Put what an interrupted run of the same tasks left into ``folder``."""
    if checkpoint is not None:
        with checkpoint.as_directory() as left:
            shutil.copytree(left, folder, dirs_exist_ok=True)


def report(metrics: dict[str, Any], folder: Path | None) -> None:
    """Report from every worker, as Ray demands, with a checkpoint from the first one only."""
    is_first = ray.train.get_context().get_world_rank() == 0
    saved = Checkpoint.from_directory(folder) if folder and is_first else None
    ray.train.report(metrics, checkpoint=saved)


def shard_of_worker() -> Shard:
    """This worker's part of every batch."""
    context = ray.train.get_context()
    return Shard(context.get_world_rank(), context.get_world_size())


def train_task(
    task: TrainingTask, rows: SplitCache, on_report: Report, folder: Path | None = None
) -> TaskResult:
    """Train one task on every worker of a group.

    Args:
        task: what to train.
        rows: its rows, on this worker's device.
        on_report: called after every epoch.
        folder: where the models and predictions of tasks that keep theirs go.
    """
    started = time.perf_counter()
    shard = shard_of_worker()
    prepared, experiment = task.prepared, task.experiment
    objective = Objective(experiment.train, experiment.time_decay, prepared.preprocessor)
    placement = rows.placement(experiment)
    train_rows, validation_rows = (rows.of(name, placement) for name in ("train", "validation"))
    assert train_rows is not None
    model = ray.train.torch.prepare_model(
        build(experiment, prepared.preprocessor, train_rows),
        # Buffers never change, so sending them with every step would be waste.
        parallel_strategy_kwargs={"broadcast_buffers": False} if shard.world_size > 1 else None,
    )

    if shard.rank:
        # Else every worker would drop the same activations, of different rows.
        torch.manual_seed(experiment.train.seed + shard.rank)

    newest: list[FitResult] = []

    def on_epoch(epoch: Epoch, result: FitResult) -> None:
        newest[:] = [result]
        kept = folder / task.name if folder and task.keep else None
        if kept and shard.rank == 0:
            _save(task, result, kept, unwrapped(model).history)
        on_report(_metrics(task, epoch, result, placement), folder if kept else None)

    def on_state(state: TrainingState) -> None:
        if state_folder and shard.rank == 0:
            save_state(state, state_folder)

    state_folder = folder / task.name / STATE if folder and task.keep else None
    try:
        result = fit(
            model,
            train_rows,
            validation_rows,
            objective,
            shard=shard,
            resume=load_state(state_folder) if state_folder else None,
            on_state=on_state if state_folder else None,
            on_epoch=on_epoch,
        )
    finally:
        if task.models and newest and shard.rank == 0:
            _leave(task, task.models, newest[0], unwrapped(model).history)
    best = next(e for e in result.epochs if e.number == result.best_epoch)
    test = None
    if task.score_test:
        unwrapped(model).load_state_dict(result.best)
        test_rows = rows.of("test", placement)
        assert test_rows is not None
        test = evaluate(model, test_rows, objective, shard).as_dict()
        if task.keep_predictions:
            assert folder is not None
            found = predict(model, test_rows, objective, shard)
            if shard.rank == 0:
                _write_predictions(found, prepared, folder / PREDICTIONS, task)
    return TaskResult(
        name=task.name,
        seed=experiment.train.seed,
        best_epoch=result.best_epoch,
        epochs=tuple(epoch.as_dict() for epoch in result.epochs),
        validation=best.validation.as_dict() if best.validation else None,
        test=test,
        seconds=time.perf_counter() - started,
        rows=placement,
        predictions=predictions_file(task.name)
        if task.score_test and task.keep_predictions
        else None,
    )


def predictions_file(name: str) -> str:
    """Name of the file with the predictions of a model of this name."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-") + ".parquet"


def _write_predictions(
    found: Predictions, prepared: PreparedDataset, folder: Path, task: TrainingTask
) -> None:
    folder.mkdir(exist_ok=True)
    rows = prepared.table("test", ["row"])["row"].to_numpy()
    pq.write_table(found.to_arrow(rows), folder / predictions_file(task.name))


def _metrics(
    task: TrainingTask, epoch: Epoch, result: FitResult, placement: Placement
) -> dict[str, Any]:
    """What an epoch reports to Ray, and so to the search and to the progress lines."""
    metrics = {
        "task": task.name,
        "max_epochs": task.experiment.train.stop_after or task.experiment.train.epochs,
        "best_epoch": result.best_epoch,
        **epoch.as_dict(),
    }
    if placement.streamed:
        metrics["streamed"] = True
    scores = [e.validation.stars for e in result.epochs if e.validation]
    if scores:
        best = min(scores, key=lambda score: score.rmse).as_dict()
        metrics |= {metric.key: best[name] for name, metric in SEARCH_METRICS.items()}
    return metrics


def _save(task: TrainingTask, result: FitResult, folder: Path, history: History | None) -> None:
    """The best and the last weights so far, each as a whole checkpoint in ``folder``."""
    for which, weights, number in (
        ("best", result.best, result.best_epoch),
        ("last", result.last, result.epochs[-1].number),
    ):
        checkpoint.save(
            folder / which,
            weights,
            task.experiment,
            task.prepared.preprocessor,
            {
                "epoch": number,
                "seed": task.experiment.train.seed,
                "metrics": result.epochs[number - 1].as_dict(),
            },
            history,
        )


def _leave(task: TrainingTask, models: Storage, result: FitResult, history: History | None) -> None:
    """Leave the weights in storage; that this failed must not cost the trained model's figures."""
    try:
        with scratch_folder() as scratch:
            _save(task, result, scratch / "models", history)
            copy_folder(scratch / "models", models)
    except (OSError, StorageError) as error:
        _log.warning("the weights of %s could not be kept: %s", task.name, error)
