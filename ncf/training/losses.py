"""Losses of single rows, and their weighted sum for a network's outputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch.nn import functional

from ncf.models.heads import nearest_level
from ncf.models.ncf import NCF
from ncf.registry import LOSSES, implementation

RowLoss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Predictions, ``[B]`` or ``[B, K]``, and targets ``[B]`` -> the loss of each row, ``[B]``."""


@dataclass(frozen=True)
class Loss:
    """What training minimises: the weighted mean of the rows' losses."""

    name: str
    """Its name in ``train.loss``."""
    compares: Literal["rating", "distribution"]
    """The arguments of ``of_rows``, see ``ncf.registry.LossEntry``."""
    of_rows: RowLoss

    def weighted_sum(
        self, predictions: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        """Sum over rows of weight * loss, a scalar; the inputs are those of ``of_rows``.

        A sum, so that workers with parts of a batch can divide by the size of the whole batch.
        """
        return (weights * self.of_rows(predictions, targets)).sum()

    def of_network(
        self, network: NCF, outputs: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        """The same for outputs of ``network``; ``targets: [B]`` in the training target's unit."""
        if self.compares == "rating":
            return self.weighted_sum(network.expected_rating(outputs), targets, weights)
        assert network.head is not None  # validated by the configuration
        return self.weighted_sum(outputs, nearest_level(network.head.levels, targets), weights)


def get_loss(name: str) -> Loss:
    """The loss that ``train.loss`` calls ``name``."""
    entry = LOSSES[name]
    return Loss(name, entry.compares, implementation(entry.implementation))


def mse(predictions: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Squared error."""
    return functional.mse_loss(predictions, targets, reduction="none")


def l1(predictions: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Absolute error."""
    return functional.l1_loss(predictions, targets, reduction="none")


def smooth_l1(predictions: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Huber loss with a threshold of one star."""
    return functional.smooth_l1_loss(predictions, targets, reduction="none")


def nll(log_probabilities: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    """Negative log-likelihood of the target's level: ``[B, K], [B] -> [B]``."""
    return functional.nll_loss(log_probabilities, levels, reduction="none")
