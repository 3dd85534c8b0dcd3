"""Fit a choice model: EASE for each ridge, the network epoch by epoch, and the product of both.

On validation users are chosen the ridge of EASE, the epoch of the network, and then ridge and power
of the product. Without these users the first ridge, the last epoch and the first power are used.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, product
from operator import itemgetter
from typing import Final, Literal, Protocol

import torch
from torch import nn

from foundation.config import Section
from ncf.choice_config import ChoiceConfig, NetworkConfig
from ncf.data.interactions import Interactions
from ncf.data.preprocessor import Preprocessor
from ncf.data.sampling import SINGLE_WORKER, Shard
from ncf.models.choice.base import ChoiceModel
from ncf.models.choice.ease import EasePath
from ncf.models.choice.experts import ProductOfExperts
from ncf.models.choice.network import NetworkChoiceModel, build_network
from ncf.training.choice.loop import ChoiceTraining
from ncf.training.choice.state import ChoiceEpoch, ChoiceTrainingState

Member = Literal["ease", "network", "experts"]


class Evaluation(Protocol):
    """Judges models, such as ``ncf.evaluation.choice_selection.ValidationUsers``."""

    def value(self, model: ChoiceModel) -> float:
        """The metric of validation users' rankings; higher is better."""

    def choose(self, models: Iterable[ChoiceModel], tolerance: float) -> int:
        """The number of the best one, counted from 0."""


_VALUE: Final = "value"

_KEPT_CELLS: Final = 50_000_000
"""Scores that are kept while powers are tried."""


@dataclass(frozen=True)
class Step:
    """A ridge that was tried, or an epoch after which validation users were ranked."""

    number: int
    """From 1."""
    validation: float | None
    """The metric; None without validation users."""
    train_loss: float | None
    """Mean loss of the network's epoch."""
    seconds: float
    """Wall time since the step before."""


def num_steps(config: ChoiceConfig) -> int:
    """The number of the last step."""
    epochs, of_ease = num_epochs(config.network), len(config.ease.ridges)
    return {"ease": of_ease, "network": epochs, "experts": of_ease + epochs}[config.member]


