"""The training loop: any rows, any device, one process or many, no Ray."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from typing import Final

import torch
from torch import distributed, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from ncf.batches import (
    ALONE,
    Batch,
    Grouping,
    Portion,
    Portions,
    Rows,
    Share,
    chunks,
    grouped,
    shuffled,
)
from ncf.compiled import WORTHWHILE_STEPS, CompiledSteps, obstacle
from ncf.config import ExperimentConfig, TimeDecayConfig, TrainConfig
from ncf.errors import DivergedError
from ncf.fitted import FittedState
from ncf.losses import network_loss
from ncf.metrics import ErrorSums, Scores, error_vector
from ncf.model import NCF
from ncf.optimizer import AdamW
from ncf.state import Epoch, FitResult, TrainingState, Weights

EVALUATION_CHUNK = 4096
"""Rows per forward pass in evaluation: enough that overhead does not matter, and few enough that
what lies between the layers stays in the cache."""
_KEPT_NUMBERS: Final = 4_000_000
_LOSSES_KEPT: Final = 64
"""Steps' losses that are kept as tensors of their own: each lies between the large blocks of its
step, and keeps the allocator from putting these together when they are free again."""

_log: Final = logging.getLogger(__name__)


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

    def training_rows(self, rows: Rows) -> Rows:
        """``rows`` with the target for the rating and the weight of the row's loss for the weight.

        Losses' weights have mean 1 over all rows, which keeps the learning rate and the ridge
        penalty meaning the same at any decay rate.
        """
        mean = None
        if self.time_decay.apply_to == "loss":
            mean = mean_over(rows, lambda part: part.weights)

        def change(part: Batch) -> Batch:
            weights = torch.ones_like(part.weights) if mean is None else part.weights / mean
            return replace(part, ratings=self.targets(part), weights=weights)

        return rows.map(change)

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


def mean_over(rows: Rows, value: Callable[[Batch], torch.Tensor]) -> torch.Tensor:
    """The mean of ``value``, ``[B]`` of a batch, over all rows."""
    total = torch.zeros((), dtype=torch.float64, device=rows.device)
    for part in rows.parts():
        total += value(part).mean().double() * len(part)
    return (total / len(rows)).float()


def evaluate(model: nn.Module, rows: Rows, objective: Objective, share: Share = ALONE) -> Scores:
    """Errors over all ``rows``, whatever part of them each worker computes."""
    model.eval()
    # glibc keeps as much freed memory as the largest block it saw freed; without this, it returns
    # that of each chunk to the system, and fetching it again takes as long as the arithmetic.
    torch.empty(_KEPT_NUMBERS)
    totals = torch.zeros(2, 5, dtype=torch.float64, device=rows.device)
    with torch.no_grad(), closing(rows.parts()) as parts:
        for batch in (b for part in parts for b in chunks(share.of(part), EVALUATION_CHUNK)):
            outputs = _point(model, model(batch.users, batch.movies, batch.times))
            totals[0] += error_vector(objective.stars(outputs, batch), batch.ratings)
            totals[1] += error_vector(
                objective.decayed(outputs, batch), batch.ratings * batch.weights
            )
    _sum_over_workers(totals, share)
    return Scores(ErrorSums.from_vector(totals[0]), ErrorSums.from_vector(totals[1]))


def train_epoch(
    model: nn.Module,
    portions: Iterable[Portion],
    step: Callable[[Portion], torch.Tensor],
    share: Share = ALONE,
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
    _sum_over_workers(total, share)
    return float(total) / max(count, 1)


def fit(
    model: nn.Module,
    train_rows: Rows,
    validation_rows: Rows | None,
    objective: Objective,
    *,
    share: Share = ALONE,
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
        share: this worker's part of every batch.
        resume: where to go on, from a run of the same model, rows, objective and number of workers;
            on one CPU all that follows is the same, bit for bit, as if it had not been interrupted.
        on_state: called after each epoch, before ``on_epoch``, with what ``resume`` takes.
        on_epoch: called after each epoch with that epoch and the run so far.

    Raises:
        DivergedError: if the training loss becomes infinite or no number.
    """
    config = objective.train
    trainer = Trainer(model, train_rows, objective, share)
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
            train_loss = train_epoch(model, portions, trainer.step, share)
        scores = evaluate(model, validation_rows, objective, share) if validation_rows else None
        _refuse_divergence(train_loss + (scores.stars.rmse if scores else 0), number, config)
        # Without validation rows, the training loss is what can tell that it goes no further.
        trainer.epoch_ended(scores.stars.rmse if scores else train_loss)
        seconds = time.perf_counter() - started
        epoch = Epoch(number, train_loss, trainer.learning_rate, seconds, scores, is_best=True)
        if result.best_epoch and config.keep != "last":
            best = result.epochs[result.best_epoch - 1]
            epoch = replace(epoch, is_best=epoch.error < best.error)
        result = result.after(epoch, snapshot(model))
        if on_state:
            on_state(trainer.state(result, generator))
        on_epoch(epoch, result)
    return result


