"""The training loop: any rows, any device, one process or many, no Ray."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed, nn

from ncf.batches import ALONE, Batch, Share, chunks, shuffled
from ncf.config import ExperimentConfig, TimeDecayConfig, TrainConfig
from ncf.errors import DivergedError
from ncf.fitted import FittedState
from ncf.losses import weighted_sum
from ncf.metrics import ErrorSums, Scores, error_vector
from ncf.model import NCF

EVALUATION_CHUNK = 8192
"""Rows per forward pass in evaluation; beyond some thousands the size no longer matters."""

Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Epoch:
    """What one pass over the training rows came to."""

    number: int
    """From 1."""
    train_loss: float
    """Mean weighted training loss, dropout active."""
    learning_rate: float
    """After the epoch's last step."""
    seconds: float
    """Wall time of training and validation."""
    validation: Scores | None
    """Errors on the validation rows; None without a validation split."""
    is_best: bool
    """Whether no earlier epoch was as good; without a validation split, always true."""

    def as_dict(self) -> dict[str, Any]:
        """Flat record for reports: ``validation_rmse`` is in stars."""
        record: dict[str, Any] = {
            "epoch": self.number,
            "train_loss": self.train_loss,
            "learning_rate": self.learning_rate,
            "seconds": self.seconds,
        }
        if self.validation:
            for prefix, sums in (
                ("validation", self.validation.stars),
                ("validation_decayed", self.validation.decayed),
            ):
                record |= {f"{prefix}_rmse": sums.rmse, f"{prefix}_mae": sums.mae}
                record[f"{prefix}_r2"] = sums.r2
        return record


@dataclass(frozen=True)
class FitResult:
    """A finished training run."""

    epochs: tuple[Epoch, ...]
    best_epoch: int
    """Number of the epoch whose weights are ``best``."""
    best: Weights
    """Weights of the best epoch by validation; of the last without a validation split."""
    last: Weights
    """Weights of the last epoch."""


@dataclass(frozen=True)
class Objective:
    """What the training minimises, and how its predictions are read."""

    train: TrainConfig
    time_decay: TimeDecayConfig
    fitted: FittedState

    def targets(self, rows: Batch) -> torch.Tensor:
        """``[B]`` what the network is to predict."""
        if self.time_decay.apply_to == "target":
            return rows.ratings * rows.weights
        return rows.ratings

    def row_weights(self, rows: Batch) -> torch.Tensor:
        """``[B]`` weights of the rows' losses, with mean 1 over ``rows``.

        Mean 1 keeps the learning rate and the ridge penalty meaning the same at any decay rate.
        """
        if self.time_decay.apply_to == "loss":
            return rows.weights / rows.weights.mean()
        return torch.ones_like(rows.weights)

    def stars(self, outputs: torch.Tensor, rows: Batch) -> torch.Tensor:
        """``[B]`` predicted ratings, clipped to the range of the training ratings."""
        if self.time_decay.apply_to == "target":
            outputs = outputs / rows.weights
        return outputs.clamp(self.fitted.rating_min, self.fitted.rating_max)

    def decayed(self, outputs: torch.Tensor, rows: Batch) -> torch.Tensor:
        """``[B]`` predictions on the scale rating * weight."""
        if self.time_decay.apply_to == "target":
            return outputs
        return self.stars(outputs, rows) * rows.weights


def evaluate(model: nn.Module, rows: Batch, objective: Objective, share: Share = ALONE) -> Scores:
    """Errors over all ``rows``, whatever part of them each worker computes."""
    model.eval()
    totals = torch.zeros(2, 5, dtype=torch.float64, device=rows.users.device)
    with torch.no_grad():
        for batch in chunks(share.of(rows), EVALUATION_CHUNK):
            outputs = model(batch.users, batch.movies)
            totals[0] += error_vector(objective.stars(outputs, batch), batch.ratings)
            totals[1] += error_vector(
                objective.decayed(outputs, batch), batch.ratings * batch.weights
            )
    _sum_over_workers(totals, share)
    return Scores(ErrorSums.from_vector(totals[0]), ErrorSums.from_vector(totals[1]))


def train_epoch(
    model: nn.Module,
    batches: Iterable[tuple[Batch, int]],
    step: Callable[[Batch, int], torch.Tensor],
    share: Share = ALONE,
) -> float:
    """Take a step for every batch; returns the mean loss over all workers' rows."""
    model.train()
    losses: list[torch.Tensor] = []
    count = 0
    for batch, batch_size in batches:
        # Reading the loss here would make the device wait at every step.
        losses.append(step(batch, batch_size))
        count += batch_size
    total = torch.stack(losses).double().sum()
    _sum_over_workers(total, share)
    return float(total) / max(count, 1)


