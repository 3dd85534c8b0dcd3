"""The training loop: epochs, early stopping and the best epoch. No Ray."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Final

import torch
from torch import nn

from ncf.config import TrainConfig
from ncf.data.batches import RatingSource, TrainingBatch
from ncf.data.sampling import SINGLE_WORKER, Shard, ShardedBatch, sum_over_workers
from ncf.errors import DivergedError
from ncf.evaluation.metrics import METRICS, Metric, Scores
from ncf.evaluation.predictions import evaluate
from ncf.models.conditioned import ConditionedModel
from ncf.models.targets import Objective
from ncf.models.weights import snapshot
from ncf.training.state import Epoch, FitResult, TrainingState
from ncf.training.trainer import Trainer, num_epochs

_MAX_LOSS_TENSORS: Final = 64
"""Losses of steps that are held as separate tensors: each lies between the large blocks of its
step, and prevents the allocator from merging these when they are free again."""


def train_epoch(
    module: nn.Module,
    batches: Iterable[ShardedBatch[TrainingBatch]],
    step: Callable[[ShardedBatch[TrainingBatch]], torch.Tensor],
    shard: Shard = SINGLE_WORKER,
) -> float:
    """Take a step for every batch; returns the mean loss over all workers' rows."""
    module.train()
    losses: list[torch.Tensor] = []
    count = 0
    for batch in batches:
        # Reading the loss here would make the device wait at every step.
        losses.append(step(batch))
        count += batch.batch_size
        if len(losses) == _MAX_LOSS_TENSORS:
            losses = [torch.cat([loss.reshape(-1) for loss in losses])]
    total = torch.cat([loss.reshape(-1) for loss in losses]).double().sum()
    sum_over_workers(total, shard)
    return float(total) / max(count, 1)


class Training:
    """Trains a model as the configuration says; each iteration is an epoch.

    ::

        training = Training(model, train_rows, validation_rows, objective)
        for epoch in training:
            print(epoch.number, epoch.train_loss)
        weights = training.result.best
    """

    def __init__(
        self,
        model: ConditionedModel,
        train_rows: RatingSource,
        validation_rows: RatingSource | None,
        objective: Objective,
        *,
        shard: Shard = SINGLE_WORKER,
        metric: Metric = METRICS["rmse"],
        resume: TrainingState | None = None,
        data_parallel: nn.Module | None = None,
    ) -> None:
        """Fit the model's history, and prepare the optimiser.

        Args:
            model: on the same device as the rows.
            train_rows: all training rows; with several workers, each holds or reads all of them.
            validation_rows: rows for early stopping and for choosing the best epoch, if any.
            objective: loss, decay and preprocessor.
            shard: this worker's part of every batch.
            metric: chooses the best epoch, stops early and lowers the rate at a plateau. RMSE in
                stars is comparable between all losses and decays.
            resume: state of an interrupted training of the same model, rows, objective and number
                of workers; on one CPU all that follows is the same, bit for bit, as without the
                interruption.
            data_parallel: the data-parallel wrapper of ``model.network``, if there are several
                workers.

        Raises:
            TypeError: if the model ``uses_history`` and the training rows are not in memory.
        """
        self.model = model
        self._validation_rows = validation_rows
        self._objective = objective
        self._config = objective.train
        self._shard = shard
        self._metric = metric
        direction = metric.direction if validation_rows else "min"
        self._trainer = Trainer(model, train_rows, objective, shard, direction, data_parallel)
        self._generator = torch.Generator().manual_seed(self._config.seed)
        initial = snapshot(model.network)
        self.result = FitResult((), 0, initial, initial)
        """The training so far."""
        if resume:
            self.result = resume.result
            self._trainer.restore(resume, self._generator)

    def __iter__(self) -> Iterator[Epoch]:
        """Train, and yield each epoch when it has ended and ``result`` includes it.

        Raises:
            DivergedError: if the training loss becomes infinite or NaN.
        """
        while not _is_over(self.result, self._config):
            epoch = self._train_epoch()
            self.result = self.result.after(epoch, snapshot(self.model.network))
            yield epoch

    def state(self) -> TrainingState:
        """What ``resume`` takes; all workers must call this after the same epoch."""
        return self._trainer.state(self.result, self._generator)

    def _train_epoch(self) -> Epoch:
        started = time.perf_counter()
        number = len(self.result.epochs) + 1
        self.model.train()
        with closing(self._trainer.batches(self._generator)) as batches:
            train_loss = train_epoch(self._trainer.module, batches, self._trainer.step, self._shard)
        scores = self._validate()
        _refuse_divergence(
            train_loss + (scores.stars.squared if scores else 0), number, self._config
        )
        # Without validation rows, the training loss shows when training makes no more progress.
        self._trainer.end_epoch(self._metric.of(scores) if scores else train_loss)
        seconds = time.perf_counter() - started
        epoch = Epoch(
            number, train_loss, self._trainer.learning_rate, seconds, scores, is_best=True
        )
        return replace(epoch, is_best=self._is_best(epoch))

    def _validate(self) -> Scores | None:
        if not self._validation_rows:
            return None
        return evaluate(self.model, self._validation_rows, self._objective, self._shard)

    def _is_best(self, epoch: Epoch) -> bool:
        if not self.result.best_epoch or self._config.keep == "last":
            return True
        best = self.result.epochs[self.result.best_epoch - 1]
        return epoch.cost(self._metric) < best.cost(self._metric)


def fit(
    model: ConditionedModel,
    train_rows: RatingSource,
    validation_rows: RatingSource | None,
    objective: Objective,
    *,
    shard: Shard = SINGLE_WORKER,
    metric: Metric = METRICS["rmse"],
    resume: TrainingState | None = None,
    data_parallel: nn.Module | None = None,
) -> FitResult:
    """Train ``model`` to the end; arguments and errors are those of ``Training``."""
    training = Training(
        model,
        train_rows,
        validation_rows,
        objective,
        shard=shard,
        metric=metric,
        resume=resume,
        data_parallel=data_parallel,
    )
    for _ in training:
        pass
    return training.result


def _is_over(result: FitResult, config: TrainConfig) -> bool:
    num_done = len(result.epochs)
    if num_done >= num_epochs(config):
        return True
    is_validated = num_done and result.epochs[-1].validation
    return bool(
        is_validated and config.patience and num_done - result.best_epoch >= config.patience
    )


def _refuse_divergence(loss: float, epoch: int, config: TrainConfig) -> None:
    if not math.isfinite(loss):
        raise DivergedError(
            f"training diverged: the error of epoch {epoch} is {loss}. Lower "
            f"train.learning_rate, which is {config.learning_rate:g}"
        )