class ModelFit:
    """Fits the configured member; each iteration is a step.

    ::

        fit = ModelFit(config, train, preprocessor, evaluation)
        for step in fit:
            print(step.number, step.validation)
        fit.models[config.member].scores(known)

    Args:
        config: of the model.
        train: training ratings.
        preprocessor: fitted to the same.
        evaluation: ranks the validation users, if there are any; all workers call it.
        mask: of the network, where its own setting is ``auto``.
        shard: this worker's part of each batch of users.
        device: that the network is trained on.
        data_parallel: wraps the network, if there are several workers.
        resume: state of an interrupted training of the network with the same arguments. The steps
            that it had made are yielded again.
        after_epoch: called with the network's training after each of its epochs.
    """

    def __init__(
        self,
        config: ChoiceConfig,
        train: Interactions,
        preprocessor: Preprocessor,
        evaluation: Evaluation | None,
        mask: Literal["random", "forward"] = "random",
        *,
        shard: Shard = SINGLE_WORKER,
        device: torch.device | None = None,
        data_parallel: Callable[[nn.Module], nn.Module] | None = None,
        resume: ChoiceTrainingState | None = None,
        after_epoch: Callable[[ChoiceTraining], None] = lambda _: None,
    ) -> None:
        self.models: dict[Member, ChoiceModel] = {}
        """The fitted members; of the experts all three. Complete after the last step."""
        self.chosen = config
        """The configuration with the ridge, epoch and power that were best so far."""
        self.best_step = 0
        """Number of the member's best step; of the experts the network's."""
        self._train = train
        self._preprocessor = preprocessor
        self._evaluation = evaluation
        own = config.network.mask
        self._mask: Literal["random", "forward"] = mask if own == "auto" else own
        self._shard = shard
        self._device = device or torch.device("cpu")
        self._data_parallel = data_parallel
        self._resume = resume
        self._after_epoch = after_epoch
        self._before = time.perf_counter()

    def __iter__(self) -> Iterator[Step]:
        """Fit, and yield each step when it has ended.

        Raises:
            DivergedError: if the network's loss becomes infinite or NaN.
        """
        member, ridges, done = self.chosen.member, self.chosen.ease.ridges, 0
        if member != "network":
            for step in self._fit_ease():
                done = step.number
                yield step
        if member != "ease":
            yield from self._fit_network(done)
        if member == "experts":
            self._combine(ridges)

    def _fit_ease(self) -> Iterator[Step]:
        config, best = self.chosen.ease, -math.inf
        self._path = EasePath(self._train, self._preprocessor, config)
        # Without validation users there is nothing to choose by.
        ridges = config.ridges if self._evaluation else config.ridges[:1]
        for number, ridge in enumerate(ridges, start=1):
            model = self._path.at(ridge)
            value = self._evaluation.value(model) if self._evaluation else None
            if value is None or value > best:
                best, self.best_step = value or best, number
                self.models["ease"] = model
                self._choose(ease=config.model_copy(update={"ridges": (ridge,)}))
            yield self._step(number, value, None)

    def _fit_network(self, done: int) -> Iterator[Step]:
        """``done`` is the number of the step before."""
        config = self.chosen.network
        network = build_network(config, self._preprocessor, self._train).to(self._device)
        training = ChoiceTraining(
            network,
            self._train,
            config,
            self._mask,
            evaluate=self._as_metrics if self._evaluation else None,
            metric=_VALUE,
            shard=self._shard,
            resume=self._resume,
            data_parallel=self._data_parallel(network) if self._data_parallel else None,
        )
        for epoch in self._epochs(training):
            if epoch.is_best:
                self.best_step = done + epoch.number
            is_last = epoch.number == num_epochs(config)
            if epoch.validation or is_last:
                value = epoch.validation[_VALUE] if epoch.validation else None
                yield self._step(done + epoch.number, value, epoch.train_loss)
        network.load_state_dict(training.result.best)
        self.models["network"] = NetworkChoiceModel(network)
        best_epoch = training.result.best_epoch
        self._choose(network=config.model_copy(update={"stop_after": best_epoch}))

    def _epochs(self, training: ChoiceTraining) -> Iterator[ChoiceEpoch]:
        """Those of the state that is continued from, and the rest."""
        yield from training.result.epochs
        for epoch in training:
            self._after_epoch(training)
            yield epoch

    def _as_metrics(self, model: ChoiceModel) -> dict[str, float]:
        assert self._evaluation
        return {_VALUE: self._evaluation.value(model)}

    def _combine(self, ridges: Sequence[float]) -> None:
        """Choose ridge and power of the product; ``ridges`` are those of EASE that were tried."""
        config, network = self.chosen.experts, self.models["network"]
        pairs = list(product(config.ridges or ridges, config.powers))
        number = self._best_of(pairs) if self._evaluation and len(pairs) > 1 else 0
        ridge, power = pairs[number]
        ease = self._path.at(ridge)
        self.models["experts"] = ProductOfExperts(ease, network, power, config.floor)
        chosen = {"ridges": (ridge,), "powers": (power,)}
        self._choose(experts=config.model_copy(update=chosen))

    def _best_of(self, pairs: Sequence[tuple[float, float]]) -> int:
        assert self._evaluation
        config = self.chosen.experts
        network = _KeptScores(self.models["network"])
        models = (
            ProductOfExperts(ease, network, power, config.floor)
            for ridge, of_ridge in groupby(pairs, key=itemgetter(0))
            for ease in [_KeptScores(self._path.at(ridge))]
            for _, power in of_ridge
        )
        return self._evaluation.choose(models, config.tolerance)

    def _choose(self, **parts: Section) -> None:
        self.chosen = self.chosen.model_copy(update=parts)

    def _step(self, number: int, value: float | None, loss: float | None) -> Step:
        now = time.perf_counter()
        seconds, self._before = now - self._before, now
        return Step(number, value, loss, seconds)


def num_epochs(config: NetworkConfig) -> int:
    """Epochs of the network if it is not stopped early."""
    return min(config.stop_after or config.epochs, config.epochs)


class _KeptScores(ChoiceModel):
    """The scores of ``model``, computed once for each block of users as far as memory allows.

    All of them are of the same users with the same ratings.
    """

    def __init__(self, model: ChoiceModel) -> None:
        self._model = model
        self._kept: dict[tuple[int, int], torch.Tensor] = {}
        self._cells = 0

    def scores(self, known: Interactions) -> torch.Tensor:
        """``[B, M]``."""
        block = (int(known.users[0]), len(known)) if len(known) else (0, 0)
        found = self._kept.get(block)
        if found is None:
            found = self._model.scores(known)
            self._cells += found.numel()
            if self._cells <= _KEPT_CELLS:
                self._kept[block] = found
        return found
