"""The ordinal head: from the network's number to a distribution over the levels of stars."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn

from ncf.data.preprocessor import Preprocessor

STEP = 0.5
"""Distance in stars between two levels of the rating scale."""


def rating_levels(preprocessor: Preprocessor) -> torch.Tensor:
    """``[K]`` levels from the lowest to the highest training rating, half a star apart."""
    count = round((preprocessor.rating_max - preprocessor.rating_min) / STEP) + 1
    return torch.tensor(
        np.linspace(preprocessor.rating_min, preprocessor.rating_max, count), dtype=torch.float32
    )


class OrdinalHead(nn.Module):
    """A probability for each level, from one number: the proportional odds model.

    P(rating <= level k) = sigmoid((threshold k - number) / scale), with thresholds that start
    halfway between the levels. McCullagh 1980, https://doi.org/10.1111/j.2517-6161.1980.tb01109.x.
    """

    levels: torch.Tensor

    def __init__(self, preprocessor: Preprocessor) -> None:
        super().__init__()
        self.register_buffer("levels", rating_levels(preprocessor), persistent=False)
        gaps = len(self.levels) - 1
        self.first = nn.Parameter(self.levels[0] + STEP / 2)
        # Softplus keeps the thresholds in order.
        self.gaps = nn.Parameter(torch.full((max(gaps - 1, 0),), math.log(math.expm1(STEP))))
        self.log_scale = nn.Parameter(torch.tensor(math.log(0.45)))

    @property
    def thresholds(self) -> torch.Tensor:
        """``[K - 1]``, ascending."""
        steps = nn.functional.softplus(self.gaps)
        return self.first + torch.cat([steps.new_zeros(1), torch.cumsum(steps, 0)])

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        """``[B]`` -> logarithms of probabilities ``[B, K]``."""
        if len(self.levels) == 1:
            return numbers[:, None] * 0
        scaled = (self.thresholds - numbers[:, None]) / self.log_scale.exp()
        below = nn.functional.logsigmoid(scaled)
        above = nn.functional.logsigmoid(-scaled)
        # P(between two thresholds) = P(<= upper) * P(> lower) * (1 - exp((lower - upper) / scale))
        distance = scaled.diff(dim=1).clamp(min=1e-6)
        between = below[:, 1:] + above[:, :-1] + torch.log(-torch.expm1(-distance))
        return torch.cat([below[:, :1], between, above[:, -1:]], dim=1)

    def expectation(self, log_probabilities: torch.Tensor) -> torch.Tensor:
        """``[B, K]`` -> the expected rating ``[B]``, in stars."""
        return log_probabilities.exp() @ self.levels


def nearest_level(levels: torch.Tensor, ratings: torch.Tensor) -> torch.Tensor:
    """Position of the level that each rating is nearest to: ``[K], [B] -> [B]``."""
    middles = (levels[1:] + levels[:-1]) / 2
    return torch.bucketize(ratings, middles)
