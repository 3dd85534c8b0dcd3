"""Optimiser steps: model, optimiser, schedule and loss."""

from __future__ import annotations

import logging
import math
from functools import cache
from typing import Final

import torch
from torch import nn

from ncf.config import ExperimentConfig, TrainConfig
from ncf.data.batches import RatingSource, TrainingBatch, chunks
from ncf.data.preprocessor import Preprocessor
from ncf.data.sampling import (
    SINGLE_WORKER,
    Grouping,
    Shard,
    ShardedBatch,
    ShardedBatches,
    TrainingRows,
    grouped,
    shuffled,
)
from ncf.evaluation.metrics import Direction
from ncf.models.conditioned import ConditionedModel, all_in_memory
from ncf.models.history.ratings import RatingGroups
from ncf.models.ncf import NCF
from ncf.models.targets import Objective, mean_over
from ncf.training.compiled import WORTHWHILE_STEPS, CompiledSteps, obstacle
from ncf.training.losses import get_loss
from ncf.training.optimizer import AdamW
from ncf.training.random_state import dropout_state, gather_states, set_dropout_state
from ncf.training.schedules import Schedule
from ncf.training.state import FitResult, TrainingState

logger: Final = logging.getLogger(__name__)


def num_epochs(config: TrainConfig) -> int:
    """Maximum number of epochs."""
    return min(config.stop_after or config.epochs, config.epochs)


class Trainer:
    """The optimiser, schedule and loss of a model: all that a training step needs."""

    def __init__(
        self,
        model: ConditionedModel,
        train_rows: RatingSource,
        objective: Objective,
        shard: Shard = SINGLE_WORKER,
        direction: Direction = "min",
        data_parallel: nn.Module | None = None,
    ) -> None:
        """Fit the model's history to the training rows.

        ``direction`` is that of the values passed to ``end_epoch``; ``data_parallel`` wraps
        ``model.network``.
        """
        self._config = config = objective.train
        self._network = model.network
        self.module: nn.Module = model.network if data_parallel is None else data_parallel
        """What is called in each step."""
        self.rows = objective.training_rows(train_rows)
        self._loss = get_loss(config.loss)
        self._shard = shard
        model.fit_history(self.rows)
        self._grouped = _grouped_rows(model, self.rows)
        self._l2_penalties = [
            (table, 2 * strength / max(len(train_rows), 1))
            for table, strength in model.network.l2_penalties(config)
            if strength
        ]
        parameters = list(self.module.parameters())
        self._optimizer = AdamW(parameters, config.learning_rate, config.weight_decay)
        steps_per_epoch = math.ceil(len(train_rows) / config.batch_size)
        self._schedule = Schedule(
            self._optimizer, config, config.epochs * steps_per_epoch, direction
        )
        self._compiled = None
        if _is_to_compile(model.network, config, num_epochs(config) * steps_per_epoch, shard):
            self._compiled = CompiledSteps(
                model.network, self._optimizer, config, self._l2_penalties
            )

    @property
    def learning_rate(self) -> float:
        """Current learning rate."""
        return self._optimizer.lr

    def batches(self, generator: torch.Generator) -> ShardedBatches[TrainingBatch]:
        """This worker's part of an epoch, in batches for ``step``."""
        if self._grouped is not None:
            rows, grouping = self._grouped
            return grouped(rows, self._config.batch_size, grouping, generator, self._shard)
        size = self._compiled.num_rows if self._compiled else self._config.batch_size
        return shuffled(self.rows, size, generator, self._shard)

    def step(self, batch: ShardedBatch[TrainingBatch]) -> torch.Tensor:
        """Take one step, or several if they are compiled; returns the sum of the losses."""
        if self._compiled is None:
            return self._one_step(batch)
        if len(batch.rows) == self._compiled.num_rows:
            rates = [self._schedule.next_rate() for _ in range(self._compiled.num_steps)]
            return self._compiled(batch.rows, rates)
        # The last rows of an epoch.
        parts = chunks(batch.rows, self._config.batch_size)
        return torch.stack([self._one_step(ShardedBatch(rows, len(rows))) for rows in parts]).sum()

    def _one_step(self, batch: ShardedBatch[TrainingBatch]) -> torch.Tensor:
        rows, batch_size, starts = batch
        groups = None if starts is None else RatingGroups(rows.targets, starts)
        outputs = self.module(rows.users, rows.movies, rows.times, groups)
        total = self._loss.of_network(self._network, outputs, rows.targets, rows.loss_weights)
        self._optimizer.zero_grad()
        # Data parallelism averages gradients over workers; this makes it the mean over all rows.
        (total * (self._shard.world_size / batch_size)).backward()
        for table, strength in self._l2_penalties:
            if table.grad is not None:
                table.grad.add_(table.detach(), alpha=strength)
        self._optimizer.step()
        self._schedule.next_rate()
        return total.detach()

    def end_epoch(self, value: float) -> None:
        """Lower the learning rate at a plateau; ``value`` is what epochs are compared by."""
        self._schedule.end_epoch(value)

    def state(self, result: FitResult, generator: torch.Generator) -> TrainingState:
        """The state of training after an epoch; all workers must call this."""
        return TrainingState(
            result,
            {name: part.to("cpu", copy=True) for name, part in self._optimizer.moments.items()},
            self._schedule.state(),
            generator.get_state(),
            gather_states(dropout_state(self.rows.device), self._shard),
        )

    def restore(self, state: TrainingState, generator: torch.Generator) -> None:
        """Continue from ``state``."""
        self._network.load_state_dict(state.result.last)
        for name, part in self._optimizer.moments.items():
            part.copy_(state.optimizer[name])
        self._schedule.restore(state.schedule)
        generator.set_state(state.order)
        # A worker that was not there before keeps the state that its rank was seeded with.
        if self._shard.rank < len(state.dropout):
            # A copy: torch 2.13 crashes on a state that is a part of a larger tensor.
            set_dropout_state(state.dropout[self._shard.rank].clone(), self.rows.device)


def _grouped_rows(
    model: ConditionedModel, rows: TrainingRows
) -> tuple[TrainingBatch, Grouping] | None:
    """Rows that are trained on in groups, and how they are grouped; None if they are not."""
    if not model.uses_history:
        return None
    history = model.config.history
    return all_in_memory(rows), Grouping(history.chunk, history.cold_start_share)


def _is_to_compile(network: NCF, config: TrainConfig, num_steps: int, shard: Shard) -> bool:
    """Whether steps are to be compiled; logs why not if ``train.compile`` is ``on``."""
    if config.compile == "off" or (config.compile == "auto" and num_steps < WORTHWHILE_STEPS):
        return False
    reason = (
        "steps of several workers are not compiled" if shard.world_size > 1 else obstacle(network)
    )
    if reason and config.compile == "on":
        _warn_once(f"training without compiled steps: {reason}")
    return reason is None


@cache
def _warn_once(message: str) -> None:
    """Log ``message`` once in a process: it is the same for every model of a search."""
    logger.warning(message)


def build(
    experiment: ExperimentConfig, preprocessor: Preprocessor, train_rows: RatingSource
) -> ConditionedModel:
    """A new model with weights from the configured seed, which predicts about the mean target."""
    torch.manual_seed(experiment.train.seed)
    network = NCF(experiment.model, preprocessor)
    objective = Objective(experiment.train, experiment.time_decay, preprocessor)
    parts = objective.training_rows(train_rows).parts()
    network.init_output_bias(float(mean_over(parts, lambda part: part.targets * part.loss_weights)))
    return ConditionedModel(network)
