"""The product of experts: EASE's scores and the network's distribution, multiplied.

    log p(movie) = log(max(score / sd of the user's scores, floor)) + power * log softmax(network)

up to a constant of the user.
"""

from __future__ import annotations

import torch

from ncf.data.interactions import Interactions
from ncf.models.choice.base import ChoiceModel


class ProductOfExperts(ChoiceModel):
    """Two models as one.

    Args:
        ease: whose scores are about 0 for a movie that the user would not choose.
        network: whose scores are logits.
        power: of the network's distribution.
        floor: lowest score of EASE, in standard deviations.
    """

    def __init__(self, ease: ChoiceModel, network: ChoiceModel, power: float, floor: float) -> None:
        self.ease = ease
        self.network = network
        self.power = power
        self.floor = floor

    def scores(self, known: Interactions) -> torch.Tensor:
        """``[B, M]`` logarithms of probabilities, up to a constant of each user."""
        return combined(self.ease.scores(known), self.network.scores(known), self.power, self.floor)


def combined(ease: torch.Tensor, logits: torch.Tensor, power: float, floor: float) -> torch.Tensor:
    """``[B, M], [B, M] -> [B, M]``."""
    # Without any spread, as for a user without ratings, EASE has no preference.
    spread = ease.std(dim=1, keepdim=True).clamp(min=torch.finfo(ease.dtype).tiny)
    of_ease = (ease / spread).clamp(min=floor).log()
    return of_ease + power * torch.log_softmax(logits, dim=1)
