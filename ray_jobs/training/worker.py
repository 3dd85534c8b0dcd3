"""Train a rating model on every worker of a group."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch

from foundation.errors import StorageError
from foundation.storage import Storage
from ncf.data.batches import RatingSource
from ncf.data.placement import Placement
from ncf.data.sampling import Shard
from ncf.evaluation.metrics import METRICS
from ncf.evaluation.predictions import evaluate, predict
from ncf.models.targets import Objective
from ncf.training.loop import Training
from ncf.training.state import Epoch, FitResult, load_state, save_state
from ncf.training.trainer import build
from ray_jobs.training.saved_state import read_state, write_state
from ray_jobs.training.scratch import scratch_folder
from ray_jobs.training.split_cache import SplitCache
from ray_jobs.training.tasks import (
    Report,
    TrainingResult,
    TrainingTask,
    save_models,
    save_predictions,
)
from ray_jobs.training.telemetry import SEARCH_METRICS
from ray_jobs.training.worker_context import broadcast, data_parallel

logger: Final = logging.getLogger(__name__)


def train_rating_task(task: TrainingTask, rows: SplitCache, report: Report) -> TrainingResult:
    """Train one task; all workers of the group must call this.

    Args:
        task: what to train.
        rows: its rows, on this worker's device.
        report: called after every epoch; training stops if it returns False, and then no test row
            is scored.

    Raises:
        NcfError: if training diverges, or cannot continue from its state.
        StorageError: if something that the task needs cannot be stored.
    """
    started = time.perf_counter()
    shard = rows.shard
    placement = rows.placement(task.experiment)
    training = _training(task, rows, placement, shard)
    is_stopped, states = False, _States(task, rows)
    try:
        for epoch in training:
            is_stopped = not report(epoch_metrics(task, epoch, training.result, placement))
            # After the report: an epoch that is in a state is not reported again. Others may go on
            # with a task that these workers were asked to leave.
            states.save_if_due(training)
            if is_stopped:
                break
    finally:
        if task.models and training.result.epochs and shard.rank == 0:
            _store_models(task, training, task.models)
    # A training is stopped when its result is not wanted.
    test = None if is_stopped else _score_test(task, training, rows, placement, shard)
    if not is_stopped:
        states.end()
    seconds = time.perf_counter() - started
    return _task_result(task, training.result, test, placement, seconds)


def _task_result(
    task: TrainingTask,
    result: FitResult,
    test: dict[str, Any] | None,
    placement: Placement,
    seconds: float,
) -> TrainingResult:
    best = result.epochs[result.best_epoch - 1].validation
    return TrainingResult(
        name=task.name,
        seed=task.experiment.train.seed,
        best_epoch=result.best_epoch,
        epochs=tuple(epoch.as_dict() for epoch in result.epochs),
        validation=best.as_dict() if best else None,
        test=test,
        seconds=seconds,
        rows=placement,
        predictions=task.predictions.name if task.score_test and task.predictions else None,
        validation_predictions=task.validation_predictions.name
        if best and task.validation_predictions
        else None,
    )


def _training(task: TrainingTask, rows: SplitCache, placement: Placement, shard: Shard) -> Training:
    """The training of a task, from its state if there is one."""
    experiment = task.experiment
    preprocessor = task.prepared.preprocessor
    train_rows = rows.required("train", placement)
    validation_rows = rows.of("validation", placement)
    model = build(experiment, preprocessor, train_rows)
    module = data_parallel(model.network, shard)
    if shard.rank:
        # Otherwise every worker would drop the same activations, of different rows.
        torch.manual_seed(experiment.train.seed + shard.rank)
    return Training(
        model,
        train_rows,
        validation_rows,
        _objective(task),
        shard=shard,
        metric=METRICS[task.metric],
        resume=read_state(task.state, load_state) if task.state else None,
        data_parallel=module,
    )


class _States:
    """The states of a training; all workers of the group must call its methods."""

    def __init__(self, task: TrainingTask, rows: SplitCache) -> None:
        self._task = task
        self._rows = rows
        self._saved = time.monotonic()

    def save_if_due(self, training: Training) -> None:
        """Save the state after an epoch, if the last one is old enough."""
        stored, shard = self._task.state, self._rows.shard
        if stored is None:
            return
        is_due = time.monotonic() - self._saved >= self._task.state_every
        if not broadcast(is_due, shard, self._rows.device):
            return
        state = training.state()  # of all workers
        if shard.rank == 0:
            with self._failures_logged():
                write_state(state, stored, save_state)
        self._saved = time.monotonic()

    def end(self) -> None:
        """Delete the state, unless it is kept."""
        stored = self._task.state
        if stored and not self._task.keeps_state and self._rows.shard.rank == 0:
            with self._failures_logged():
                stored.delete()

    @contextmanager
    def _failures_logged(self) -> Iterator[None]:
        """A state that is not kept is no part of a result, and a failure to store it no reason to
        end the training."""
        try:
            yield
        except (OSError, StorageError) as error:
            if self._task.keeps_state:
                raise
            logger.warning("the state of %s could not be stored: %s", self._task.name, error)


def _store_models(task: TrainingTask, training: Training, models: Storage) -> None:
    """Store the models; unless the task needs them, a failure is logged, so that the metrics are
    not lost with them."""
    try:
        with scratch_folder() as scratch:
            save_models(task, training.result, training.model.history, scratch / "models")
            Storage.at(scratch / "models").copy_to(models)
    except (OSError, StorageError) as error:
        if task.needs_models:
            raise
        logger.warning("the weights of %s could not be stored: %s", task.name, error)


def _score_test(
    task: TrainingTask,
    training: Training,
    rows: SplitCache,
    placement: Placement,
    shard: Shard,
) -> dict[str, Any] | None:
    """Metrics of the best epoch's weights on the test rows, if the task asks for them."""
    training.model.network.load_state_dict(training.result.best)
    validation_rows = rows.of("validation", placement)
    if task.validation_predictions and validation_rows is not None:
        _save(task, "validation", training, validation_rows, shard, task.validation_predictions)
    if not task.score_test:
        return None
    test_rows = rows.required("test", placement)
    scores = evaluate(training.model, test_rows, _objective(task), shard).as_dict()
    if task.predictions:
        _save(task, "test", training, test_rows, shard, task.predictions)
    return scores


def _save(
    task: TrainingTask,
    split: str,
    training: Training,
    rows: RatingSource,
    shard: Shard,
    file: Storage,
) -> None:
    """Save predictions for the rows of a split."""
    predictions = predict(training.model, rows, _objective(task), shard)
    if shard.rank == 0:
        save_predictions(predictions, task.prepared, split, file)


def _objective(task: TrainingTask) -> Objective:
    experiment = task.experiment
    return Objective(experiment.train, experiment.time_decay, task.prepared.preprocessor)


def epoch_metrics(
    task: TrainingTask, epoch: Epoch, result: FitResult, placement: Placement
) -> dict[str, Any]:
    """What an epoch reports: to Ray, to the search and to progress lines."""
    metrics = {
        "task": task.name,
        "max_epochs": task.experiment.train.stop_after or task.experiment.train.epochs,
        "best_epoch": result.best_epoch,
        **epoch.as_dict(),
    }
    if placement.streamed:
        metrics["streamed"] = True
    scores = [each.validation for each in result.epochs if each.validation]
    if scores:
        metrics |= {
            each.key: each.best([METRICS[name].of(epoch) for epoch in scores])
            for name, each in SEARCH_METRICS.items()
        }
    return metrics
