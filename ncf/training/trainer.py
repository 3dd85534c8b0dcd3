"""One optimiser step after another: model, optimiser, schedule and loss."""

from __future__ import annotations

import logging
import math
from functools import cache
from typing import Final

import torch
from torch import distributed, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from ncf.config import ExperimentConfig, TrainConfig
from ncf.data.batches import Batch, RatingSource, chunks
from ncf.data.preprocessor import Preprocessor
from ncf.data.sampling import (
    SINGLE_WORKER,
    Grouping,
    Shard,
    ShardedBatch,
    ShardedBatches,
    grouped,
    shuffled,
)
from ncf.evaluation.metrics import Direction
from ncf.models.ncf import NCF
from ncf.models.targets import Objective, mean_over
from ncf.models.weights import unwrapped
from ncf.training.compiled import WORTHWHILE_STEPS, CompiledSteps, obstacle
from ncf.training.losses import get_loss
from ncf.training.optimizer import AdamW
from ncf.training.schedules import learning_rate_factor
from ncf.training.state import FitResult, TrainingState

_log: Final = logging.getLogger(__name__)


def num_epochs(config: TrainConfig) -> int:
    """Passes over the rows at most."""
    return min(config.stop_after or config.epochs, config.epochs)


class Trainer:
    """Optimiser, schedule and loss: what one step needs beside its batch."""

    def __init__(
        self,
        model: nn.Module,
        train_rows: RatingSource,
        objective: Objective,
        shard: Shard = SINGLE_WORKER,
        direction: Direction = "min",
    ) -> None:
        """``direction`` is that of the values which ``epoch_ended`` gets."""
        config = objective.train
        # From here on a row's rating is its target and its weight that of its loss.
        self.rows = objective.training_rows(train_rows)
        self.model = model
        self._config = config
        self._loss = get_loss(config.loss)
        self._shard = shard
        self._network = network = unwrapped(model)
        network.fit_history(self.rows)
        self._grouping = None
        if network.uses_history:
            history = network.config.history
            self._grouping = Grouping(history.chunk, history.cold_start_share)
        self._l2_penalties = [
            (table, 2 * strength / max(len(train_rows), 1))
            for table, strength in network.l2_penalties(config)
            if strength
        ]
        self._optimizer = AdamW(list(model.parameters()), config.learning_rate, config.weight_decay)
        steps_of_epoch = math.ceil(len(train_rows) / config.batch_size)
        self._factor = self._plateau = None
        self._num_done = 0
        if config.schedule == "plateau":
            self._plateau = ReduceLROnPlateau(
                self._optimizer, mode=direction, factor=0.5, patience=0
            )
        elif config.schedule != "constant":
            self._factor = learning_rate_factor(config, config.epochs * steps_of_epoch)
            self._optimizer.lr = config.learning_rate * self._factor(0)
        self._compiled = None
        if _is_to_compile(network, config, num_epochs(config) * steps_of_epoch, shard):
            self._compiled = CompiledSteps(network, self._optimizer, config, self._l2_penalties)

    @property
    def learning_rate(self) -> float:
        """Current learning rate."""
        return self._optimizer.lr

    def portions(self, generator: torch.Generator) -> ShardedBatches:
        """This worker's part of an epoch, as ``step`` takes it."""
        if self._grouping is not None:
            assert isinstance(self.rows, Batch)  # or the network would have refused them
            size = self._config.batch_size
            return grouped(self.rows, size, self._grouping, generator, self._shard)
        size = self._compiled.num_rows if self._compiled else self._config.batch_size
        return shuffled(self.rows, size, generator, self._shard)

    def step(self, portion: ShardedBatch) -> torch.Tensor:
        """An optimiser step, or several if they are compiled; returns the sum of the losses."""
        if self._compiled is None:
            return self._one_step(portion)
        if len(portion.rows) == self._compiled.num_rows:
            rates = [self._next_rate() for _ in range(self._compiled.num_steps)]
            return self._compiled(portion.rows, rates)
        # The last rows of an epoch.
        batches = chunks(portion.rows, self._config.batch_size)
        return torch.stack(
            [self._one_step(ShardedBatch(rows, len(rows))) for rows in batches]
        ).sum()

    def _one_step(self, portion: ShardedBatch) -> torch.Tensor:
        rows, batch_size, starts = portion
        known = None if starts is None else (rows.ratings, starts)
        outputs = self.model(rows.users, rows.movies, rows.times, known)
        total = self._loss.of_network(self._network, outputs, rows.ratings, rows.weights)
        self._optimizer.zero_grad()
        # Data parallelism averages gradients over workers; this makes it the mean over all rows.
        (total * (self._shard.world_size / batch_size)).backward()
        for table, strength in self._l2_penalties:
            if table.grad is not None:
                table.grad.add_(table.detach(), alpha=strength)
        self._optimizer.step()
        self._next_rate()
        return total.detach()

    def _next_rate(self) -> float:
        """The learning rate of the step at hand; from now on, it is that of the next one."""
        rate = self._optimizer.lr
        if self._factor:
            self._num_done += 1
            self._optimizer.lr = self._config.learning_rate * self._factor(self._num_done)
        return rate

    def epoch_ended(self, value: float) -> None:
        """Lower the learning rate if ``value``, what epochs are compared by, is no better."""
        if self._plateau:
            self._plateau.step(value)

    def state(self, result: FitResult, generator: torch.Generator) -> TrainingState:
        """Where training stands after an epoch; all workers must call this."""
        schedule = {"rate": self._optimizer.lr, "num_done": float(self._num_done)}
        if self._plateau:
            schedule |= {name: float(getattr(self._plateau, name)) for name in _PLATEAU}
        return TrainingState(
            result,
            {name: part.to("cpu", copy=True) for name, part in self._optimizer.moments.items()},
            schedule,
            generator.get_state(),
            _of_all_workers(_dropout_state(self.rows.device), self._shard),
        )

    def restore(self, state: TrainingState, generator: torch.Generator) -> None:
        """Go back to where ``state`` was taken."""
        self._network.load_state_dict(state.result.last)
        for name, part in self._optimizer.moments.items():
            part.copy_(state.optimizer[name])
        self._optimizer.lr = state.schedule["rate"]
        self._num_done = int(state.schedule["num_done"])
        if self._plateau:
            self._plateau.best = state.schedule["best"]
            self._plateau.num_bad_epochs = int(state.schedule["num_bad_epochs"])
            self._plateau.last_epoch = int(state.schedule["last_epoch"])
        generator.set_state(state.order)
        # A copy: torch 2.13 crashes on a state that is a part of a larger tensor.
        _set_dropout_state(state.dropout[self._shard.rank].clone(), self.rows.device)


