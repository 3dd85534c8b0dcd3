"""Row-weighted regression losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch.nn import functional

from ncf.config import LossName
from ncf.models.heads import nearest_level
from ncf.models.ncf import NCF

RowLoss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def _mse(predictions: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return functional.mse_loss(predictions, targets, reduction="none")


def _l1(predictions: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return functional.l1_loss(predictions, targets, reduction="none")


def _smooth_l1(predictions: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return functional.smooth_l1_loss(predictions, targets, reduction="none")


def _nll(log_probabilities: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    return functional.nll_loss(log_probabilities, levels, reduction="none")


ROW_LOSSES: Final[dict[LossName, RowLoss]] = {
    "mse": _mse,
    "l1": _l1,
    "smooth_l1": _smooth_l1,
    "nll": _nll,
}


def weighted_sum(
    loss: LossName, predictions: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """Sum over rows of weight * loss; all inputs ``[B]``, result a scalar.

    For ``nll``, predictions are logarithms of probabilities ``[B, K]`` and targets are levels.

    A sum, so that workers which hold parts of a batch can divide by the size of the whole.
    """
    return (weights * ROW_LOSSES[loss](predictions, targets)).sum()


def network_loss(
    network: NCF,
    loss: LossName,
    outputs: torch.Tensor,
    targets: torch.Tensor,
    weights: torch.Tensor,
) -> torch.Tensor:
    """The same of what ``network`` returned; ``targets: [B]`` in the training target's unit."""
    if loss == "nll":
        assert network.head is not None  # the configuration saw to that
        targets = nearest_level(network.head.levels, targets)
    else:
        outputs = network.expected_rating(outputs)
    return weighted_sum(loss, outputs, targets, weights)
