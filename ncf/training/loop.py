"""The training loop: epochs, early stopping and the best epoch. No Ray."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import replace
from typing import Final

import torch
from torch import nn

from ncf.config import TrainConfig
from ncf.data.batches import RatingSource
from ncf.data.sampling import SINGLE_WORKER, Shard, ShardedBatch, sum_over_workers
from ncf.errors import DivergedError
from ncf.evaluation.metrics import METRICS, Metric
from ncf.evaluation.predictions import evaluate
from ncf.models.targets import Objective
from ncf.models.weights import snapshot
from ncf.training.state import Epoch, FitResult, TrainingState
from ncf.training.trainer import Trainer, num_epochs

_LOSSES_KEPT: Final = 64
"""Steps' losses that are kept as tensors of their own: each lies between the large blocks of its
step, and keeps the allocator from putting these together when they are free again."""


def train_epoch(
    model: nn.Module,
    portions: Iterable[ShardedBatch],
    step: Callable[[ShardedBatch], torch.Tensor],
    shard: Shard = SINGLE_WORKER,
) -> float:
    """Take a step for every batch; returns the mean loss over all workers' rows."""
    model.train()
    losses: list[torch.Tensor] = []
    count = 0
    for portion in portions:
        # Reading the loss here would make the device wait at every step.
        losses.append(step(portion))
        count += portion.batch_size
        if len(losses) == _LOSSES_KEPT:
            losses = [torch.cat([loss.reshape(-1) for loss in losses])]
    total = torch.cat([loss.reshape(-1) for loss in losses]).double().sum()
    sum_over_workers(total, shard)
    return float(total) / max(count, 1)


def fit(
    model: nn.Module,
    train_rows: RatingSource,
    validation_rows: RatingSource | None,
    objective: Objective,
    *,
    shard: Shard = SINGLE_WORKER,
    metric: Metric = METRICS["rmse"],
    resume: TrainingState | None = None,
    on_state: Callable[[TrainingState], None] | None = None,
    on_epoch: Callable[[Epoch, FitResult], None] = lambda epoch, result: None,
) -> FitResult:
    """Train ``model``, an ``NCF`` or its data-parallel wrapper, as the configuration says.

    Args:
        model: on the same device as the rows.
        train_rows: all training rows; with several workers, each holds or reads all of them.
        validation_rows: rows for early stopping and for choosing the best epoch, if any.
        objective: loss, decay and fitted state.
        shard: this worker's part of every batch.
        metric: what chooses the best epoch, stops early and lowers the rate at a plateau. RMSE in
            stars is comparable between all losses and decays.
        resume: where to go on, from a run of the same model, rows, objective and number of workers;
            on one CPU all that follows is the same, bit for bit, as if it had not been interrupted.
        on_state: called after each epoch, before ``on_epoch``, with what ``resume`` takes.
        on_epoch: called after each epoch with that epoch and the run so far.

    Raises:
        DivergedError: if the training loss becomes infinite or no number.
    """
    config = objective.train
    direction = metric.direction if validation_rows else "min"
    trainer = Trainer(model, train_rows, objective, shard, direction)
    generator = torch.Generator().manual_seed(config.seed)
    initial = snapshot(model)
    result = FitResult((), 0, initial, initial)
    if resume:
        result = resume.result
        trainer.restore(resume, generator)
    while not _is_over(result, config):
        started = time.perf_counter()
        number = len(result.epochs) + 1
        with closing(trainer.portions(generator)) as portions:
            train_loss = train_epoch(model, portions, trainer.step, shard)
        scores = evaluate(model, validation_rows, objective, shard) if validation_rows else None
        _refuse_divergence(train_loss + (scores.stars.squared if scores else 0), number, config)
        # Without validation rows, the training loss is what can tell that it goes no further.
        trainer.epoch_ended(metric.of(scores) if scores else train_loss)
        seconds = time.perf_counter() - started
        epoch = Epoch(number, train_loss, trainer.learning_rate, seconds, scores, is_best=True)
        if result.best_epoch and config.keep != "last":
            best = result.epochs[result.best_epoch - 1]
            epoch = replace(epoch, is_best=epoch.error(metric) < best.error(metric))
        result = result.after(epoch, snapshot(model))
        if on_state:
            on_state(trainer.state(result, generator))
        on_epoch(epoch, result)
    return result


def _is_over(result: FitResult, config: TrainConfig) -> bool:
    done = len(result.epochs)
    if done >= num_epochs(config):
        return True
    validated = done and result.epochs[-1].validation
    return bool(validated and config.patience and done - result.best_epoch >= config.patience)


def _refuse_divergence(error: float, epoch: int, config: TrainConfig) -> None:
    if not math.isfinite(error):
        raise DivergedError(
            f"training diverged: the error of epoch {epoch} is {error}. Lower "
            f"train.learning_rate, which is {config.learning_rate:g}"
        )