_PLATEAU: Final = ("best", "num_bad_epochs", "last_epoch")
"""What a plateau schedule goes by, as torch names it."""


def _dropout_state(device: torch.device) -> torch.Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_dropout_state(state: torch.Tensor, device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)


def _of_all_workers(state: torch.Tensor, shard: Shard) -> torch.Tensor:
    """``[S]`` of each worker -> ``[W, S]`` on all of them."""
    if shard.world_size == 1:
        return state[None]
    on_cuda = distributed.get_backend() == "nccl"
    own = state.cuda() if on_cuda else state
    found = [torch.empty_like(own) for _ in range(shard.world_size)]
    distributed.all_gather(found, own)
    return torch.stack(found).cpu()


def _is_to_compile(network: NCF, config: TrainConfig, num_steps: int, shard: Shard) -> bool:
    """Whether steps are to be compiled; says why not if that was asked for."""
    if config.compile == "off" or (config.compile == "auto" and num_steps < WORTHWHILE_STEPS):
        return False
    reason = (
        "steps of several workers are not compiled" if shard.world_size > 1 else obstacle(network)
    )
    if reason and config.compile == "on":
        _note(f"training without compiled steps: {reason}")
    return reason is None


@cache
def _note(message: str) -> None:
    """Log ``message``, once in a process: it is the same for every model of a search."""
    _log.warning(message)


def build(
    experiment: ExperimentConfig, preprocessor: Preprocessor, train_rows: RatingSource
) -> NCF:
    """A new network with weights from the configured seed, starting at the mean target."""
    torch.manual_seed(experiment.train.seed)
    model = NCF(experiment.model, preprocessor)
    objective = Objective(experiment.train, experiment.time_decay, preprocessor)
    rows = objective.training_rows(train_rows)
    model.init_output_bias(float(mean_over(rows, lambda part: part.ratings * part.weights)))
    return model
