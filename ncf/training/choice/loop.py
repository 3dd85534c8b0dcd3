"""The training loop of the choice network: epochs, early stopping and the best epoch. No Ray.

Each step minimises, for a batch of B users,

    1/B sum over users, their n choices   of   weight / n^user_power * loss
        + scale * ( l2 / 2 * |own vectors|^2 + bias_l2 * |deviations of biases|^2 )

with the weight of a choice by its stars (``choice.network.stars``) and

    scale = (mean choices of a user)^(1 - user_power) / training rows

where half of a user's ratings are choices on average. The sum of a user's weights is about that
power, so ``l2`` means the same for all sizes of data and all ``user_power``.

On a CPU a step of ``softmax`` is bound by products of matrices with the logits, ``[B, M]``; one of
the sampled losses, for many movies, by the optimiser and the linear terms of content, ``[M, D]``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import nn

from ncf.choice_config import NetworkConfig
from ncf.data.interactions import Interactions
from ncf.data.sampling import SINGLE_WORKER, Shard, sum_over_workers
from ncf.errors import DivergedError
from ncf.models.choice.base import ChoiceModel
from ncf.models.choice.network import ChoiceNetwork, NetworkChoiceModel
from ncf.training.choice.batches import ChoiceBatch, ChoiceBatches
from ncf.training.choice.losses import get_loss
from ncf.training.choice.masks import Mask
from ncf.training.choice.negatives import Drawn
from ncf.training.choice.state import ChoiceEpoch, ChoiceFitResult, ChoiceTrainingState, snapshot
from ncf.training.optimizer import AdamW

Evaluate = Callable[[ChoiceModel], dict[str, float]]
"""Metrics of a model by name; more is better."""


class ChoiceTraining:
    """Trains a choice network as the configuration says; each iteration is an epoch.

    ::

        training = ChoiceTraining(network, train, config, "random", evaluate=ranked)
        for epoch in training:
            print(epoch.number, epoch.train_loss, epoch.validation)
        weights = training.result.best
    """

    def __init__(
        self,
        model: ChoiceNetwork,
        train: Interactions,
        config: NetworkConfig,
        mask: Mask,
        evaluate: Evaluate | None = None,
        *,
        metric: str = "ndcg@10",
        shard: Shard = SINGLE_WORKER,
        resume: ChoiceTrainingState | None = None,
        data_parallel: nn.Module | None = None,
    ) -> None:
        """Prepare the optimiser.

        Args:
            model: what ``build_network`` made for ``train``; batches go to its device.
            train: all training ratings, on each of several workers.
            config: of the model.
            mask: what ``config.mask`` stands for.
            evaluate: ranks validation users. Called on each worker, it must return the same.
            metric: which of its metrics chooses the best epoch and stops early. Without
                ``evaluate`` the last epoch is the best.
            shard: this worker's part of every batch.
            resume: state of an interrupted training of the same model, ratings, configuration and
                number of workers; on one CPU all that follows is the same, bit for bit, as without
                the interruption.
            data_parallel: the data-parallel wrapper of ``model``, if there are several workers.
        """
        self.model = model
        self._config = config
        self._evaluate = evaluate
        self._metric = metric
        self._shard = shard
        self._module: nn.Module = model if data_parallel is None else data_parallel
        self._batches = ChoiceBatches(train, model, config, mask, shard)
        self._loss = get_loss(config, train.movie_counts(), model.device)
        scale = self._batches.penalty_scale
        self._penalties = [(p, scale * strength) for p, strength in model.l2_penalties()]
        parameters = list(self._module.parameters())
        self._optimizer = AdamW(parameters, config.learning_rate, weight_decay=0.0)
        initial = snapshot(model)
        self.result = ChoiceFitResult((), 0, initial, initial)
        """The training so far."""
        if resume:
            self._restore(resume)

    def __iter__(self) -> Iterator[ChoiceEpoch]:
        """Train, and yield each epoch when it has ended and ``result`` includes it.

        Raises:
            DivergedError: if the training loss becomes infinite or NaN.
        """
        while not self._is_over():
            epoch = self._train_epoch()
            self.result = self.result.after(epoch, snapshot(self.model))
            yield epoch

    def state(self) -> ChoiceTrainingState:
        """What ``resume`` takes; the same on all workers."""
        moments = self._optimizer.moments
        return ChoiceTrainingState(
            self.result, {name: part.to("cpu", copy=True) for name, part in moments.items()}
        )

    def _restore(self, state: ChoiceTrainingState) -> None:
        self.result = state.result
        self.model.load_state_dict(state.result.last)
        for name, part in self._optimizer.moments.items():
            part.copy_(state.optimizer[name])

    @property
    def _num_epochs(self) -> int:
        return min(self._config.stop_after or self._config.epochs, self._config.epochs)

    def _is_over(self) -> bool:
        epochs, patience = self.result.epochs, self._config.patience
        if len(epochs) >= self._num_epochs:
            return True
        is_ranked = bool(epochs and epochs[-1].validation)
        return bool(is_ranked and patience and len(epochs) - self.result.best_epoch >= patience)

    def _train_epoch(self) -> ChoiceEpoch:
        started = time.perf_counter()
        number = len(self.result.epochs) + 1
        train_loss = self._take_steps(number)
        if not math.isfinite(train_loss):
            raise DivergedError(
                f"training of the choice network diverged: the loss of epoch {number} is "
                f"{train_loss}. Lower choice.network.learning_rate, which is "
                f"{self._config.learning_rate:g}"
            )
        validation = self._validate(number)
        seconds = time.perf_counter() - started
        rate = self._optimizer.lr
        epoch = ChoiceEpoch(number, train_loss, rate, seconds, validation, is_best=True)
        return replace(epoch, is_best=self._is_best(epoch))

    def _take_steps(self, number: int) -> float:
        """Train for epoch ``number``; returns a user's mean loss, over all workers."""
        negatives = self._batches.negatives(number)
        done = (number - 1) * len(self._batches)
        total = torch.zeros((), dtype=torch.float64, device=self.model.device)
        for step, batch in enumerate(self._batches.of_epoch(number), start=done):
            self._optimizer.lr = self._rate(step)
            loss = self._step(batch, self._loss.draw(batch, negatives))
            # Reading the loss here would make the device wait at every step.
            total += loss * batch.num_users
        sum_over_workers(total, self._shard)
        return float(total) / max(1, self._batches.num_users)

    def _step(self, batch: ChoiceBatch, drawn: Drawn | None) -> torch.Tensor:
        candidates = None if drawn is None else drawn.movies
        logits = self._module(batch.known, batch.choices, candidates)
        loss = self._loss.total(logits, batch, drawn)
        self._optimizer.zero_grad()
        # Data parallelism averages gradients over workers; this makes it their sum.
        (loss * self._shard.world_size).backward()
        for parameter, strength in self._penalties:
            assert parameter.grad is not None  # every parameter takes part in each step
            parameter.grad.add_(parameter.detach(), alpha=strength)
        self._optimizer.step()
        return loss.detach()

    def _rate(self, step: int) -> float:
        """A cosine from the learning rate to zero, over the steps of all configured epochs."""
        num_steps = self._config.epochs * len(self._batches)
        return self._config.learning_rate * 0.5 * (1 + math.cos(math.pi * step / num_steps))

    def _validate(self, number: int) -> dict[str, float] | None:
        is_due = number % self._config.evaluate_every == 0 or number == self._num_epochs
        if self._evaluate is None or not is_due:
            return None
        return self._evaluate(NetworkChoiceModel(self.model))

    def _is_best(self, epoch: ChoiceEpoch) -> bool:
        """Whether it is ranked higher than all before; before any is ranked, the last is best."""
        values = [e.validation[self._metric] for e in self.result.epochs if e.validation]
        if epoch.validation is None:
            return not values
        return epoch.validation[self._metric] > max(values, default=-math.inf)
