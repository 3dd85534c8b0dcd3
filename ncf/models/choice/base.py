"""The interface of all choice models."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch

from ncf.data.interactions import Interactions


class ChoiceModel(ABC):
    """Scores all movies for users, given what they have rated.

    A user whom the model was not trained on is scored from the ratings alone: nothing is trained.
    """

    @abstractmethod
    def scores(self, known: Interactions) -> torch.Tensor:
        """``[B, M]`` float32: how likely each user is to choose each movie next.

        Movies that a user has rated have scores too; the caller removes them.
        """