def _is_over(result: FitResult, config: TrainConfig) -> bool:
    done = len(result.epochs)
    if done >= _num_epochs(config):
        return True
    validated = done and result.epochs[-1].validation
    return bool(validated and config.patience and done - result.best_epoch >= config.patience)


def _num_epochs(config: TrainConfig) -> int:
    """Passes over the rows at most."""
    return min(config.stop_after or config.epochs, config.epochs)


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


def _point(model: nn.Module, outputs: torch.Tensor) -> torch.Tensor:
    """One number a row, also of a model that predicts a distribution."""
    return outputs if outputs.dim() == 1 else unwrapped(model).point(outputs)


def unwrapped(model: nn.Module) -> NCF:
    """The network itself, inside a data-parallel wrapper or not."""
    inner = getattr(model, "module", model)
    assert isinstance(inner, NCF)
    return inner


class Trainer:
    """Optimiser, schedule and loss: what one step needs beside its batch."""

    def __init__(
        self, model: nn.Module, train_rows: Rows, objective: Objective, share: Share = ALONE
    ) -> None:
        config = objective.train
        # From here on a row's rating is its target and its weight that of its loss.
        self.rows = objective.training_rows(train_rows)
        self.model = model
        self._config = config
        self._share = share
        self._network = network = unwrapped(model)
        network.remember(self.rows)
        self._grouping = None
        if network.learns_in_groups:
            history = network.config.history
            self._grouping = Grouping(history.chunk, history.small_chunks)
        self._ridges = [
            (table, 2 * strength / max(len(train_rows), 1))
            for table, strength in network.ridges(config)
            if strength
        ]
        self._optimizer = AdamW(list(model.parameters()), config.learning_rate, config.weight_decay)
        steps_of_epoch = math.ceil(len(train_rows) / config.batch_size)
        self._factor = self._by_error = None
        self._num_done = 0
        if config.schedule == "plateau":
            self._by_error = ReduceLROnPlateau(self._optimizer, factor=0.5, patience=0)
        elif config.schedule != "constant":
            self._factor = _factor(config, config.epochs * steps_of_epoch)
            self._optimizer.rate = config.learning_rate * self._factor(0)
        self._compiled = None
        if _is_to_compile(network, config, _num_epochs(config) * steps_of_epoch, share):
            self._compiled = CompiledSteps(network, self._optimizer, config, self._ridges)

    @property
    def learning_rate(self) -> float:
        """Current learning rate."""
        return self._optimizer.rate

    def portions(self, generator: torch.Generator) -> Portions:
        """This worker's part of an epoch, as ``step`` takes it."""
        if self._grouping is not None:
            assert isinstance(self.rows, Batch)  # or the network would have refused them
            size = self._config.batch_size
            return grouped(self.rows, size, self._grouping, generator, self._share)
        size = self._compiled.num_rows if self._compiled else self._config.batch_size
        return shuffled(self.rows, size, generator, self._share)

    def step(self, portion: Portion) -> torch.Tensor:
        """An optimiser step, or several if they are compiled; returns the sum of the losses."""
        if self._compiled is None:
            return self._one_step(portion)
        if len(portion.rows) == self._compiled.num_rows:
            rates = [self._next_rate() for _ in range(self._compiled.num_steps)]
            return self._compiled(portion.rows, rates)
        # The last rows of an epoch.
        batches = chunks(portion.rows, self._config.batch_size)
        return torch.stack([self._one_step(Portion(rows, len(rows))) for rows in batches]).sum()

    def _one_step(self, portion: Portion) -> torch.Tensor:
        rows, batch_size, starts = portion
        known = None if starts is None else (rows.ratings, starts)
        outputs = self.model(rows.users, rows.movies, rows.times, known)
        total = network_loss(self._network, self._config.loss, outputs, rows.ratings, rows.weights)
        self._optimizer.forget_gradients()
        # Data parallelism averages gradients over workers; this makes it the mean over all rows.
        (total * (self._share.size / batch_size)).backward()
        for table, strength in self._ridges:
            if table.grad is not None:
                table.grad.add_(table.detach(), alpha=strength)
        self._optimizer.advance()
        self._next_rate()
        return total.detach()

    def _next_rate(self) -> float:
        """The learning rate of the step at hand; from now on, it is that of the next one."""
        rate = self._optimizer.rate
        if self._factor:
            self._num_done += 1
            self._optimizer.rate = self._config.learning_rate * self._factor(self._num_done)
        return rate

    def epoch_ended(self, error: float) -> None:
        """Take note of the error by which epochs are compared."""
        if self._by_error:
            self._by_error.step(error)

    def state(self, result: FitResult, generator: torch.Generator) -> TrainingState:
        """Where training stands after an epoch; all workers must call this."""
        schedule = {"rate": self._optimizer.rate, "num_done": float(self._num_done)}
        if self._by_error:
            schedule |= {name: float(getattr(self._by_error, name)) for name in _PLATEAU}
        return TrainingState(
            result,
            {name: part.to("cpu", copy=True) for name, part in self._optimizer.moments.items()},
            schedule,
            generator.get_state(),
            _of_all_workers(_dropout_state(self.rows.device), self._share),
        )

    def restore(self, state: TrainingState, generator: torch.Generator) -> None:
        """Go back to where ``state`` was taken."""
        self._network.load_state_dict(state.result.last)
        for name, part in self._optimizer.moments.items():
            part.copy_(state.optimizer[name])
        self._optimizer.rate = state.schedule["rate"]
        self._num_done = int(state.schedule["num_done"])
        if self._by_error:
            self._by_error.best = state.schedule["best"]
            self._by_error.num_bad_epochs = int(state.schedule["num_bad_epochs"])
            self._by_error.last_epoch = int(state.schedule["last_epoch"])
        generator.set_state(state.order)
        # A copy: torch 2.13 crashes on a state that is a part of a larger tensor.
        _set_dropout_state(state.dropout[self._share.rank].clone(), self.rows.device)