def fit(
    model: nn.Module,
    train_rows: Batch,
    validation_rows: Batch | None,
    objective: Objective,
    *,
    share: Share = ALONE,
    on_epoch: Callable[[Epoch, FitResult], None] = lambda epoch, result: None,
) -> FitResult:
    """Train ``model``, an ``NCF`` or its data-parallel wrapper, as the configuration says.

    Args:
        model: on the same device as the rows.
        train_rows: all training rows; with several workers, each holds all of them.
        validation_rows: rows for early stopping and for choosing the best epoch, if any.
        objective: loss, decay and fitted state.
        share: this worker's part of every batch.
        on_epoch: called after each epoch with that epoch and the run so far.

    Raises:
        DivergedError: if the training loss becomes infinite or no number.
    """
    config = objective.train
    trainer = _Stepper(model, train_rows, objective, share)
    generator = torch.Generator().manual_seed(config.seed)
    epochs: list[Epoch] = []
    best_error, best_epoch, best = math.inf, 0, snapshot(model)
    result = FitResult((), 0, best, best)
    for number in range(1, min(config.stop_after or config.epochs, config.epochs) + 1):
        started = time.perf_counter()
        batches = shuffled(trainer.rows, config.batch_size, generator, share)
        train_loss = train_epoch(model, batches, trainer.step, share)
        scores = evaluate(model, validation_rows, objective, share) if validation_rows else None
        # In stars under every loss and decay, so that runs are comparable; without validation rows
        # the newest epoch counts as the best.
        error = scores.stars.rmse if scores else -number
        _refuse_divergence(train_loss + error, number, config)
        is_best = error < best_error
        if is_best:
            best_error, best_epoch, best = error, number, snapshot(model)
        epochs.append(
            Epoch(
                number,
                train_loss,
                trainer.learning_rate,
                time.perf_counter() - started,
                scores,
                is_best,
            )
        )
        result = FitResult(tuple(epochs), best_epoch, best, snapshot(model))
        on_epoch(epochs[-1], result)
        if validation_rows and config.patience and number - best_epoch >= config.patience:
            break
    return result


def _refuse_divergence(error: float, epoch: int, config: TrainConfig) -> None:
    if not math.isfinite(error):
        raise DivergedError(
            f"training diverged: the error of epoch {epoch} is {error}. Lower "
            f"train.learning_rate, which is {config.learning_rate:g}"
        )


def snapshot(model: nn.Module) -> Weights:
    """A copy of the weights on the CPU, without a data-parallel wrapper's prefix."""
    return {
        name: value.detach().to("cpu", copy=True)
        for name, value in unwrapped(model).state_dict().items()
    }


def unwrapped(model: nn.Module) -> NCF:
    """The network itself, inside a data-parallel wrapper or not."""
    inner = getattr(model, "module", model)
    assert isinstance(inner, NCF)
    return inner


class _Stepper:
    """Optimiser, schedule and loss: what one step needs beside its batch."""

    def __init__(
        self, model: nn.Module, train_rows: Batch, objective: Objective, share: Share
    ) -> None:
        config = objective.train
        # From here on a row's rating is its target and its weight that of its loss.
        self.rows = Batch(
            train_rows.users,
            train_rows.movies,
            objective.targets(train_rows),
            objective.row_weights(train_rows),
            train_rows.times,
        )
        self._model = model
        self._config = config
        self._share = share
        self._ridged = list(unwrapped(model).entity_vectors())
        self._ridge = 2 * config.embedding_l2 / max(len(train_rows), 1)
        self._optimizer = torch.optim.AdamW(
            model.parameters(),
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            fused=True,
        )
        num_steps = config.epochs * math.ceil(len(train_rows) / config.batch_size)
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._optimizer, _factor(config, num_steps)
        )

    @property
    def learning_rate(self) -> float:
        """Current learning rate."""
        return float(self._optimizer.param_groups[0]["lr"])

    def step(self, batch: Batch, batch_size: int) -> torch.Tensor:
        """One optimiser step; returns the sum of this worker's losses."""
        outputs = self._model(batch.users, batch.movies)
        total = weighted_sum(self._config.loss, outputs, batch.ratings, batch.weights)
        self._optimizer.zero_grad(set_to_none=True)
        # Data parallelism averages gradients over workers; this makes it the mean over all rows.
        (total * (self._share.size / batch_size)).backward()
        if self._ridge:
            for vectors in self._ridged:
                if vectors.grad is not None:
                    vectors.grad.add_(vectors.detach(), alpha=self._ridge)
        self._optimizer.step()
        self._schedule.step()
        return total.detach()


def _factor(config: TrainConfig, num_steps: int) -> Callable[[int], float]:
    if config.schedule == "constant":
        return lambda step: 1.0
    return lambda step: 0.5 * (1 + math.cos(math.pi * min(step / num_steps, 1.0)))


def _sum_over_workers(totals: torch.Tensor, share: Share) -> None:
    if share.size > 1:
        distributed.all_reduce(totals)


def build(experiment: ExperimentConfig, fitted: FittedState, train_rows: Batch) -> NCF:
    """A new network with weights from the configured seed, starting at the mean target."""
    torch.manual_seed(experiment.train.seed)
    model = NCF(experiment.model, fitted)
    objective = Objective(experiment.train, experiment.time_decay, fitted)
    weights = objective.row_weights(train_rows)
    model.start_at(float((objective.targets(train_rows) * weights).mean()))
    return model
