"""Learning-rate schedules."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final

from torch.optim.lr_scheduler import ReduceLROnPlateau

from ncf.config import TrainConfig
from ncf.evaluation.metrics import Direction
from ncf.training.optimizer import AdamW

WARM_UP: Final = 0.3
"""Share of the steps in which a one-cycle learning rate increases; Smith and Topin,
https://arxiv.org/abs/1708.07120."""


_PLATEAU: Final = ("best", "num_bad_epochs", "last_epoch")
"""State of ``ReduceLROnPlateau``, by the names of its attributes."""


class Schedule:
    """Sets the optimiser's learning rate, step by step or after each epoch."""

    def __init__(
        self, optimizer: AdamW, config: TrainConfig, num_steps: int, direction: Direction
    ) -> None:
        """``num_steps`` is that of all epochs; ``direction`` that of ``end_epoch``'s values."""
        self._optimizer = optimizer
        self._initial = config.learning_rate
        self._num_done = 0
        self._factor = self._plateau = None
        if config.schedule == "plateau":
            self._plateau = ReduceLROnPlateau(optimizer, mode=direction, factor=0.5, patience=0)
        elif config.schedule != "constant":
            self._factor = learning_rate_factor(config, num_steps)
            optimizer.lr = self._initial * self._factor(0)

    def next_rate(self) -> float:
        """The learning rate of the current step; afterwards, it is that of the next one."""
        rate = self._optimizer.lr
        if self._factor:
            self._num_done += 1
            self._optimizer.lr = self._initial * self._factor(self._num_done)
        return rate

    def end_epoch(self, value: float) -> None:
        """Lower the rate of a plateau schedule if ``value`` is no better than before."""
        if self._plateau:
            self._plateau.step(value)

    def state(self) -> dict[str, float]:
        """What ``restore`` takes."""
        state = {"rate": self._optimizer.lr, "num_done": float(self._num_done)}
        if self._plateau:
            state |= {name: float(getattr(self._plateau, name)) for name in _PLATEAU}
        return state

    def restore(self, state: Mapping[str, float]) -> None:
        """Continue from ``state``."""
        self._optimizer.lr = state["rate"]
        self._num_done = int(state["num_done"])
        if self._plateau:
            self._plateau.best = state["best"]
            self._plateau.num_bad_epochs = int(state["num_bad_epochs"])
            self._plateau.last_epoch = int(state["last_epoch"])


def learning_rate_factor(config: TrainConfig, num_steps: int) -> Callable[[int], float]:
    """The factor of ``train.learning_rate`` at each of ``num_steps`` steps, for ``cosine`` and
    ``one-cycle``."""

    def cosine(share: float) -> float:
        return 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))

    def one_cycle(share: float) -> float:
        if share < WARM_UP:
            return 0.04 + 0.96 * share / WARM_UP
        return cosine((share - WARM_UP) / (1 - WARM_UP))

    shape = cosine if config.schedule == "cosine" else one_cycle
    return lambda step: shape(step / max(num_steps, 1))