_PLATEAU: Final = ("best", "num_bad_epochs", "last_epoch")
"""What a plateau schedule goes by, as torch names it."""


def _dropout_state(device: torch.device) -> torch.Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_dropout_state(state: torch.Tensor, device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)


def _of_all_workers(state: torch.Tensor, share: Share) -> torch.Tensor:
    """``[S]`` of each worker -> ``[W, S]`` on all of them."""
    if share.size == 1:
        return state[None]
    on_cuda = distributed.get_backend() == "nccl"
    own = state.cuda() if on_cuda else state
    found = [torch.empty_like(own) for _ in range(share.size)]
    distributed.all_gather(found, own)
    return torch.stack(found).cpu()


def _is_to_compile(network: NCF, config: TrainConfig, num_steps: int, share: Share) -> bool:
    """Whether steps are to be compiled; says why not if that was asked for."""
    if config.compile == "off" or (config.compile == "auto" and num_steps < WORTHWHILE_STEPS):
        return False
    reason = "steps of several workers are not compiled" if share.size > 1 else obstacle(network)
    if reason and config.compile == "on":
        _note(f"training without compiled steps: {reason}")
    return reason is None


@cache
def _note(message: str) -> None:
    """Log ``message``, once in a process: it is the same for every model of a search."""
    _log.warning(message)


SHARED_MULTIPLICATIONS: Final = 500_000_000
"""Multiplications of dense weights in a batch's forward pass below which two workers on a CPU were
slower than one: sending each other the gradients took longer than what they saved."""


def workers_pay(experiment: ExperimentConfig) -> bool:
    """Whether several workers on CPUs are quicker than one, as far as it was measured.

    A model that learns from the user's other ratings was not measured; it does more for each row.
    """
    model = experiment.model
    if model.history.encoders:
        return True
    widths = (model.embedding_dim * len(model.inputs), *model.hidden_dims, 1)
    weights = sum(before * after for before, after in pairwise(widths))
    return experiment.train.batch_size * weights >= SHARED_MULTIPLICATIONS


WARM_UP: Final = 0.3
"""Share of the steps in which a one-cycle learning rate rises; Smith and Topin,
https://arxiv.org/abs/1708.07120."""


def _factor(config: TrainConfig, num_steps: int) -> Callable[[int], float]:
    """What the learning rate is multiplied by at each step."""

    def cosine(share: float) -> float:
        return 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))

    def one_cycle(share: float) -> float:
        if share < WARM_UP:
            return 0.04 + 0.96 * share / WARM_UP
        return cosine((share - WARM_UP) / (1 - WARM_UP))

    shape = cosine if config.schedule == "cosine" else one_cycle
    return lambda step: shape(step / max(num_steps, 1))


def _sum_over_workers(totals: torch.Tensor, share: Share) -> None:
    if share.size > 1:
        distributed.all_reduce(totals)


def build(experiment: ExperimentConfig, fitted: FittedState, train_rows: Rows) -> NCF:
    """A new network with weights from the configured seed, starting at the mean target."""
    torch.manual_seed(experiment.train.seed)
    model = NCF(experiment.model, fitted)
    objective = Objective(experiment.train, experiment.time_decay, fitted)
    rows = objective.training_rows(train_rows)
    model.start_at(float(mean_over(rows, lambda part: part.ratings * part.weights)))
    return model
